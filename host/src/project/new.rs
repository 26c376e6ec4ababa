//! `millstream new`: a project that builds as it is, offline, in any directory.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::ProjectError;
use super::files::{PROJECT, SDK};

/// Bytes of a plugin's name.
const NAME_BYTES: usize = 64;

/// Names that would be a crate of Rust's own, or of ours.
const TAKEN: [&str; 8] = ["alloc", "core", "millstream-sdk", "millstream_sdk", "proc_macro", "std", "test", "deps"];

/// Words that can't be the name of a function.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final \
                        fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static \
                        struct super trait true try type typeof unsafe unsized use virtual where while yield";

/// A project that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its directory.
    pub dir: PathBuf,
}

impl fmt::Display for Created {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.dir.display();
        write!(out, "made {dir}\nnext: write {dir}/src/lib.rs, then `cargo test` there and `millstream build {dir}`")
    }
}

/// Makes a project for a plugin of that name, in the directory `parent/name`.
pub fn new_project(name: &str, parent: &Path) -> Result<Created, ProjectError> {
    check_name(name)?;
    let dir = parent.join(name);
    if fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ProjectError::Exists(dir));
    }
    for (path, text) in PROJECT {
        write(&dir, (path, &fill(text, name)))?;
    }
    for (path, text) in SDK {
        write(&dir, (path, text))?;
    }
    Ok(Created { dir })
}

fn check_name(name: &str) -> Result<(), ProjectError> {
    let wrong = |reason| Err(ProjectError::Name { name: name.to_owned(), reason });
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return wrong("it begins with a letter of a-z");
    }
    if !name.bytes().all(allowed) || name.len() > NAME_BYTES {
        return wrong("it is made of at most 64 characters of a-z, 0-9, - and _");
    }
    if TAKEN.contains(&name) {
        return wrong("a crate of that name exists already");
    }
    if KEYWORDS.split_whitespace().any(|word| word == name) {
        return wrong("it is a word of Rust's");
    }
    Ok(())
}

fn fill(text: &str, name: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    text.replace("{{name}}", name).replace("{{function}}", &name.replace('-', "_")).replace("{{version}}", version)
}

fn write(dir: &Path, (path, text): (&str, &str)) -> Result<(), ProjectError> {
    let path = dir.join(path);
    let folder = path.parent().unwrap_or(dir);
    fs::create_dir_all(folder).map_err(ProjectError::file(folder))?;
    fs::write(&path, text).map_err(ProjectError::file(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_make_no_crate_or_function_are_refused() {
        for name in ["", "9lives", "Upper", "a b", "../x", "a/b", "match", "core", "é", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "validate", "my-plugin_2"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let parent = std::env::temp_dir().join(format!("millstream-new-{}", std::process::id()));
        let created = new_project("twice", &parent).expect("made");
        let library = fs::read_to_string(created.dir.join("src/lib.rs")).expect("a library");
        assert!(library.contains("fn twice<") && !library.contains("{{"));
        assert!(matches!(new_project("twice", &parent), Err(ProjectError::Exists(_))));
        fs::remove_dir_all(&parent).expect("cleared away");
    }
}
