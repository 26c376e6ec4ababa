//! The documentation's list of metrics, made from the table.

use super::{FAMILIES, Family, Kind};

const HEAD: &str = "\
# Metrics

What `/metrics` of the `observe` listener shows. This list is made from `host/src/metrics/families.rs`, and a test compares
the two: `MILLSTREAM_UPDATE=1 cargo test -p millstream --lib metrics::table` writes it anew.

Every `millstream_…` metric has the label `pipeline`. Counters of records move at the commit, so that they never count a
record twice; they start anew with the process. No label comes from data: a stage's reason codes beyond the first 50 are
counted as `other`.

| metric | type | labels | says |
| --- | --- | --- | --- |
";

/// The list as Markdown.
pub fn markdown() -> String {
    let row = |family: &Family| {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {} | {} |\n", family.sample_name(), labels.join(" "), family.help)
    };
    HEAD.to_owned() + &FAMILIES.iter().map(row).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_what_there_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let made = markdown();
        if std::env::var_os("MILLSTREAM_UPDATE").is_some() {
            std::fs::write(path, &made).expect("the list is written");
        }
        let found = std::fs::read_to_string(path).expect("docs/metrics.md is there");
        assert!(
            found == made,
            "docs/metrics.md is not what the table says; see its first lines for how to write it anew"
        );
    }
}
