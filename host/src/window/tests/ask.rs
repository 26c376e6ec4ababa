//! What is told of open windows is what would leave if they closed now, and asking changes nothing.

use super::*;
use crate::window::keys_of;

#[test]
fn what_is_asked_for_is_what_would_be_emitted() {
    let mut compared = 0;
    for kind in kinds() {
        for (seed, reopen_ms) in [(1, 0), (2, 0), (3, 500), (4, 500)] {
            let events = stream(seed, 300);
            let mut stage = stage(&config(kind, reopen_ms, None), Role::Whole);
            run(&mut stage, &events, 0);
            let position = events.len() as i64;
            let mut asked: Vec<Value> = Vec::new();
            for key in ["a", "b", "c", "nobody"] {
                for key in keys_of(key, 1) {
                    let held = stage.ask(&key, position).expect("an answer");
                    assert!(!held.more, "{kind:?}");
                    let open = held.windows.into_iter().filter(|window| window.open);
                    asked.extend(open.map(|window| {
                        assert!(window.state_bytes > 0);
                        serde_json::from_slice::<Value>(&window.row.expect("a row")).expect("JSON")
                    }));
                }
            }
            let mut emitted = Emitted::default();
            stage.close_all(position, &mut emitted).expect("windows close");
            let mut emitted = rows(&emitted);
            for row in asked.iter_mut().chain(&mut emitted) {
                row.as_object_mut().expect("an object").remove("version");
            }
            let text = |row: &Value| row.to_string();
            asked.sort_by_key(text);
            emitted.sort_by_key(text);
            assert_eq!(asked, emitted, "{kind:?} seed {seed}");
            compared += asked.len();
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn a_closed_window_that_can_still_be_corrected_is_told_as_such() {
    let mut stage =
        stage(&config(WindowKind::Fixed { size_ms: 100, every_ms: 100, offset_ms: 0 }, 1_000, None), Role::Whole);
    let event = |time_ms| Event { time_ms, key: "a", value: 1 };
    run(&mut stage, &[event(1_010), event(1_020), event(1_500)], 0);
    let held = stage.ask(&keys_of("a", 1)[0], 3).expect("an answer");
    let seen: Vec<_> = held.windows.iter().map(|window| (window.start_us / 1_000, window.open)).collect();
    assert_eq!(seen, [(1_000, false), (1_500, true)]);
    let row: Value = serde_json::from_slice(held.windows[0].row.as_ref().expect("a row")).expect("JSON");
    assert_eq!((&row["n"], &row["version"]), (&json!(2), &json!(6)), "{row}");
}

#[test]
fn an_answer_is_bounded() {
    let mut stage =
        stage(&config(WindowKind::Fixed { size_ms: 1_000, every_ms: 1, offset_ms: 0 }, 0, None), Role::Whole);
    let events: Vec<Event> = (0..400).map(|i| Event { time_ms: 10_000 + i, key: "a", value: 1 }).collect();
    run(&mut stage, &events, 0);
    let held = stage.ask(&keys_of("a", 1)[0], 400).expect("an answer");
    assert!(held.more && (1..=100).contains(&held.windows.len()), "{}", held.windows.len());
}
