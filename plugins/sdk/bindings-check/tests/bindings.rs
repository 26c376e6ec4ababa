//! The committed bindings are what `wit/` says.

use std::fs;
use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::Opts;

/// Run with `MILLSTREAM_BLESS=1` to write the bindings anew after a change of `wit/`.
#[test]
fn bindings_are_those_of_the_contract() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let committed = sdk.join("src/bindings.rs");
    let generated = generate(&sdk.join("../../wit"));
    if std::env::var_os("MILLSTREAM_BLESS").is_some() {
        fs::write(&committed, &generated).expect("write src/bindings.rs");
    }
    let committed = fs::read_to_string(&committed).unwrap_or_default();
    assert!(committed == generated, "src/bindings.rs is stale: run this test with MILLSTREAM_BLESS=1 and commit it");
}

fn generate(wit: &Path) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).expect("wit/ parses");
    let world = resolve.select_world(&[package], Some("transform")).expect("the world is there");
    let options = Opts {
        format: true,
        runtime_path: Some("crate::rt".into()),
        bitflags_path: Some("crate::rt".into()),
        generate_all: true,
        pub_export_macro: true,
        export_macro_name: Some("export_transform".into()),
        default_bindings_module: Some("$crate::bindings".into()),
        ..Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect("the generator takes the world");
    let (_, text) = files.iter().next().expect("one file");
    String::from_utf8(text.to_vec()).expect("UTF-8")
}
