//! Rows of results, as a table or as JSON.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use serde_json::{Map, Value, json};

/// One contender's results: figures with their unit in the name.
#[derive(Clone, Debug)]
pub(super) struct Row {
    bench: &'static str,
    contender: String,
    figures: Vec<(&'static str, f64)>,
    ratio_to_native: Option<f64>,
}

impl Row {
    /// A row without a ratio.
    pub(super) fn new(bench: &'static str, contender: String, figures: Vec<(&'static str, f64)>) -> Self {
        Self { bench, contender, figures, ratio_to_native: None }
    }

    /// True where this is the row of `contender`.
    pub(super) fn is(&self, contender: &str) -> bool {
        self.contender == contender
    }

    /// The figure `name`.
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|figure| figure.1)
    }

    /// Adds how much of `native` this row's figure `name` is.
    pub(super) fn compare(&mut self, native: Option<f64>, name: &str) {
        self.ratio_to_native = self.figure(name).zip(native).map(|(own, native)| own / native);
    }

    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("bench".to_owned(), json!(self.bench));
        object.insert("contender".to_owned(), json!(self.contender));
        for (name, value) in &self.figures {
            object.insert((*name).to_owned(), json!(rounded(*value)));
        }
        if let Some(ratio) = self.ratio_to_native {
            object.insert("ratio_to_native".to_owned(), json!(rounded(ratio)));
        }
        Value::Object(object)
    }
}

/// Three digits after the point are more than the measurements are good for.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Prints rows, one a line.
pub(super) fn print(rows: &[Row], as_json: bool) {
    if as_json {
        rows.iter().for_each(|row| println!("{}", row.json()));
        return;
    }
    let Some(first) = rows.first() else { return };
    let width = rows.iter().map(|row| row.contender.chars().count()).max().unwrap_or(0);
    let names: Vec<&str> = first.figures.iter().map(|figure| figure.0).collect();
    println!("{:<width$}  {}  ratio_to_native", first.bench, names.join("  "));
    for row in rows {
        let cells: Vec<String> =
            row.figures.iter().map(|(name, value)| format!("{:>1$}", number(*value), name.len())).collect();
        let ratio = row.ratio_to_native.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        println!("{:<width$}  {}  {ratio:>15}", row.contender, cells.join("  "));
    }
}

fn number(value: f64) -> String {
    if value >= 1e3 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
