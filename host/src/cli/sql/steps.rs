//! A folder of numbered SQL files against what a server says was applied of it: the difference, and why it can't be
//! applied where it can't.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::split::{Statement, Unended, split};
use crate::clickhouse::digest;

/// A file of the folder.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The file's name, such as `001_events.sql`.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
    /// The SHA-256 over its statements without their comments, in hexadecimal digits.
    pub(super) checksum: String,
    /// What it does.
    pub(super) statements: Vec<Statement>,
}

/// A step as the server remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    /// What the step's checksum was.
    pub(super) checksum: String,
    /// When it was done.
    pub(super) time: String,
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was applied as it is, at that time.
    Applied(String),
    /// It is to be applied.
    Pending,
    /// It was applied at that time, and is another now.
    Edited(String),
    /// It was applied at that time, and its file is gone.
    Gone(String),
    /// It is new, and stands before this step, which was applied.
    TooEarly(String),
}

/// A folder that can't be read as steps.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// A file or folder can't be read.
    #[error("{}: {why}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// There is nothing to apply.
    #[error("{}: no file such as 001_events.sql is in it", .0.display())]
    Empty(PathBuf),
    /// A file of SQL that has no place in the order.
    #[error("{}: expected a name that begins with its number, such as 001_events.sql", .0.display())]
    Name(PathBuf),
    /// Two files claim one place.
    #[error("{} and {second} have the same number; give one of them another", first.display())]
    Twice {
        /// The one.
        first: PathBuf,
        /// The other's name.
        second: String,
    },
    /// It can't be cut into statements.
    #[error("{}, {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        why: Unended,
    },
}

/// Reads the steps of a folder, in the order of their numbers.
pub(super) fn read(folder: &Path) -> Result<Vec<Step>, FolderError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |why| FolderError::Read { path, why }
    };
    let mut found: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let number = number(&file_name(&path)).ok_or_else(|| FolderError::Name(path.clone()))?;
        if let Some(first) = found.insert(number, path.clone()) {
            return Err(FolderError::Twice { first, second: file_name(&path) });
        }
    }
    if found.is_empty() {
        return Err(FolderError::Empty(folder.to_owned()));
    }
    found.into_values().map(read_step).collect()
}

