//! The text that Prometheus reads: its own format 0.0.4, or OpenMetrics 1.0 where that is asked for.

use std::fmt::Write as _;

use super::{Family, Histogram, Kind, family};

/// The form of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client takes, by its `Accept` header: OpenMetrics where it names that with a weight above 0 that is not below
    /// that of plain text.
    pub fn accepted(accept: &str) -> Self {
        let weight = |media: &str| {
            let mut best: f64 = -1.0;
            for part in accept.split(',') {
                let mut parts = part.split(';').map(str::trim);
                if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media)) {
                    continue;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|text| text.parse().ok());
                best = best.max(quality.unwrap_or(1.0));
            }
            best
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type` of the text.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text while it is written. Samples of one metric come together.
pub struct Exposition {
    format: Format,
    pipeline: String,
    text: String,
    open: &'static str,
}

impl Exposition {
    /// An empty text; `pipeline` becomes a label of every metric of Millstream's own.
    pub fn new(format: Format, pipeline: &str) -> Self {
        Self { format, pipeline: pipeline.to_owned(), text: String::with_capacity(16 << 10), open: "" }
    }

    /// One value of a metric of the table, with the values of its labels in the table's order.
    pub fn sample(&mut self, name: &'static str, labels: &[&str], value: f64) {
        let family = self.begin(name);
        self.line(family, &family.sample_name(), labels, None, value);
    }

    /// All buckets of a histogram.
    pub fn histogram(&mut self, name: &'static str, labels: &[&str], histogram: &Histogram) {
        let family = self.begin(name);
        debug_assert_eq!(family.kind, Kind::Histogram, "{name}");
        for (bound, count) in histogram.cumulative() {
            self.line(family, &format!("{name}_bucket"), labels, Some(bound), count as f64);
        }
        self.line(family, &format!("{name}_sum"), labels, None, histogram.sum());
        self.line(family, &format!("{name}_count"), labels, None, histogram.count() as f64);
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Writes what is said once of a metric.
    fn begin(&mut self, name: &'static str) -> &'static Family {
        let family = family(name);
        if self.open == name {
            return family;
        }
        self.open = name;
        let (shown, kind) = match (self.format, family.kind) {
            (Format::Prometheus, Kind::Counter) => (family.sample_name(), "counter"),
            (Format::Prometheus, Kind::Info) => (family.sample_name(), "gauge"),
            (Format::OpenMetrics, Kind::Counter) => (name.to_owned(), "counter"),
            (Format::OpenMetrics, Kind::Info) => (name.to_owned(), "info"),
            (_, Kind::Gauge) => (name.to_owned(), "gauge"),
            (_, Kind::Histogram) => (name.to_owned(), "histogram"),
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# TYPE {shown} {kind}");
        if self.format == Format::OpenMetrics && !family.unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {shown} {}", family.unit);
        }
        let _ = writeln!(self.text, "# HELP {shown} {}", family.help);
        family
    }

    fn line(&mut self, family: &Family, name: &str, labels: &[&str], bound: Option<f64>, value: f64) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{name} has the labels {:?}", family.labels);
        self.text.push_str(name);
        let mut separator = '{';
        let pipeline = family.is_own().then_some(("pipeline", self.pipeline.as_str()));
        for (label, value) in pipeline.into_iter().chain(family.labels.iter().copied().zip(labels.iter().copied())) {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if let Some(bound) = bound {
            let _ = write!(self.text, "{separator}le=\"{}\"", number(bound));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", number(value));
    }
}

/// A number as both formats have it.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    if value.is_nan() {
        return "NaN".to_owned();
    }
    format!("{value:?}")
}

/// Appends a label's value.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LATENCY;

    #[test]
    fn prometheus_text_has_types_labels_and_buckets() {
        let mut text = Exposition::new(Format::Prometheus, "p");
        text.sample("millstream_records_in", &[], 3.0);
        text.sample("millstream_dead_letters", &["a", "x\"y\\\n"], 1.0);
        text.sample("millstream_dead_letters", &["b", "z"], 2.0);
        text.sample("process_open_fds", &[], 7.0);
        let expected = "\
            # TYPE millstream_records_in_total counter\n\
            # HELP millstream_records_in_total Records taken from the source and committed.\n\
            millstream_records_in_total{pipeline=\"p\"} 3.0\n\
            # TYPE millstream_dead_letters_total counter\n\
            # HELP millstream_dead_letters_total Committed dead letters by stage and reason code.\n\
            millstream_dead_letters_total{pipeline=\"p\",stage=\"a\",reason=\"x\\\"y\\\\\\n\"} 1.0\n\
            millstream_dead_letters_total{pipeline=\"p\",stage=\"b\",reason=\"z\"} 2.0\n\
            # TYPE process_open_fds gauge\n\
            # HELP process_open_fds Open file descriptors.\n\
            process_open_fds 7.0\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn open_metrics_names_units_and_its_end() {
        let mut text = Exposition::new(Format::OpenMetrics, "p");
        let mut latency = Histogram::new(&LATENCY);
        latency.record(1_500_000, 2);
        text.histogram("millstream_end_to_end_latency_seconds", &[], &latency);
        text.sample("millstream_build", &["1", "2"], 1.0);
        text.sample("process_cpu_seconds", &[], 0.5);
        let text = text.finish();
        for line in [
            "# TYPE millstream_end_to_end_latency_seconds histogram",
            "# UNIT millstream_end_to_end_latency_seconds seconds",
            "millstream_end_to_end_latency_seconds_bucket{pipeline=\"p\",le=\"1.5\"} 2.0",
            "millstream_end_to_end_latency_seconds_bucket{pipeline=\"p\",le=\"+Inf\"} 2.0",
            "millstream_end_to_end_latency_seconds_sum{pipeline=\"p\"} 3.0",
            "millstream_end_to_end_latency_seconds_count{pipeline=\"p\"} 2.0",
            "# TYPE millstream_build info",
            "millstream_build_info{pipeline=\"p\",version=\"1\",librdkafka=\"2\"} 1.0",
            "# TYPE process_cpu_seconds counter",
            "process_cpu_seconds_total 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_format_follows_the_accept_header() {
        assert_eq!(Format::accepted(""), Format::Prometheus);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("application/openmetrics-text;q=0.1, text/plain"), Format::Prometheus);
        assert_eq!(Format::accepted("application/openmetrics-text;q=0"), Format::Prometheus);
    }
}
