//! Plugins' projects: what `millstream new` makes builds as it is, and `millstream build` says what it made. And the shipped
//! plugins do what they say, through the real host.

#[path = "harness/guests.rs"]
mod guests;
#[path = "plugins/sessions.rs"]
mod sessions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream::golden::{self, Outcome};
use millstream::project::{BuildOptions, Described, ProjectError, build_project, new_project};

/// A directory of the test's own, outside of any workspace.
fn fresh_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("millstream-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

#[test]
fn a_new_project_builds_and_passes_its_tests_without_a_registry() {
    let parent = fresh_dir("new");
    let created = new_project("large-orders", &parent).expect("made");
    let tests = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--offline", "--lib"])
        .current_dir(&created.dir)
        .env("CARGO_TARGET_DIR", created.dir.join("target"))
        .env("CARGO_HOME", parent.join("an-empty-registry"))
        .output()
        .expect("cargo runs");
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));

    let built = build_project(&created.dir, &BuildOptions { offline: true, ..BuildOptions::default() }).expect("built");
    assert_eq!(built.path, created.dir.join("large_orders.wasm"));
    assert_eq!(fs::metadata(&built.path).expect("there").len(), built.size_bytes);
    assert!(built.size_bytes < 200_000, "a small plugin of {} bytes", built.size_bytes);
    let said = built.to_string();
    for line in ["large-orders 0.1.0", "  reads  /customer/country (text, optional)", "  writes /large (bool)"] {
        assert!(said.lines().any(|said| said == line), "{line:?} in {said}");
    }
    fs::remove_dir_all(&parent).expect("cleared away");
}

#[test]
fn a_plugin_of_the_workspace_is_described_by_its_configuration() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/validate");
    let out = fresh_dir("validate").with_extension("wasm");
    let options = BuildOptions { out: Some(out.clone()), offline: true, ..BuildOptions::default() };
    let built = build_project(&dir, &options).expect("built");
    assert_eq!(built.described.expect_err("it needs a configuration"), "blocked_countries: is missing");

    let config_json = Some(r#"{"blocked_countries": ["ZZ"]}"#.to_owned());
    let again = build_project(&out, &BuildOptions { config_json, out: Some(out.clone()), ..options }).expect("wrapped");
    assert_eq!(again.digest, built.digest, "a component stays as it is");
    let Ok(Described::Transform(descriptor)) = again.described else { panic!("{again}") };
    let reads: Vec<String> = descriptor.reads.into_iter().map(|read| read.path).collect();
    assert_eq!(reads, ["/user_id", "/country"]);
    fs::remove_file(&out).expect("cleared away");
}

#[test]
fn an_aggregate_is_built_as_any_plugin_and_says_what_it_keeps() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sessions");
    let out = fresh_dir("sessions").with_extension("wasm");
    let config_json = Some(r#"{"time": "/at", "time_encoding": "epoch_ms"}"#.to_owned());
    let options = BuildOptions { config_json, out: Some(out.clone()), offline: true };
    let said = build_project(&dir, &options).expect("built").to_string();
    let lines = [
        "sessions 0.1.0, an aggregate",
        "  reads  /at (timestamp epoch_ms)",
        "  reads  /channel (text, optional)",
        "  writes /event_sequence (json)",
        "  keeps  states of version 2, migrates 1",
    ];
    for line in lines {
        assert!(said.lines().any(|said| said == line), "{line:?} in {said}");
    }
    fs::remove_file(&out).expect("cleared away");
}

#[test]
fn what_is_no_plugin_is_refused_by_name() {
    let parent = fresh_dir("library");
    let created = new_project("library", &parent).expect("made");
    let manifest = created.dir.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, text.replace(r#"crate-type = ["cdylib", "rlib"]"#, "")).expect("written");
    match build_project(&created.dir, &BuildOptions { offline: true, ..BuildOptions::default() }) {
        Err(ProjectError::NotOnePlugin { reason, .. }) => assert!(reason.contains("cdylib"), "{reason}"),
        other => panic!("{other:?}"),
    }
    fs::remove_dir_all(&parent).expect("cleared away");
}

#[test]
fn the_plugins_keep_their_golden_cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = fresh_dir("golden");
    let plugins = copy.join("target/plugins");
    fs::create_dir_all(&plugins).expect("made");
    for name in ["validate", "upcast", "enrich"] {
        let out = Some(plugins.join(format!("{name}.wasm")));
        build_project(&root.join("plugins").join(name), &BuildOptions { out, offline: true, config_json: None })
            .expect("built");
        // A case names its plugin by a path from its own folder, so the copy has the shape of the workspace.
        let (from, to) = (format!("tests/cases/clickstream-{name}"), copy.join("tests/cases").join(name));
        fs::create_dir_all(&to).expect("made");
        for file in ["pipeline.yaml", "in.ndjson", "out.ndjson", "rejected.ndjson"] {
            fs::copy(root.join(&from).join(file), to.join(file)).expect("copied");
        }
        match golden::run(&to, false).expect("runs") {
            Outcome::Same { records } => assert!(records > 5, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    fs::remove_dir_all(&copy).expect("cleared away");
}
