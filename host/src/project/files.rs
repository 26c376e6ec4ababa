//! What a new project is made of.

/// A file: its path in the project, and its text.
pub(super) type File = (&'static str, &'static str);

/// The project's own files. `{{name}}`, `{{function}}` and `{{version}}` (of Millstream) stand for what they say.
pub(super) const PROJECT: &[File] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("README.md", include_str!("template/README.md.in")),
    (".gitignore", "/target/\n*.wasm\n"),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("cases/example/config.json", include_str!("template/config.json")),
    ("cases/example/in.ndjson", include_str!("template/in.ndjson")),
    ("cases/example/out.ndjson", include_str!("template/out.ndjson")),
    ("cases/example/rejected.ndjson", include_str!("template/rejected.ndjson")),
    ("sdk/Cargo.toml", include_str!("template/sdk.toml.in")),
    ("sdk/macros/Cargo.toml", include_str!("template/macros.toml.in")),
];

/// A file of the SDK, which a project carries so that it builds without a registry.
macro_rules! sdk {
    ($($path:literal),* $(,)?) => {
        &[$((concat!("sdk/", $path), include_str!(concat!("../../../plugins/sdk/", $path)))),*]
    };
}

/// The SDK's sources.
pub(super) const SDK: &[File] = sdk![
    "macros/src/aggregate.rs",
    "macros/src/function.rs",
    "macros/src/lib.rs",
    "macros/src/parse.rs",
    "macros/src/structs.rs",
    "macros/src/template.rs",
    "src/aggregate.rs",
    "src/bindings.rs",
    "src/bindings_aggregate.rs",
    "src/config.rs",
    "src/describe.rs",
    "src/guest.rs",
    "src/guest_aggregate.rs",
    "src/json.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/lookup.rs",
    "src/output.rs",
    "src/read.rs",
    "src/reply.rs",
    "src/rows.rs",
    "src/rt.rs",
    "src/state.rs",
    "src/transform.rs",
    "src/value.rs",
    "src/write.rs",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_project_carries_every_source_of_the_sdk() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sdk");
        let mut found = BTreeSet::new();
        for folder in ["src", "macros/src"] {
            for entry in fs::read_dir(sdk.join(folder)).expect("the SDK's sources") {
                let name = entry.expect("an entry").file_name();
                found.insert(format!("sdk/{folder}/{}", name.to_str().expect("UTF-8")));
            }
        }
        let carried: BTreeSet<String> = SDK.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(carried, found, "list the files of plugins/sdk in `SDK`");
    }

    #[test]
    fn the_sdk_needs_no_crate_beside_itself() {
        let manifest = |path: &str| {
            let text = PROJECT.iter().find(|(file, _)| *file == path).expect("a manifest").1;
            text.lines().skip_while(|line| *line != "[dependencies]").skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(manifest("sdk/Cargo.toml"), [r#"millstream-sdk-macros = { path = "macros" }"#]);
        assert!(manifest("sdk/macros/Cargo.toml").is_empty());
    }
}
