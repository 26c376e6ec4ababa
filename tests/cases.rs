//! The golden cases of `tests/cases` hold, with the plugins as they are built now.

#[path = "harness/guests.rs"]
mod guests;

use std::path::Path;
use std::process::Command;

#[test]
fn every_golden_case_holds() {
    let plugins = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cases");
    std::fs::create_dir_all(&plugins).expect("a folder");
    for name in ["validate", "upcast", "enrich", "insurance-events", "insurance-users", "sessions"] {
        std::fs::write(plugins.join(name).with_extension("wasm"), guests::guest(name)).expect("a file");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["test", concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cases")])
        .env("MILLSTREAM_PLUGINS", &plugins)
        .output()
        .expect("millstream runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
