//! The sandbox's promises: a plugin that misbehaves costs exactly the records that made it, the same on every machine,
//! and gets at nothing.

#[path = "harness/guests.rs"]
mod guests;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, atomic::AtomicBool};
use std::time::{Duration, Instant};

use millstream::plugin::{
    FaultKind, Limits, Plugin, PluginError, Runtime, RuntimeConfig, StageError, StageInput, StageOutput, StageRunner,
    Verdict,
};
use millstream::record::{Cell, Column, ColumnData, ColumnType, Op, TimestampEncoding};

/// What each order of `tests/hostile` comes to.
const HOSTILE: [(&str, FaultKind); 18] = [
    ("trap", FaultKind::Trap),
    ("divide", FaultKind::Trap),
    ("wild", FaultKind::Trap),
    ("loop", FaultKind::Deadline),
    ("fill", FaultKind::Deadline),
    ("bomb", FaultKind::Memory),
    ("stack", FaultKind::Stack),
    ("huge", FaultKind::BadOutput),
    ("utf8", FaultKind::BadOutput),
    ("lengths", FaultKind::BadOutput),
    ("ends", FaultKind::BadOutput),
    ("type", FaultKind::BadOutput),
    ("ops", FaultKind::BadOutput),
    ("field", FaultKind::BadOutput),
    ("writes", FaultKind::BadOutput),
    ("verdicts", FaultKind::BadOutput),
    ("routes", FaultKind::BadOutput),
    ("lookup", FaultKind::BadOutput),
];

fn hostile() -> Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    let load = || {
        let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
        runtime.load(&guests::guest("hostile"), "hostile").expect("it keeps the contract's letter")
    };
    PLUGIN.get_or_init(load).clone()
}

fn runner(config: &str, limits: Limits) -> StageRunner {
    let plugin = hostile();
    wait_for_judge(&plugin);
    StageRunner::new(plugin, config, limits).expect("it starts")
}

