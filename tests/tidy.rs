//! The rules of the house hold in every file, and each rule has been seen to find what it is for.

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{File, check};

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "__pycache__", "node_modules"];
/// Folders whose files a README may name.
const TOPS: &[&str] = &["host", "plugins", "tests", "wit", "deploy", "xtask"];
/// Text that people write; anything else is data.
const ENDINGS: &[&str] =
    &["rs", "toml", "md", "yaml", "yml", "wit", "sh", "sql", "py", "java", "xml", "properties", "run"];

#[test]
fn every_file_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host lies in the workspace");
    let mut paths = Vec::new();
    collect(root, &mut paths);
    assert!(paths.len() > 20, "only {} files under {}", paths.len(), root.display());
    let mut found = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.strip_prefix(root).expect("it was found there").to_string_lossy().replace('\\', "/");
        found.extend(check(&File { path: &name, text: &text }));
    }
    assert!(found.is_empty(), "{} rules broken:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_path_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host lies in the workspace");
    let text = fs::read_to_string(root.join("README.md")).expect("there is a README");
    let missing = missing_paths(&text, |path| root.join(path).exists());
    assert!(missing.is_empty(), "README.md names what is not there; correct the path or the sentence: {missing:?}");
}

/// The paths under our top folders that a text names and `exists` does not know.
fn missing_paths(text: &str, exists: impl Fn(&str) -> bool) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || "_./-".contains(c)));
    let paths = words
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.split_once('/').is_some_and(|(top, rest)| TOPS.contains(&top) && !rest.is_empty()));
    paths.filter(|path| !exists(path)).collect()
}

#[test]
fn a_path_that_is_gone_is_found() {
    let text = "see [this](host/src/lib.rs), `tests/gone.rs` and http://host.example/x.";
    assert_eq!(missing_paths(text, |path| path == "host/src/lib.rs"), ["tests/gone.rs"]);
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), paths);
        } else if kind.is_file() && ENDINGS.contains(&name.rsplit('.').next().unwrap_or("")) || name == "run" {
            paths.push(entry.path());
        }
    }
    paths.sort();
}

/// What the rules say of a file with this text, module docs added.
fn said(path: &str, text: &str) -> Vec<String> {
    check(&File { path, text: &format!("//! Docs.\n{text}") })
}

/// The one thing that the rules say: where, and with which words.
#[track_caller]
fn refused(path: &str, text: &str, line: usize, words: &str) {
    let found = said(path, text);
    let place = format!("{path}:{line}: ");
    assert!(found.len() == 1 && found[0].starts_with(&place) && found[0].contains(words), "{found:?}");
}

