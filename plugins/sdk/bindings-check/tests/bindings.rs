//! The committed bindings are what `wit/` says.

use std::fs;
use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::{Opts, WithOption};

/// A world, the file of its bindings, and how they are called.
struct Bindings {
    world: &'static str,
    file: &'static str,
    module: &'static str,
    export: &'static str,
    /// Interfaces whose bindings stand in another module.
    elsewhere: &'static [(&'static str, &'static str)],
}

const ALL: [Bindings; 2] = [
    Bindings {
        world: "transform",
        file: "src/bindings.rs",
        module: "$crate::bindings",
        export: "export_transform",
        elsewhere: &[],
    },
    Bindings {
        world: "aggregate",
        file: "src/bindings_aggregate.rs",
        module: "$crate::bindings_aggregate",
        export: "export_aggregate",
        elsewhere: &[
            ("millstream:plugin/types@0.1.0", "crate::bindings::millstream::plugin::types"),
            ("millstream:plugin/host@0.1.0", "crate::bindings::millstream::plugin::host"),
        ],
    },
];

/// Run with `MILLSTREAM_BLESS=1` to write the bindings anew after a change of `wit/`.
#[test]
fn bindings_are_those_of_the_contract() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for bindings in ALL {
        let path = sdk.join(bindings.file);
        let generated = generate(&sdk.join("../../wit"), &bindings);
        if std::env::var_os("MILLSTREAM_BLESS").is_some() {
            fs::write(&path, &generated).expect("the bindings are written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let file = bindings.file;
        assert!(committed == generated, "{file} is stale: run this test with MILLSTREAM_BLESS=1 and commit it");
    }
}

fn generate(wit: &Path, bindings: &Bindings) -> String {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).expect("wit/ parses");
    let world = resolve.select_world(&[package], Some(bindings.world)).expect("the world is there");
    let elsewhere = bindings.elsewhere.iter();
    let options = Opts {
        format: true,
        runtime_path: Some("crate::rt".into()),
        bitflags_path: Some("crate::rt".into()),
        generate_all: true,
        pub_export_macro: true,
        export_macro_name: Some(bindings.export.into()),
        default_bindings_module: Some(bindings.module.into()),
        with: elsewhere.map(|(from, to)| ((*from).into(), WithOption::Path((*to).into()))).collect(),
        ..Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).expect("the generator takes the world");
    let (_, text) = files.iter().next().expect("one file");
    String::from_utf8(text.to_vec()).expect("UTF-8")
}
