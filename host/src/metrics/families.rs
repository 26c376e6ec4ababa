//! The table of all metrics: what the documentation lists, and the only names that can be shown.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
    /// Always 1; its labels say something.
    Info,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, with the unit and without `_total` or `_info`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit by OpenMetrics: the end of its name; empty where it has none.
    pub unit: &'static str,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// Its labels, beside `pipeline`, which every `millstream_…` metric has.
    pub labels: &'static [&'static str],
}

impl Family {
    /// The name that queries use: of a counter with `_total`, of an info with `_info`.
    pub fn sample_name(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{suffix}", self.name)
    }

    /// True for those of Millstream itself, which carry the pipeline's name.
    pub fn is_own(&self) -> bool {
        self.name.starts_with("millstream_")
    }
}

/// Makes a row of the table.
const fn row(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, unit, help, labels }
}

use Kind::{Counter, Gauge, Histogram, Info};

const PARTITION: &[&str] = &["topic", "partition"];
const STAGE: &[&str] = &["stage"];
const LEVEL: &[&str] = &["stage", "level"];
const TABLE: &[&str] = &["table"];
const NONE: &[&str] = &[];

/// All metrics, in the order in which they are shown.
pub static FAMILIES: &[Family] = &[
    // Accounting. Everything here moves at the commit.
    row("millstream_records_in", Counter, "", NONE, "Records taken from the source and committed."),
    row(
        "millstream_records",
        Counter,
        "",
        &["outcome"],
        "Committed records by what became of them; each is counted once.",
    ),
    row(
        "millstream_records_out",
        Counter,
        "",
        &["output"],
        "Committed records that left by an output, new ones included.",
    ),
    row("millstream_records_emitted", Counter, "", NONE, "Committed records that stages made anew."),
    row("millstream_stage_records_in", Counter, "", STAGE, "Committed records that entered a stage."),
    row(
        "millstream_stage_records",
        Counter,
        "",
        &["stage", "outcome"],
        "Committed records by what a stage made of them.",
    ),
    row(
        "millstream_dead_letters",
        Counter,
        "",
        &["stage", "reason"],
        "Committed dead letters by stage and reason code.",
    ),
    row(
        "millstream_accounting_imbalance_records",
        Gauge,
        "records",
        NONE,
        "By how many records the accounting is off: always 0.",
    ),
    // Tables. What is counted moves at the drain's commit.
    row(
        "millstream_table_records_in",
        Counter,
        "",
        &["output"],
        "Committed records that a table's drain has taken from its topic.",
    ),
    row("millstream_table_rows", Counter, "", &["output"], "Committed rows that went into the table."),
    row(
        "millstream_table_tombstones",
        Counter,
        "",
        &["output"],
        "Committed records without a value, of which nothing goes into the table.",
    ),
    row("millstream_table_blocks", Counter, "", &["output"], "Committed blocks of rows."),
    row("millstream_table_bytes", Counter, "bytes", &["output"], "Bytes of the rows, encoded and not yet compressed."),
    row("millstream_table_insert_retries", Counter, "", &["output"], "Inserts that were tried again."),
    row(
        "millstream_table_doubts",
        Counter,
        "",
        &["output"],
        "Looks at the table for a block of which nobody knew whether it was there.",
    ),
    row(
        "millstream_table_imbalance_records",
        Gauge,
        "records",
        &["output"],
        "By how many records the drain's accounting is off: always 0.",
    ),
    row("millstream_table_running", Gauge, "", &["output"], "1 while rows go into the table."),
    row(
        "millstream_table_stopped",
        Gauge,
        "",
        &["output"],
        "1 where a partition's rows go in no more; the log and the status say why.",
    ),
    row(
        "millstream_table_dead_letters",
        Counter,
        "",
        &["output", "reason"],
        "Committed records that did not fit the table, by reason code.",
    ),
    row(
        "millstream_table_lag_records",
        Gauge,
        "records",
        &["output", "topic", "partition"],
        "Records of the table's topic behind the committed offset.",
    ),
    row(
        "millstream_table_insert_duration_seconds",
        Histogram,
        "seconds",
        &["output"],
        "How long an insert took that succeeded.",
    ),
    row(
        "millstream_table_latency_seconds",
        Histogram,
        "seconds",
        &["output"],
        "From the timestamp of a block's oldest record to its commit.",
    ),
    row("millstream_table_block_size_records", Histogram, "records", &["output"], "Rows in a block."),
    // Tables that records are looked up in.
    row("millstream_lookup_table_rows", Gauge, "", TABLE, "Rows of a table that records are looked up in."),
    row(
        "millstream_lookup_table_memory_bytes",
        Gauge,
        "bytes",
        TABLE,
        "Memory of a lookup table's rows, their index included.",
    ),
    row(
        "millstream_lookups",
        Counter,
        "",
        &["table", "result"],
        "Lookups by whether they found a row; those of records that are processed again count again.",
    ),
    row("millstream_lookup_table_loads", Counter, "", TABLE, "Times that a lookup table was read as a whole."),
    row(
        "millstream_lookup_table_failures",
        Counter,
        "",
        TABLE,
        "Times that a lookup table could not be read; it stays as it was.",
    ),
    row(
        "millstream_lookup_table_bad_rows",
        Counter,
        "",
        TABLE,
        "Rows that could not be read and were left out of a lookup table.",
    ),
    row(
        "millstream_lookup_table_changes",
        Counter,
        "",
        TABLE,
        "Rows of its topic by which a lookup table was kept current after it was read as a whole.",
    ),
    row(
        "millstream_lookup_table_lag_records",
        Gauge,
        "records",
        &["table", "topic", "partition"],
        "End of the topic's partition less what a lookup table has of it, as asked every few seconds.",
    ),
    row("millstream_lookup_table_stale", Gauge, "", TABLE, "1 while a lookup table is not kept current."),
    // Progress and lag.
    row("millstream_source_bytes", Counter, "bytes", NONE, "Bytes of keys, values and headers taken from the source."),
    row(
        "millstream_consumer_lag_records",
        Gauge,
        "records",
        PARTITION,
        "End of the partition less the committed offset, as Kafka's own tools count it.",
    ),
    row(
        "millstream_consumer_lag_seconds",
        Gauge,
        "seconds",
        PARTITION,
        "Bound on how long the oldest uncommitted record has waited; 0 where nothing waits.",
    ),
    row("millstream_consumer_committed_offset", Gauge, "", PARTITION, "The offset that a restart would begin at."),
    row(
        "millstream_consumer_end_offset",
        Gauge,
        "",
        PARTITION,
        "The offset after the partition's last record, as last fetched.",
    ),
    row("millstream_partitions_assigned", Gauge, "", NONE, "Partitions that this process works on."),
    // Windows: level 1 are the pipeline's own workers, level 2 those that merge what these send on.
    row("millstream_window_keys", Gauge, "", LEVEL, "Keys that a stage holds, one for each part of a window."),
    row(
        "millstream_window_keys_on_disk",
        Gauge,
        "",
        LEVEL,
        "Those of a stage's keys whose states memory has no room for, so that they lie on the disk.",
    ),
    row("millstream_window_state_bytes", Gauge, "bytes", LEVEL, "About how much memory a stage's states take."),
    row(
        "millstream_late_windows",
        Counter,
        "",
        LEVEL,
        "Windows that a committed record came too late for, while others of its windows took it.",
    ),
    row(
        "millstream_unfinished_windows",
        Counter,
        "",
        LEVEL,
        "Windows whose rows a plugin could not make; the log says why.",
    ),
    row("millstream_pairs", Counter, "", &["stage"], "Pairs that a stage has made."),
    row(
        "millstream_unmatched_records",
        Counter,
        "records",
        &["stage", "side"],
        "Records of a side that were in no pair when the bound had passed.",
    ),
    row(
        "millstream_window_watermark_delay_seconds",
        Gauge,
        "seconds",
        &["stage", "level", "topic", "partition"],
        "The wall clock less the watermark, up to which a partition's windows are closed.",
    ),
    row(
        "millstream_restore_left_records",
        Gauge,
        "records",
        PARTITION,
        "Records still to be read before a partition's states are restored; 0 once they are.",
    ),
    // Time and size.
    row(
        "millstream_end_to_end_latency_seconds",
        Histogram,
        "seconds",
        NONE,
        "From a record's timestamp to its commit, for records that have a timestamp.",
    ),
    row("millstream_batch_duration_seconds", Histogram, "seconds", NONE, "A batch's way through all stages."),
    row(
        "millstream_stage_duration_seconds",
        Histogram,
        "seconds",
        STAGE,
        "A batch's way through a plugin, faults and their judgement included.",
    ),
    row(
        "millstream_commit_duration_seconds",
        Histogram,
        "seconds",
        NONE,
        "A commit that succeeded: outputs flushed, offsets committed.",
    ),
    row("millstream_batch_size_records", Histogram, "records", NONE, "Records in a batch of one partition."),
    row("millstream_commit_size_records", Histogram, "records", NONE, "Records in a commit."),
    row(
        "millstream_commits",
        Counter,
        "",
        &["result"],
        "Commits that succeeded, were aborted, or whose outcome was unknown at first.",
    ),
    // Plugins.
    row("millstream_plugin", Info, "", &["stage", "plugin", "version", "digest"], "The plugin that a stage runs."),
    row(
        "millstream_plugin_faults",
        Counter,
        "",
        &["stage", "kind"],
        "Records that a plugin failed, by how; kind `batch` are calls that failed with no record to blame.",
    ),
    row(
        "millstream_plugin_suspicions",
        Counter,
        "",
        STAGE,
        "Calls that took too long by the clock and were found innocent by fuel.",
    ),
    row("millstream_plugin_calls", Counter, "", STAGE, "Calls of a plugin's `process`."),
    row("millstream_plugin_instances_started", Counter, "", STAGE, "Instances started; each lives for one batch."),
    row(
        "millstream_plugin_memory_peak_bytes",
        Gauge,
        "bytes",
        STAGE,
        "The most linear memory that an instance has had.",
    ),
    row(
        "millstream_plugin_memory_limit_bytes",
        Gauge,
        "bytes",
        STAGE,
        "The most linear memory that an instance may have.",
    ),
    row("millstream_chain_number", Gauge, "", &[], "Rises with every swap and rollback of this process."),
    row("millstream_swap_pause_seconds", Histogram, "seconds", &[], "For how long a worker stood still for a swap."),
    row(
        "millstream_group_mixed_partitions",
        Gauge,
        "",
        &[],
        "Partitions of the group that run other plugins than this process.",
    ),
    row("millstream_swaps", Counter, "", &["result"], "Plugins swapped while the stream ran, by result."),
    // Kafka, by librdkafka's statistics.
    row("millstream_kafka_errors", Counter, "", &["client", "kind"], "Errors of the Kafka clients towards brokers."),
    row("millstream_kafka_queue_records", Gauge, "records", &["client"], "Records in the Kafka clients' queues."),
    row("millstream_kafka_queue_bytes", Gauge, "bytes", &["client"], "Bytes in the Kafka clients' queues."),
    row(
        "millstream_kafka_brokers_up",
        Gauge,
        "",
        &["client"],
        "Connections to brokers that are up, over all clients of the process.",
    ),
    // Data quality; only with a `quality:` section.
    row(
        "millstream_quality_samples",
        Counter,
        "",
        &["result"],
        "Records that were looked at, by whether they could be read.",
    ),
    row(
        "millstream_quality_freshness_seconds",
        Histogram,
        "seconds",
        NONE,
        "Arrival less event time of sampled records.",
    ),
    row(
        "millstream_quality_field_samples",
        Counter,
        "",
        &["field", "state"],
        "Sampled records by whether a watched field was present, null or missing.",
    ),
    row(
        "millstream_quality_null_ratio",
        Gauge,
        "ratio",
        &["field"],
        "Share of the last window's samples in which a watched field was null or missing.",
    ),
    row(
        "millstream_quality_volume_ratio",
        Gauge,
        "ratio",
        NONE,
        "Records of the last window by what its baseline leads to expect.",
    ),
    row("millstream_quality_stall_seconds", Gauge, "seconds", NONE, "Time since a record last arrived."),
    row("millstream_quality_drift", Counter, "", &["change"], "Fields that are new, vanished or changed their type."),
    row(
        "millstream_quality_breached",
        Gauge,
        "",
        &["check", "field"],
        "1 while a check of the `quality` section is beyond its threshold.",
    ),
    // The process.
    row("millstream_build", Info, "", &["version", "librdkafka"], "The program that runs."),
    row("millstream_ready", Gauge, "", NONE, "1 while source and sinks answer."),
    row(
        "millstream_paused",
        Gauge,
        "",
        NONE,
        "1 while the stream is paused and every worker has stopped taking records.",
    ),
    row("millstream_workers", Gauge, "", NONE, "Worker threads."),
    row("process_cpu_seconds", Counter, "seconds", NONE, "CPU time of the process, user and system."),
    row("process_resident_memory_bytes", Gauge, "bytes", NONE, "Resident memory."),
    row("process_virtual_memory_bytes", Gauge, "bytes", NONE, "Virtual memory."),
    row("process_open_fds", Gauge, "", NONE, "Open file descriptors."),
    row("process_max_fds", Gauge, "", NONE, "The most file descriptors that may be open."),
    row("process_start_time_seconds", Gauge, "seconds", NONE, "When the process started, in seconds since 1970 UTC."),
    // With `observe: {lag_exporter_names: true}`: the names of kafka-lag-exporter, for dashboards that know them.
    row("kafka_consumergroup_group_offset", Gauge, "", LAG_EXPORTER, "As kafka-lag-exporter: the committed offset."),
    row("kafka_consumergroup_group_lag", Gauge, "", LAG_EXPORTER, "As kafka-lag-exporter: lag in records."),
    row(
        "kafka_consumergroup_group_lag_seconds",
        Gauge,
        "seconds",
        LAG_EXPORTER,
        "As kafka-lag-exporter: lag in seconds.",
    ),
    row(
        "kafka_partition_latest_offset",
        Gauge,
        "",
        &["cluster_name", "topic", "partition"],
        "As kafka-lag-exporter: the end of the partition.",
    ),
];

const LAG_EXPORTER: &[&str] = &["cluster_name", "group", "topic", "partition"];

/// The metric of this name, which is one of the table; a name that is not is a bug, which a test finds.
pub fn family(name: &str) -> &'static Family {
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .unwrap_or_else(|| unreachable!("`{name}` is not in the table of metrics"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_guide() {
        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        for family in FAMILIES {
            let Family { name, unit, help, .. } = family;
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name}: the suffix follows from the kind");
            assert!(unit.is_empty() || name.ends_with(&format!("_{unit}")), "{name} ends with its unit {unit}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
            let base = ["seconds", "bytes", "records", "ratio", ""];
            assert!(base.contains(unit), "{name}: {unit} is no base unit");
            assert!(!family.labels.contains(&"pipeline"), "{name}: every metric has it already");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len(), "each name stands once");
    }
}
