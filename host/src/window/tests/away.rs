//! States that memory has no room for: the same rows, or a sentence.

use super::*;
use crate::window::LoadError;

/// A folder for states, which have so much memory and so much room on the disk.
fn folder(name: &str, memory_bytes: u64, disk_bytes: Option<u64>) -> Arc<SpillFolder> {
    let dir = std::env::temp_dir().join(format!("millstream-window-{name}-{}", std::process::id()));
    SpillFolder::new(dir, memory_bytes, disk_bytes)
}

#[test]
fn the_rows_are_the_same_where_memory_has_no_room_for_states() {
    let folder = folder("rows", 0, None);
    ride_all(0..3, Some(&folder));
    assert!(folder.files() > 100, "only {} files were needed", folder.files());
    assert_eq!(folder.used_bytes(), 0);
}

#[test]
fn a_full_disk_stops_the_stage_with_a_sentence_and_its_changelog_has_all() {
    // Fewer bytes than the smallest file has.
    let folder = folder("full", 0, Some(1));
    let (config, events) = (config(WindowKind::Session { gap_ms: 30 }, 0, None), stream(1, 100));
    let mut full = stage_in(&config, Role::Whole, Some(&folder));
    full.begin(0);
    let (mut rows, _) = run(&mut full, &events[..50], 0);
    let (mut told, mut changelog) = (StateRows::default(), Vec::new());
    full.tell(50, (0, 1), &mut told);
    push_told(&told, &mut changelog);
    full.commit();
    let why = try_run(&mut full, &events[50..], 50).expect_err("nothing could be moved").to_string();
    assert!(why.contains("`state.disk`") && why.contains("the changelog has all states"), "{why}");
    // Nor can another stage that has no more room take them over; one that has goes on where this one ended.
    let mut small = stage_in(&config, Role::Whole, Some(&folder));
    let loaded = changelog.iter().try_for_each(|(key, value)| small.load(key.as_deref(), value.as_deref()));
    assert!(matches!(loaded, Err(LoadError::Memory(_))), "{loaded:?}");
    let mut restored = restored(&config, &changelog, 0, 50);
    rows.extend(run(&mut restored, &events[50..], 50).0);
    assert_eq!(rows, Reference::of(&config, &events).rows);
}
