//! Promise: the SQL that is shipped makes what it says, twice as well as once, and each view is right under copies,
//! retries, disorder and late rows; `millstream sql` applies each file once and refuses what was edited.

#[path = "harness/mod.rs"]
mod harness;
#[path = "reference/mod.rs"]
mod reference;

#[path = "sql/clickstream.rs"]
mod clickstream;
#[path = "sql/insurance.rs"]
mod insurance;
#[path = "sql/steps.rs"]
mod steps;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use harness::clickhouse as server;

/// A folder of numbered SQL files and a database of a test's own, on the server that tests share.
struct Place {
    url: String,
    database: String,
    folder: PathBuf,
}

impl Place {
    /// One with an empty folder.
    fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("test_sql_{}_{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&database).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let url = server::shared_url();
        server::query(&url, &format!("CREATE DATABASE {database}"));
        Self { url, database, folder }
    }

    /// The SQL that is shipped for `system`, with the test's database in place of `own`: a server that a user names may
    /// have tables of these names.
    fn shipped(system: &str, own: &str) -> Self {
        let place = Self::new(system);
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql").join(system);
        for entry in std::fs::read_dir(from).expect("the SQL is there") {
            let path = entry.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("text").replace(own, &place.database);
            place.write(&path.file_name().expect("a name").to_string_lossy(), &text);
        }
        place
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("written");
    }

    /// The answer to SQL in which `$` stands for the database.
    fn sql(&self, sql: &str) -> String {
        server::query(&self.url, &sql.replace('$', &self.database))
    }

    /// Exit code and everything that is said.
    fn millstream(&self, action: &str, more: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["sql", action])
            .arg(&self.folder)
            .args(["--url", &self.url, "--database", &self.database])
            .args(more)
            .output()
            .expect("millstream runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&said).into_owned())
    }

    fn apply(&self, more: &[&str]) {
        let (code, said) = self.millstream("apply", more);
        assert_eq!(code, 0, "{said}");
    }

    /// Everything that is in the database, as the server describes it.
    fn tables(&self) -> String {
        self.sql("SELECT name, uuid, create_table_query FROM system.tables WHERE database = '$' ORDER BY name")
    }

    /// Inserts rows of JSON as the drain does: as one block, with its token.
    fn insert(&self, table: &str, token: &str, rows: &[String]) {
        let settings = format!(
            "insert_deduplication_token = '{token}', deduplicate_blocks_in_dependent_materialized_views = 1, \
             async_insert = 0, date_time_input_format = 'best_effort'"
        );
        let insert = format!("INSERT INTO $.{table} SETTINGS {settings} FORMAT JSONEachRow\n{}", rows.join("\n"));
        // Page URLs and the like may hold the sign itself, so it is replaced in the head only.
        let (head, rows) = insert.split_once('\n').expect("a head");
        server::query(&self.url, &format!("{}\n{rows}", head.replace('$', &self.database)));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sql("DROP DATABASE $");
            let _ = std::fs::remove_dir_all(self.folder.parent().expect("it has one"));
        }
    }
}

/// The numbers 0 to `count` in an order that has nothing to do with it.
fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    numbers.sort_by_key(|number| (*number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers
}

#[test]
fn a_second_time_changes_nothing() {
    for (system, own) in [("clickstream", "events_db"), ("insurance", "insurance_analytics")] {
        let place = Place::shipped(system, own);
        place.apply(&["--system", "first"]);
        let before = place.tables();
        assert!(before.lines().count() >= 7, "{before}");
        place.apply(&["--system", "second"]);
        assert_eq!(place.tables(), before, "{system}");
    }
}

#[test]
fn tables_that_rows_go_into_hold_the_promise() {
    for (system, own) in [("clickstream", "events_db"), ("insurance", "insurance_analytics")] {
        let place = Place::shipped(system, own);
        place.apply(&[]);
        let merge_trees = place.sql(
            "SELECT name FROM system.tables WHERE database = '$' AND engine LIKE '%MergeTree' \
             AND name NOT LIKE 'millstream%' ORDER BY name",
        );
        for table in merge_trees.lines() {
            let create = place.sql(&format!("SHOW CREATE TABLE $.{table}"));
            assert!(create.contains("non_replicated_deduplication_window = 1"), "{table} has no window of tokens");
            let lineage = "SELECT groupArray(name || ' ' || type) FROM system.columns WHERE database = '$' \
                           AND startsWith(name, '_') AND table = ";
            let lineage = place.sql(&format!("{lineage}'{table}'"));
            let is_fed_by_view = table == "daily_active_users_states";
            let expected = "['_topic LowCardinality(String)','_partition Int32','_offset Int64']";
            assert_eq!(lineage, if is_fed_by_view { "[]" } else { expected }, "{table}");
        }
    }
}