fn read_step(path: PathBuf) -> Result<Step, FolderError> {
    let text = std::fs::read_to_string(&path).map_err(|why| FolderError::Read { path: path.clone(), why })?;
    let statements = split(&text).map_err(|why| FolderError::Syntax { path: path.clone(), why })?;
    let parts: Vec<&[u8]> = statements.iter().map(|statement| statement.plain.as_bytes()).collect();
    let checksum = digest(&parts);
    Ok(Step { name: file_name(&path), path, checksum, statements })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The number that a step's name begins with.
fn number(name: &str) -> Option<u64> {
    let (digits, _) = name.split_once('_')?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Each step's name and state: those of the folder in their order, and then those that are gone.
pub(super) fn compare(steps: &[Step], applied: &BTreeMap<String, Applied>) -> Vec<(String, State)> {
    let last_applied = steps.iter().rposition(|step| applied.contains_key(&step.name));
    let of_folder = steps.iter().enumerate().map(|(at, step)| {
        let state = match (applied.get(&step.name), last_applied) {
            (Some(applied), _) if applied.checksum == step.checksum => State::Applied(applied.time.clone()),
            (Some(applied), _) => State::Edited(applied.time.clone()),
            (None, Some(last)) if at < last => State::TooEarly(steps[last].name.clone()),
            (None, _) => State::Pending,
        };
        (step.name.clone(), state)
    });
    let gone = applied.iter().filter(|(name, _)| !steps.iter().any(|step| step.name == **name));
    of_folder.chain(gone.map(|(name, applied)| (name.clone(), State::Gone(applied.time.clone())))).collect()
}

impl State {
    /// Why nothing may be applied, and what to do about it; `None` where this state is no obstacle.
    pub(super) fn obstacle(&self, step: &str) -> Option<String> {
        match self {
            Self::Applied(_) | Self::Pending => None,
            Self::Edited(time) => Some(format!(
                "{step} was applied on {time} and has been edited since; put it back as it was, and what is to change into a \
                 new file with the next number"
            )),
            Self::Gone(time) => Some(format!(
                "{step} was applied on {time} and its file is gone; put it back, and undo what it did in a new file"
            )),
            Self::TooEarly(last) => Some(format!(
                "{step} is new, but stands before {last}, which is applied; give it a number behind all others"
            )),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Applied(time) => write!(f, "applied {time}"),
            Self::Pending => f.write_str("to be applied"),
            Self::Edited(time) => write!(f, "edited since {time}"),
            Self::Gone(time) => write!(f, "gone, applied {time}"),
            Self::TooEarly(last) => write!(f, "new, but before {last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("millstream-steps-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("made");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("written");
        }
        folder
    }

    fn names(states: &[(String, State)]) -> Vec<(&str, &State)> {
        states.iter().map(|(name, state)| (name.as_str(), state)).collect()
    }

    #[test]
    fn steps_come_in_the_order_of_their_numbers() {
        let files =
            [("10_c.sql", "SELECT 3"), ("2_b.sql", "SELECT 2; SELECT 22"), ("001_a.sql", ""), ("README.md", "x")];
        let steps = read(&folder("order", &files)).expect("steps");
        let seen: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.statements.len())).collect();
        assert_eq!(seen, [("001_a.sql", 0), ("2_b.sql", 2), ("10_c.sql", 1)]);
    }

    #[test]
    fn a_folder_that_is_none_says_why() {
        let said = |name: &str, files: &[(&str, &str)]| read(&folder(name, files)).expect_err("refused").to_string();
        assert!(said("empty", &[("a.txt", "")]).contains("no file such as 001_events.sql"));
        assert!(said("name", &[("events.sql", "")]).contains("begins with its number"));
        assert!(said("name2", &[("1b_events.sql", "")]).contains("begins with its number"));
        assert!(said("twice", &[("1_a.sql", ""), ("01_b.sql", "")]).contains("have the same number"));
        assert!(
            said("syntax", &[("1_a.sql", "SELECT 1;\nSELECT 'a")]).contains("1_a.sql, line 2: a quoted text begins")
        );
        assert!(read(Path::new("/none/such")).expect_err("refused").to_string().contains("/none/such: "));
    }

    #[test]
    fn comments_and_layout_may_be_edited_and_nothing_else() {
        let checksum = |text: &str| read(&folder("sum", &[("1_a.sql", text)])).expect("a step").remove(0).checksum;
        let one = checksum("CREATE TABLE t (a Int8); SELECT 'x y'");
        assert_eq!(one, checksum("-- why\nCREATE TABLE t\n  (a Int8);\n\nSELECT 'x y';\n"));
        for other in
            ["CREATE TABLE t (a Int16); SELECT 'x y'", "CREATE TABLE t (a Int8); SELECT 'x  y'", "SELECT 'x y'"]
        {
            assert_ne!(one, checksum(other), "{other}");
        }
    }

    #[test]
    fn the_difference_is_told_and_obstacles_say_what_to_do() {
        let steps = read(&folder("compare", &[("1_a.sql", "A"), ("2_b.sql", "B"), ("3_c.sql", "C"), ("4_d.sql", "D")]))
            .expect("steps");
        let done = |checksum: &str| Applied { checksum: checksum.to_owned(), time: "then".to_owned() };
        let applied = BTreeMap::from([
            ("1_a.sql".to_owned(), done(&steps[0].checksum)),
            ("3_c.sql".to_owned(), done("another")),
            ("0_z.sql".to_owned(), done("whatever")),
        ]);
        let states = compare(&steps, &applied);
        let then = || "then".to_owned();
        assert_eq!(
            names(&states),
            [
                ("1_a.sql", &State::Applied(then())),
                ("2_b.sql", &State::TooEarly("3_c.sql".to_owned())),
                ("3_c.sql", &State::Edited(then())),
                ("4_d.sql", &State::Pending),
                ("0_z.sql", &State::Gone(then())),
            ]
        );
        let obstacles: Vec<_> = states.iter().filter_map(|(name, state)| state.obstacle(name)).collect();
        assert_eq!(obstacles.len(), 3);
        assert!(obstacles[1].starts_with("3_c.sql was applied on then and has been edited since; put it back"));
        assert!(compare(&steps, &BTreeMap::new()).iter().all(|(_, state)| *state == State::Pending));
    }
}