fn wait_for_judge(plugin: &Plugin) {
    let since = Instant::now();
    while !plugin.judge_ready() {
        assert!(since.elapsed() < Duration::from_secs(120), "the judge's artefact does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Rows with a number, a text, a flag and a time each, and an order where there is one.
struct Rows(Vec<Column>, usize);

impl Rows {
    fn new(orders: &[Option<&str>]) -> Self {
        let types = [ColumnType::Int64, ColumnType::Text, ColumnType::Text, ColumnType::Bool];
        let time = ColumnType::Timestamp(TimestampEncoding::EpochMs);
        let mut columns: Vec<Column> = types.into_iter().chain([time]).map(Column::new).collect();
        for (row, order) in orders.iter().enumerate() {
            for (field, column) in columns.iter_mut().enumerate() {
                match (&mut column.data, field, order) {
                    (_, 2, None) => {
                        column.push_cell(if row % 2 == 0 { Cell::Missing } else { Cell::Null });
                        continue;
                    }
                    (ColumnData::Packed(texts), 2, Some(order)) => texts.push(order.as_bytes()),
                    (ColumnData::Packed(texts), ..) => texts.push(format!("row {row} ä").as_bytes()),
                    (ColumnData::Int64(numbers), ..) => numbers.push(row as i64),
                    (ColumnData::Bool(flags), ..) => flags.push(row % 3 == 0),
                    (ColumnData::Float64(_), ..) => unreachable!(),
                }
                column.cells.push(Cell::Valid);
            }
        }
        Self(columns, orders.len())
    }

    fn part(&self, start: usize, rows: usize) -> Self {
        let part = |column: &Column| {
            let mut part = Column { cells: Vec::new(), data: column.data.clone() };
            part.data.clear();
            (start..start + rows).for_each(|row| part.push_from(column, row));
            part
        };
        Self(self.0.iter().map(part).collect(), rows)
    }

    fn run(&self, runner: &mut StageRunner) -> Result<StageOutput, StageError> {
        let columns: Vec<&Column> = self.0.iter().collect();
        let (keys, values, headers, timestamps_ms) = (None, None, None, None);
        let input = StageInput { rows: self.1, columns: &columns, keys, values, headers, timestamps_ms };
        let mut out = StageOutput::default();
        runner.run(&input, &mut out).map(|()| out)
    }
}

/// One order among rows that behave.
fn one(order: &str, at: usize, rows: usize) -> Rows {
    Rows::new(&(0..rows).map(|row| (row == at).then_some(order)).collect::<Vec<_>>())
}

fn run_one(order: &str, at: usize, rows: usize, limits: Limits) -> StageOutput {
    one(order, at, rows).run(&mut runner("", limits)).expect("no trouble of the host's")
}

/// Short of patience, so that loops end soon.
fn limits() -> Limits {
    Limits { fuel_per_record: 20_000_000, output_bytes: 1 << 20, ..Limits::default() }
}

/// Where the clock has nothing to say, however busy the machine.
fn unhurried() -> Limits {
    Limits { suspect_after: Duration::from_secs(600), ..limits() }
}

/// Each row of `out` but those named, as text to compare.
fn rows_of(out: &StageOutput, but: &[usize]) -> Vec<String> {
    let row = |row: usize| {
        let cell = |data: &ColumnData| match data {
            ColumnData::Bool(flags) => flags.get(row).to_string(),
            ColumnData::Int64(numbers) => numbers[row].to_string(),
            ColumnData::Float64(numbers) => numbers[row].to_string(),
            ColumnData::Packed(texts) => String::from_utf8(texts.get(row).to_vec()).expect("checked"),
        };
        let writes: Vec<_> = out.writes.iter().map(|w| (w.ops[row], cell(&w.data))).collect();
        format!("{row}: {:?} {writes:?}", out.verdicts[row])
    };
    (0..out.verdicts.len()).filter(|row| !but.contains(row)).map(row).collect()
}

#[test]
fn rows_that_behave_come_back_as_written() {
    let out = Rows::new(&[None; 1300]).run(&mut runner("", limits())).expect("it runs");
    assert_eq!(out.verdicts, [Verdict::Forward; 1300]);
    assert_eq!((out.faults.total(), out.batch_faults, out.rejections.len()), (0, 0, 0));
    for (row, line) in rows_of(&out, &[]).into_iter().enumerate() {
        let flag = row % 3 == 0;
        let (twice, text) = (2 * row, format!("row {row} ä"));
        assert_eq!(line, format!("{row}: Forward [(Set, \"{twice}\"), (Set, \"{text}\"), (Set, \"{flag}\")]"));
    }
}

#[test]
fn each_kind_of_misbehaviour_costs_its_own_record_and_no_other() {
    let (at, rows) = (700, 1100);
    let without = rows_of(&run_one("nothing", at, rows, limits()), &[at]);
    for (order, kind) in HOSTILE {
        let out = run_one(order, at, rows, limits());
        assert_eq!(rows_of(&out, &[at]), without, "{order}");
        let [rejection] = &out.rejections[..] else { panic!("{order}: {:?}", out.rejections) };
        assert_eq!((rejection.row, rejection.fault), (at, Some(kind)), "{order}: {rejection:?}");
        assert_eq!(rejection.code, kind.code());
        assert_eq!((out.verdicts[at], out.writes[0].ops[at]), (Verdict::Reject, Op::Keep), "{order}");
        assert_eq!((out.faults.total(), out.batch_faults), (1, 0), "{order}");
    }
}

#[test]
fn many_in_one_batch_cost_as_many() {
    let orders: Vec<_> = (0..512)
        .map(|row| match row % 4 {
            0 => None,
            n => Some(["trap", "utf8", "reject"][n - 1]),
        })
        .collect();
    let out = Rows::new(&orders).run(&mut runner("", limits())).expect("it runs");
    assert_eq!((out.faults.trap, out.faults.bad_output, out.rejections.len()), (128, 128, 384));
    assert!(out.rejections.iter().zip(out.rejections.iter().skip(1)).all(|(a, b)| a.row < b.row));
    assert_eq!(out.rejections[2].code, "as_told");
}

#[test]
fn the_reason_says_what_and_where() {
    let out = run_one("trap", 3, 8, limits());
    let detail = &out.rejections[0].detail;
    assert!(detail.contains("unreachable") && detail.contains("misbehave"), "{detail}");
    assert!(detail.contains("row number 0 is too much"), "the record stood alone, and its panic is told: {detail}");
}

/// D1: the clock only raises a suspicion.
#[test]
fn no_verdict_depends_on_the_clock() {
    let mut orders = vec![None; 64];
    for (order, at) in [("slow", 3), ("trap", 9), ("loop", 20), ("bomb", 33), ("stack", 50)] {
        orders[at] = Some(order);
    }
    let run = |suspect_ms, rows_per_call| {
        let suspect_after = Duration::from_millis(suspect_ms);
        let limits = Limits { suspect_after, rows_per_call, fuel_per_record: 400_000_000, ..Limits::default() };
        let out = Rows::new(&orders).run(&mut runner("", limits)).expect("it runs");
        let codes: Vec<_> = out.rejections.iter().map(|r| (r.row, r.code.clone(), r.detail.clone())).collect();
        (rows_of(&out, &[]), codes, out.faults)
    };
    let hasty = run(1, 512);
    assert_eq!(hasty.1.iter().map(|r| r.0).collect::<Vec<_>>(), [9, 20, 33, 50]);
    assert_eq!(hasty, run(1000, 512));
    assert_eq!(hasty, run(1, 1));
    assert_eq!(hasty, run(1000, 7));
}

#[test]
fn a_slow_record_that_the_clock_suspects_is_innocent() {
    let minute = Duration::from_secs(60);
    let patient = Limits { suspect_after: minute, fuel_per_record: 400_000_000, ..Limits::default() };
    let hasty = Limits { suspect_after: Duration::from_millis(1), ..patient.clone() };
    let (calm, suspected) = (run_one("slow", 5, 10, patient), run_one("slow", 5, 10, hasty));
    assert_eq!((calm.suspicions, suspected.suspicions), (0, 1), "the clock ran out in one of them");
    assert_eq!(rows_of(&calm, &[]), rows_of(&suspected, &[]));
    assert_eq!(suspected.faults.total(), 0);
}

/// However late the ticker is, and although the plugin gets fewer rows from then on.
#[test]
fn a_call_that_ends_late_is_suspected_too() {
    let hasty = Limits { suspect_after: Duration::from_nanos(1), ..limits() };
    let suspected = Rows::new(&[None; 1300]).run(&mut runner("", hasty)).expect("it runs");
    let calm = Rows::new(&[None; 1300]).run(&mut runner("", unhurried())).expect("it runs");
    assert_eq!((suspected.faults.total(), calm.suspicions), (0, 0));
    assert!(suspected.suspicions > 10, "512, 256 and so on to 16 rows: {}", suspected.suspicions);
    assert_eq!(rows_of(&suspected, &[]), rows_of(&calm, &[]));
}

#[test]
fn large_records_are_given_a_few_at_a_time() {
    let mut rows = Rows::new(&[None; 300]);
    rows.0[1] = Column::new(ColumnType::Text);
    for row in 0..300 {
        let ColumnData::Packed(texts) = &mut rows.0[1].data else { unreachable!() };
        texts.push(&vec![b'x'; (1 << 20) + row]);
        rows.0[1].cells.push(Cell::Valid);
    }
    let limits = Limits { output_bytes: 32 << 20, ..unhurried() };
    let mut runner = runner("", limits);
    for part in 0..2 {
        let out = rows.part(part * 150, 150).run(&mut runner).expect("it runs");
        assert_eq!((out.faults.total(), out.batch_faults), (0, 0), "64 MiB hold neither 512 rows of a MiB nor 64");
    }
}

#[test]
fn what_no_single_record_repeats_is_a_fault_of_the_batch() {
    let mut runner = runner("hoard", Limits { rows_per_call: 1, ..unhurried() });
    let out = Rows::new(&[None; 200]).run(&mut runner).expect("it runs");
    assert_eq!(out.verdicts, [Verdict::Forward; 200]);
    assert!((2..=6).contains(&out.batch_faults), "a MiB a call, 64 MiB allowed: {}", out.batch_faults);
}

/// D3: nothing leaks from one block into the next, nor from a fault.
#[test]
fn statics_start_anew_with_each_block() {
    let mut runner = runner("count", Limits { rows_per_call: 1, ..unhurried() });
    let counts = |out: StageOutput| match &out.writes[0].data {
        ColumnData::Int64(counts) => counts.clone(),
        other => panic!("{other:?}"),
    };
    let rows = Rows::new(&[None; 3]);
    assert_eq!(counts(rows.run(&mut runner).expect("it runs")), [1, 2, 3]);
    assert_eq!(counts(rows.run(&mut runner).expect("it runs")), [4, 5, 6]);
    runner.end_block();
    assert_eq!(counts(rows.run(&mut runner).expect("it runs")), [1, 2, 3]);
    let fault = Rows::new(&[None, Some("trap"), None]);
    assert_eq!(counts(fault.run(&mut runner).expect("it runs"))[2], 1);
}

#[test]
fn two_fresh_runs_give_the_same_bytes() {
    let orders: Vec<_> = (0..300).map(|row| (row % 50 == 7).then_some(HOSTILE[row / 50].0)).collect();
    let run = || {
        let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
        let plugin = runtime.load(&guests::guest("hostile"), "hostile").expect("it loads");
        wait_for_judge(&plugin);
        let mut runner = StageRunner::new(plugin, "", limits()).expect("it starts");
        Rows::new(&orders).run(&mut runner).expect("it runs")
    };
    assert_eq!(run(), run());
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_flood_of_log_lines_harms_nobody() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let limits = Limits { fuel_per_record: 400_000_000, ..Limits::default() };
    let out = tracing::subscriber::with_default(log, || run_one("log", 1, 4, limits));
    assert_eq!(out.faults.total(), 0);
    let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("UTF-8");
    let floods = text.lines().filter(|line| line.contains("flood")).count();
    assert!((1..5_000).contains(&floods), "100,000 lines were logged, {floods} written");
    assert!(text.lines().all(|line| line.contains("hostile")), "a line break came through: {text}");
}

#[test]
fn a_stage_keeps_to_the_memory_and_the_output_that_it_may_have() {
    let limits = |memory_bytes, output_bytes| Limits { memory_bytes, output_bytes, ..unhurried() };
    assert_eq!(run_one("gulp", 1, 4, limits(32 << 20, 1 << 20)).faults.total(), 0);
    assert_eq!(run_one("gulp", 1, 4, limits(16 << 20, 1 << 20)).faults.memory, 1, "20 MiB of 16");
    assert_eq!(run_one("large", 1, 4, limits(32 << 20, 4 << 20)).faults.total(), 0);
    let out = run_one("large", 1, 4, limits(32 << 20, 2 << 20));
    assert_eq!((out.faults.bad_output, out.faults.total()), (1, 1), "3 MiB of 2: {:?}", out.rejections);
}

#[test]
fn a_raised_flag_ends_a_run_between_calls() {
    let mut runner = runner("", limits());
    let flag = Arc::new(AtomicBool::new(true));
    runner.set_interrupt(flag.clone());
    let rows = Rows::new(&[Some("loop"); 512]);
    assert!(matches!(rows.run(&mut runner), Err(StageError::Interrupted)));
    std::thread::scope(|scope| {
        flag.store(false, std::sync::atomic::Ordering::Relaxed);
        let since = Instant::now();
        let running = scope.spawn(|| rows.run(&mut runner));
        std::thread::sleep(Duration::from_millis(100));
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(running.join().expect("no panic"), Err(StageError::Interrupted)));
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    });
}

#[test]
fn results_that_together_would_fill_the_memory_are_refused() {
    let limits = Limits { output_bytes: 8 << 20, rows_per_call: 1, ..Limits::default() };
    let out = Rows::new(&[Some("large"); 120]).run(&mut runner("", limits)).expect("it runs");
    assert_eq!(out.faults.bad_output, out.faults.total());
    assert!((30..40).contains(&out.faults.total()), "85 rows of 3 MiB fit into 256 MiB: {:?}", out.faults);
    assert!(out.rejections[0].detail.contains("for one batch"), "{:?}", out.rejections[0]);
}

#[test]
fn a_plugin_that_does_not_start_says_why() {
    let start = |config: &str| StageRunner::new(hostile(), config, limits()).map(|_| ()).expect_err(config);
    assert!(matches!(start("refuse"), PluginError::Config { message, .. } if message.contains("another")));
    assert!(matches!(start("trap-describe"), PluginError::Fault { kind: FaultKind::Trap, .. }));
    assert!(matches!(start("trap-start"), PluginError::Fault { kind: FaultKind::Trap, .. }));
    assert!(matches!(start("bad-name"), PluginError::Descriptor { .. }));
    let too_much = Limits { memory_bytes: 1 << 40, ..limits() };
    assert!(matches!(StageRunner::new(hostile(), "", too_much), Err(PluginError::Limits(_))));
}

/// Component binaries, as the binary format has them: a header, and sections of id, length and content.
fn component(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    for (id, content) in sections {
        bytes.extend([*id, content.len() as u8]);
        bytes.extend(content);
    }
    bytes
}

#[test]
fn what_asks_for_wasi_is_refused_by_name() {
    let name = b"wasi:random/random@0.2.0";
    // A type section with one empty instance type, and an import section with one instance of it.
    let import: Vec<u8> = [&[1, 0, name.len() as u8], &name[..], &[5, 0]].concat();
    let wants_random = component(&[(7, vec![1, 0x42, 0]), (10, import)]);
    let runtime = Runtime::new(RuntimeConfig::default()).expect("a runtime");
    let refused = runtime.load(&wants_random, "curious").expect_err("WASI").to_string();
    assert!(refused.contains("wasi:random/random@0.2.0") && refused.contains("no WASI"), "{refused}");
    assert!(matches!(runtime.load(&component(&[]), "empty"), Err(PluginError::Export { .. })));
    assert!(matches!(runtime.load(b"\x7fELF....", "native"), Err(PluginError::NotAPlugin { .. })));
}

/// A new directory for one test's cache.
fn cache_dir(test: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cache-{test}"));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn load_with(dir: &Path) -> (Runtime, Plugin) {
    let runtime = Runtime::new(RuntimeConfig { cache_dir: Some(dir.to_owned()), ..RuntimeConfig::default() });
    let runtime = runtime.expect("a runtime");
    let plugin = runtime.load(&guests::guest("hostile"), "hostile").expect("it loads");
    wait_for_judge(&plugin);
    (runtime, plugin)
}

fn artefacts(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).expect("the cache").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect();
    all.sort();
    all
}

#[test]
fn a_damaged_artefact_is_made_again() {
    let dir = cache_dir("damaged");
    load_with(&dir);
    assert_eq!(fs::metadata(&dir).expect("it was made").permissions().mode() & 0o777, 0o700);
    let sound = artefacts(&dir);
    assert_eq!(sound.len(), 2, "one of each engine, nothing left aside");
    for (path, bytes) in &sound {
        let mut bytes = bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).expect("own file");
    }
    let (_runtime, plugin) = load_with(&dir);
    StageRunner::new(plugin, "", limits()).expect("it starts");
    assert_eq!(artefacts(&dir), sound);
}

