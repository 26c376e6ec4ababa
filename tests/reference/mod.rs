//! What the tables and views of the shipped systems should say, made by plain code from the same input.
//!
//! Each test binary uses a part of it.
#![allow(dead_code)]

pub(crate) mod clickstream;
pub(crate) mod insurance;

/// Fails the test at the first line where the answer to `sql` is not what is expected.
#[track_caller]
pub(crate) fn compare(sql: &str, found: &str, expected: &str) {
    let (found, expected): (Vec<&str>, Vec<&str>) = (found.lines().collect(), expected.lines().collect());
    let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    assert_eq!((first, found.len()), (None, expected.len()), "{sql}");
    assert!(expected.len() >= 10, "{sql}");
}
