//! Everything at once: kills of processes and of the server, lost answers, rebalances, views behind views.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::line::{LINEAGE, Line, WINDOW};
use crate::harness::clickhouse::ClickHouse;
use crate::harness::process::long;
use millstream::memory::Chance;

const PORT: u16 = 18_994;

struct Size {
    records: i64,
    kills: usize,
    server_kills: usize,
}

#[test]
fn every_row_is_there_and_none_twice_whatever_is_killed() {
    let size = match long() {
        true => Size { records: 1_000_000, kills: 20, server_kills: 5 },
        false => Size { records: 40_000, kills: 4, server_kills: 1 },
    };
    let server = ClickHouse::start(PORT);
    let mut line = Line::on(&server.url(), "chaos", 4, &format!("n UInt32, {LINEAGE}"));
    for (table, view, from) in [("behind", "v", "t"), ("further", "w", "behind")] {
        line.sql(&format!(
            "CREATE TABLE $.{table} (n UInt32, _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY n {WINDOW}"
        ));
        line.sql(&format!(
            "CREATE MATERIALIZED VIEW $.{view} TO $.{table} AS SELECT n, _partition, _offset FROM $.{from}"
        ));
    }
    let more = "flush_interval: 150ms, flush_rows: 20000, request_timeout: 2s";
    let started = Instant::now();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, server, size) = (&over, &server, &size);
        let configs = ["one", "two"].map(|instance| (instance, line.config(instance, more)));
        let folder = line.folder.clone();
        let breaking = scope.spawn(move || break_things(server, size, &folder, &configs, over));
        let per_round = size.records / 200;
        for _ in 0..200 {
            line.send(per_round, value);
            std::thread::sleep(Duration::from_millis(40));
        }
        over.store(true, Ordering::Relaxed);
        let (killed, killed_servers) = breaking.join().expect("things were broken");
        assert!(killed >= 2 && killed_servers >= 1, "{killed} and {killed_servers} kills show nothing");
    });
    server.heal();
    line.finish(more);
    let dead = line.dead();
    assert!(dead.windows(2).all(|pair| pair[0] != pair[1]), "a dead letter is there twice");
    let rows = line.sent() - dead.len() as u64;
    assert_eq!(dead.len() as u64, (0..line.sent()).filter(|number| number % 1_000 == 999).count() as u64);
    for table in ["t", "behind", "further"] {
        let count = line.number(&format!("SELECT count() FROM $.{table}"));
        let unique = line.number(&format!("SELECT uniqExact(_partition, _offset) FROM $.{table}"));
        assert_eq!((count, unique), (rows, rows), "{table}");
    }
    let sum: u64 = (0..line.sent()).filter(|number| number % 1_000 != 999).sum();
    assert_eq!(line.number("SELECT sum(n) FROM $.t"), sum);
    eprintln!("chaos: {} records, {} dead letters in {:.0?}", line.sent(), dead.len(), started.elapsed());
}

/// A record of a thousand does not fit.
fn value(number: i64) -> String {
    if number % 1_000 == 999 { "{\"n\":-1}".to_owned() } else { format!("{{\"n\":{number}}}") }
}

/// Two processes, of which one is killed now and then, and a server that fails in every way, until all is over and the
/// kills are done.
fn break_things(
    server: &ClickHouse,
    size: &Size,
    folder: &std::path::Path,
    configs: &[(&str, String); 2],
    over: &AtomicBool,
) -> (usize, usize) {
    use crate::harness::process::Millstream;
    let start = |at: usize| Some(Millstream::start(folder, configs[at].0, &["run", &configs[at].1]));
    let mut processes = [start(0), start(1)];
    let mut chance = Chance::new(17);
    let (mut kills, mut server_kills) = (0, 0);
    while !over.load(Ordering::Relaxed) || kills < size.kills || server_kills < size.server_kills {
        std::thread::sleep(Duration::from_millis(100 + chance.below(200) as u64));
        match chance.below(8) {
            0 if kills < size.kills => {
                let at = chance.below(2);
                processes[at].take().expect("it runs").kill();
                std::thread::sleep(Duration::from_millis(chance.below(1_000) as u64));
                processes[at] = start(at);
                kills += 1;
            }
            1 if server_kills < size.server_kills => {
                server.kill();
                std::thread::sleep(Duration::from_millis(chance.below(1_500) as u64));
                server.restart();
                server_kills += 1;
            }
            2 => server.fault("reject", 2, "INTO"),
            3 => server.delay(Duration::from_secs(3), 1, "INTO"),
            4 | 5 => server.fault("drop", 2, "INTO"),
            6 => server.fault("error", 2, "INTO"),
            _ => {}
        }
    }
    for process in processes.iter_mut().flatten() {
        assert!(process.is_running(), "one ended by itself:\n{}", process.log());
    }
    (kills, server_kills)
}
