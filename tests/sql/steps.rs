//! `millstream sql plan` and `apply`.

use super::Place;

#[test]
fn each_file_is_applied_once_and_in_order() {
    let place = Place::new("steps");
    let database = place.database.clone();
    place.write("2_second.sql", &format!("INSERT INTO {database}.seen SELECT 'second; twice'; -- not; this"));
    place.write(
        "001_first.sql",
        &format!(
            "CREATE TABLE IF NOT EXISTS {database}.seen (text String) ENGINE = MergeTree ORDER BY text;\n\
             INSERT INTO {database}.seen VALUES ('first');"
        ),
    );
    let (code, said) = place.millstream("plan", &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("001_first.sql  to be applied") && said.contains("2_second.sql   to be applied"), "{said}");
    assert!(said.contains("line 2: INSERT INTO"), "{said}");
    // A plan changes nothing, not even its own table.
    assert_eq!(place.tables(), "");
    place.apply(&[]);
    place.apply(&[]);
    assert_eq!(place.sql("SELECT text FROM $.seen ORDER BY text"), "first\nsecond; twice");
    let (code, said) = place.millstream("plan", &[]);
    assert_eq!((code, said.matches("applied 20").count()), (0, 2), "{said}");
    let remembered = place.sql(
        "SELECT system, step, length(checksum), applied_at > now() - 60 FROM $.millstream_schema_steps ORDER BY step",
    );
    assert_eq!(remembered, "steps\t001_first.sql\t64\t1\nsteps\t2_second.sql\t64\t1");

    place.write("3_third.sql", &format!("INSERT INTO {database}.seen VALUES ('third')"));
    place.apply(&[]);
    assert_eq!(place.sql("SELECT count() FROM $.seen"), "3");
    // Under another name nothing was applied.
    assert_eq!(place.millstream("plan", &["--system", "other"]).0, 3);
}

#[test]
fn what_was_applied_is_not_edited_taken_away_or_preceded() {
    let place = Place::new("edited");
    let database = place.database.clone();
    let create = |table: &str, ty: &str| {
        format!("CREATE TABLE IF NOT EXISTS {database}.{table} (a {ty}) ENGINE = MergeTree ORDER BY a")
    };
    place.write("1_a.sql", &create("a", "Int8"));
    place.write("3_c.sql", &create("c", "Int8"));
    place.apply(&[]);
    place.write("4_d.sql", &create("d", "Int8"));
    let refused = |words: &str| {
        let before = place.tables();
        for action in ["plan", "apply"] {
            let (code, said) = place.millstream(action, &[]);
            assert!(code == 2 && said.contains(words), "{code}: {said}");
        }
        assert_eq!(place.tables(), before, "nothing is done, not even what would be allowed");
    };
    // Comments and layout may change.
    place.write("1_a.sql", &format!("-- the first table\n{};\n", create("a", "Int8").replace(" (", "\n(")));
    assert_eq!(place.millstream("plan", &[]).0, 3);
    place.write("1_a.sql", &create("a", "Int16"));
    refused("edited: 1_a.sql was applied on ");
    refused("has been edited since; put it back as it was, and what is to change into a new file");
    place.write("1_a.sql", &create("a", "Int8"));
    std::fs::rename(place.folder.join("3_c.sql"), place.folder.join("3_c.off")).expect("renamed");
    refused("its file is gone; put it back");
    std::fs::rename(place.folder.join("3_c.off"), place.folder.join("3_c.sql")).expect("renamed");
    place.write("2_b.sql", &create("b", "Int8"));
    refused("2_b.sql is new, but stands before 3_c.sql, which is applied");
    std::fs::remove_file(place.folder.join("2_b.sql")).expect("removed");
    place.apply(&[]);
    assert!(place.tables().contains("CREATE TABLE"));
    assert_eq!(place.millstream("plan", &[]).0, 0);
}

#[test]
fn a_file_that_fails_stops_there_and_is_applied_again() {
    let place = Place::new("failing");
    let database = place.database.clone();
    let table =
        |name: &str| format!("CREATE TABLE IF NOT EXISTS {database}.{name} (a Int8) ENGINE = MergeTree ORDER BY a;\n");
    place.write("1_a.sql", &table("a"));
    place.write("2_b.sql", &format!("{}\n-- wrong; so far\nINSERT INTO {database}.none VALUES (1);", table("b")));
    place.write("3_c.sql", &table("c"));
    let (code, said) = place.millstream("apply", &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("1_a.sql: applied, 1 statement\n"), "{said}");
    assert!(said.contains("2_b.sql, statement 2 (line 4): ClickHouse answers code 60: "), "{said}");
    assert!(said.contains("none"), "the server's own words: {said}");
    assert_eq!(place.sql("SELECT name FROM system.tables WHERE database = '$' AND name IN ('a', 'b', 'c')"), "a\nb");
    // It was not applied, so it may be edited.
    place.write("2_b.sql", &table("b"));
    place.apply(&[]);
    assert_eq!(place.sql("SELECT count() FROM system.tables WHERE database = '$' AND name IN ('a', 'b', 'c')"), "3");
}

#[test]
fn mistakes_are_told_before_a_server_is_asked() {
    let place = Place::new("mistakes");
    let (code, said) = place.millstream("apply", &[]);
    assert!(code == 2 && said.contains("no file such as 001_events.sql is in it"), "{said}");
    place.write("1_a.sql", "SELECT 'a");
    let (code, said) = place.millstream("apply", &[]);
    assert!(code == 2 && said.contains("1_a.sql, line 1: a quoted text begins here and does not end"), "{said}");
}