#[track_caller]
fn accepted(path: &str, text: &str) {
    let found = said(path, text);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn arrows_between_rooms_point_one_way() {
    refused("host/src/record/batch.rs", "use crate::plugin::Chain;\n", 2, "`record` uses `plugin`");
    refused("host/src/task/mod.rs", "\nuse crate::{record::Batch, worker::Worker};\n", 3, "`task` uses `worker`");
    refused("host/src/plugin/run.rs", "fn f() { crate::kafka::poll() }\n", 2, "`plugin` uses `kafka`");
    refused("host/src/source/mod.rs", "use crate::run::Options;\n", 2, "`source` uses `run`");
    accepted("host/src/task/mod.rs", "use crate::{pipeline::{plan, run}, record::Batch};\n");
    accepted("host/src/worker/mod.rs", "use crate::sink::Sink;\nuse crate::source::Source;\n");
    accepted("host/src/main.rs", "use crate::worker::Worker;\n");
    accepted("host/src/cli/run.rs", "use crate::run::run;\nuse crate::kafka::Admin;\n");
    refused("host/src/attic/mod.rs", "const A: u8 = 0;\n", 1, "a room that nobody knows");
}

#[test]
fn tests_may_reach_into_any_room() {
    accepted("host/src/record/batch.rs", "#[cfg(test)]\nmod tests {\n use crate::worker::Worker;\n}\n");
    accepted("host/src/record/tests.rs", "use crate::worker::Worker;\n");
    refused("host/src/record/mod.rs", "#[cfg(test)]\nmod tests;\nuse crate::sink::Sink;\n", 4, "`record` uses `sink`");
}

#[test]
fn crates_stay_in_their_rooms() {
    refused("host/src/task/mod.rs", "use wasmtime::Engine;\n", 2, "stays in host/src/plugin");
    refused("host/src/main.rs", "fn f(e: rdkafka::Message) {}\n", 2, "stays in host/src/kafka");
    refused("host/src/kafka/mod.rs", "use wit_component as w;\n", 2, "stays in host/src/plugin");
    accepted("host/src/plugin/engine.rs", "use wasmtime::Engine;\n");
    accepted("host/src/clickhouse/client.rs", "use hyper::Request;\nuse openssl::ssl::Ssl;\n");
    accepted("host/src/lib.rs", "// the only user of rdkafka::Message\nconst A: &str = \"use wasmtime::\";\n");
}

#[test]
fn pure_rooms_neither_wait_nor_look_at_a_clock() {
    refused("host/src/task/mod.rs", "fn f() { let t = Instant::now(); }\n", 2, "`Instant::now` in `task`");
    refused("host/src/pipeline/run.rs", "use tokio::task;\n", 2, "stays in host/src/http");
    refused("host/src/record/batch.rs", "use std::fs::File;\n", 2, "`std::fs` in `record`");
    accepted("host/src/worker/mod.rs", "fn f() { let t = Instant::now(); }\n");
    accepted("host/src/task/mod.rs", "fn f(now: Instant) {}\n");
}

#[test]
fn files_fit_a_head() {
    let long = "const A: u8 = 0;\n".repeat(500);
    refused("host/src/worker/mod.rs", &long, 501, "501 lines, at most 500");
    accepted("host/src/worker/mod.rs", &long[..long.len() - 17]);
    let with_tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    accepted("host/src/worker/mod.rs", &with_tests);
    let elsewhere = format!("#[cfg(test)]\nmod tests;\n{long}");
    refused("host/src/worker/mod.rs", &elsewhere, 501, "503 lines");
}

#[test]
fn functions_fit_a_screen() {
    let body = |lines: usize| format!("fn f(\n) -> [u8; 2] {{\n{}}}\n", "a(\"}\");\n".repeat(lines));
    refused("xtask/src/main.rs", &body(68), 2, "`f` has 71 lines");
    accepted("xtask/src/main.rs", &body(67));
    accepted("xtask/src/main.rs", &format!("trait T {{\nfn f(&self);\n{}}}\n", "const A: fn() = f;\n".repeat(80)));
}

#[test]
fn files_say_what_they_are_for() {
    let found = check(&File { path: "plugins/sdk/src/lib.rs", text: "use std::fs;\n" });
    assert!(found.len() == 1 && found[0].contains("without `//!`"), "{found:?}");
    assert!(check(&File { path: "plugins/sdk/src/bindings.rs", text: "// Generated\n" }).is_empty());
}

#[test]
fn unsafe_has_its_rooms_and_its_reason() {
    refused("host/src/worker/mod.rs", "// SAFETY: no.\nfn f() { unsafe { g() } }\n", 3, "outside its rooms");
    refused("host/src/plugin/aot.rs", "fn f() {\n    unsafe { g() }\n}\n", 3, "without a reason");
    accepted("host/src/kafka/native/mod.rs", "fn f() {\n    // SAFETY: g takes anything.\n    unsafe { g() }\n}\n");
    accepted("host/src/worker/mod.rs", "// nothing unsafe { here }\n#![deny(unsafe_code)]\n");
}

#[test]
fn nothing_is_left_for_later() {
    refused("host/src/cli/mod.rs", concat!("fn f() { to", "do!() }\n"), 2, "is left");
    refused("host/src/cli/mod.rs", concat!("fn f() { unimple", "mented!(\"x\") }\n"), 2, "is left");
    accepted("host/src/cli/mod.rs", "// todo!() in prose\nfn todo() {}\n");
}

#[test]
fn no_path_of_one_machine() {
    let text = concat!("see /wo", "rk/notes\n");
    let found = check(&File { path: "README.md", text });
    assert!(found.len() == 1 && found[0].starts_with("README.md:1: a path"), "{found:?}");
}

#[test]
fn xtask_stays_light() {
    let manifest = "[package]\nname = \"xtask\"\n[dependencies]\nanyhow.workspace = true\nserde.workspace = true\n";
    let found = check(&File { path: "xtask/Cargo.toml", text: manifest });
    assert!(found.len() == 1 && found[0].starts_with("xtask/Cargo.toml:5: xtask uses"), "{found:?}");
    assert!(check(&File { path: "host/Cargo.toml", text: manifest }).is_empty());
}