#[test]
fn a_cache_that_others_can_reach_is_not_used() {
    let (real, link) = (cache_dir("real"), cache_dir("link"));
    let _ = fs::remove_file(&link);
    load_with(&real);
    symlink(&real, &link).expect("a link");
    let (runtime, _) = load_with(&link);
    assert!(runtime.cache_refusal().is_some_and(|reason| reason.contains("symlink")));
    fs::set_permissions(&real, fs::Permissions::from_mode(0o750)).expect("own directory");
    let (runtime, _) = load_with(&real);
    assert!(runtime.cache_refusal().is_some_and(|reason| reason.contains("750")));
    fs::remove_file(&link).expect("own link");
}

/// Figures for the design: `cargo test --release --test sandbox -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn figures() {
    let rows = Rows::new(&[None; 5120]);
    for rows_per_call in [1, 64, 256, 512] {
        let mut runner = runner("", Limits { rows_per_call, ..unhurried() });
        let each = best_of(200, || _ = rows.run(&mut runner).expect("it runs")) / 5120;
        println!("5 columns in, 3 out, {rows_per_call} rows a call: {each:?} a record");
    }
    let mut steady = runner("", unhurried());
    let few = Rows::new(&[None; 64]);
    let warm = best_of(1000, || _ = few.run(&mut steady).expect("it runs"));
    let fresh = best_of(1000, || {
        steady.end_block();
        few.run(&mut steady).expect("it runs");
    });
    println!("a batch of 64 rows: {warm:?}; with a fresh instance: {fresh:?}");
    let limits = || Limits { suspect_after: Duration::from_millis(5), ..Limits::default() };
    for order in ["trap", "utf8", "stack", "bomb", "slow", "loop", "fill"] {
        let mut runner = runner("", limits());
        let (one, many) = (one(order, 0, 1), one(order, 200, 512));
        let alone = best_of(3, || _ = one.run(&mut runner).expect("it runs"));
        let among = best_of(3, || _ = many.run(&mut runner).expect("it runs"));
        println!("{order}: alone {alone:?}, among 512 {among:?}");
    }
    let all = Rows::new(&[Some("trap"); 512]);
    let mut runner = runner("", limits());
    println!("512 traps: {:?}", best_of(3, || _ = all.run(&mut runner).expect("it runs")));
    let dir = cache_dir("figures");
    let (runtime, _) = load_with(&dir);
    let guest = guests::guest("hostile");
    let load = best_of(20, || _ = runtime.load(&guest, "hostile").expect("it loads"));
    println!("load from a warm cache: {load:?}");
    let plugin = runtime.load(&guest, "hostile").expect("it loads");
    let start = best_of(100, || _ = StageRunner::new(plugin.clone(), "", limits()).expect("it starts"));
    println!("a stage runner, described and started once: {start:?}");
    println!("a runtime: {:?}", best_of(3, || _ = Runtime::new(RuntimeConfig::default()).expect("a runtime")));
}

fn best_of(times: usize, mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let since = Instant::now();
        work();
        since.elapsed()
    };
    (0..times).map(once).min().unwrap_or_default()
}
