//! From what the workers published to the metrics of the table.

use crate::config::QualityConfig;
use crate::drain::{DrainReadings, DrainState};
use crate::metrics::{ClientFigures, Exposition, Format, Histogram, ProcessUsage};
use crate::pipeline::StageCounts;
use crate::plugin::StageUsage;
use crate::quality::{CHANGES, Counts, Verdict};
use crate::table::TableReading;
use crate::worker::{PartitionReading, Readings};

use super::holdings::Holdings;
use super::sight::StageFact;
use super::{Progress, Sight, SwapCounts};

/// What a stage is called that stands for the outputs: records that are too large for their topic end there.
const OUTPUT_STAGE: &str = "output";

/// Everything that is shown, at one moment.
pub(super) struct Seen {
    pub(super) holdings: Holdings,
    pub(super) stages: Vec<StageFact>,
    pub(super) swaps: SwapCounts,
    /// The number of the chain in force.
    pub(super) chain_number: u64,
    pub(super) swap_pauses: Histogram,
    pub(super) mixed_partitions: usize,
    pub(super) outputs: Vec<String>,
    pub(super) cluster_id: String,
    pub(super) workers: usize,
    pub(super) paused: bool,
    pub(super) now_ms: u64,
    pub(super) progress: Progress,
    pub(super) readings: Readings,
    pub(super) tables: Vec<DrainReadings>,
    pub(super) lookup_tables: Vec<TableReading>,
}

/// The text for Prometheus.
pub(super) fn render(sight: &Sight, seen: &Seen, ready: bool, format: Format) -> String {
    let mut out = Exposition::new(format, &sight.pipeline);
    accounting(&mut out, seen);
    lag(&mut out, seen);
    seen.holdings.show(&mut out, seen.now_ms);
    times(&mut out, seen);
    plugins(&mut out, seen);
    kafka(&mut out, &seen.readings);
    tables(&mut out, &seen.tables);
    lookup_tables(&mut out, &seen.lookup_tables);
    if let Some((config, counts, verdict)) = sight.quality() {
        quality(&mut out, config, &counts, &verdict);
    }
    out.sample("millstream_build", &[env!("CARGO_PKG_VERSION"), &crate::kafka::client_version()], 1.0);
    out.sample("millstream_ready", &[], f64::from(u8::from(ready)));
    out.sample("millstream_paused", &[], f64::from(u8::from(seen.paused)));
    out.sample("millstream_workers", &[], seen.workers as f64);
    process(&mut out);
    if sight.lag_exporter_names {
        lag_exporter(&mut out, seen, sight.group.as_deref().unwrap_or_default());
    }
    out.finish()
}

fn accounting(out: &mut Exposition, seen: &Seen) {
    let ledger = &seen.progress.ledger;
    out.sample("millstream_records_in", &[], ledger.records_in as f64);
    let total = StageCounts {
        entered: ledger.records_in,
        forwarded: ledger.forwarded(),
        filtered: ledger.filtered(),
        folded: ledger.folded(),
        late: ledger.late(),
        deduplicated: ledger.deduplicated(),
        dead_lettered: ledger.dead_lettered(),
    };
    for (outcome, count) in outcomes(&total) {
        out.sample("millstream_records", &[outcome], count as f64);
    }
    for (output, count) in seen.outputs.iter().zip(ledger.outputs.iter().chain(std::iter::repeat(&0))) {
        out.sample("millstream_records_out", &[output], *count as f64);
    }
    out.sample("millstream_records_emitted", &[], ledger.emitted as f64);
    let none = StageCounts::default();
    let stages = || seen.stages.iter().zip(ledger.stages.iter().chain(std::iter::repeat(&none)));
    for (stage, counts) in stages() {
        out.sample("millstream_stage_records_in", &[&stage.name], counts.entered as f64);
    }
    for (stage, counts) in stages() {
        for (outcome, count) in outcomes(counts) {
            out.sample("millstream_stage_records", &[&stage.name, outcome], count as f64);
        }
    }
    for (stage, reason, count) in ledger.reasons.iter() {
        let stage = seen.stages.get(stage).map_or(OUTPUT_STAGE, |stage| stage.name.as_str());
        out.sample("millstream_dead_letters", &[stage, reason], count as f64);
    }
    out.sample("millstream_accounting_imbalance_records", &[], ledger.imbalance() as f64);
}

/// Every outcome that there is, also those that nothing has yet.
fn outcomes(counts: &StageCounts) -> [(&'static str, u64); 6] {
    [
        ("forwarded", counts.forwarded),
        ("folded", counts.folded),
        ("filtered", counts.filtered),
        ("late", counts.late),
        ("deduplicated", counts.deduplicated),
        ("dead_lettered", counts.dead_lettered),
    ]
}

fn lag(out: &mut Exposition, seen: &Seen) {
    out.sample("millstream_source_bytes", &[], seen.readings.source_bytes as f64);
    let mut each = |name, value: &dyn Fn(&PartitionReading) -> Option<f64>| {
        let second = seen.holdings.merging.iter().flat_map(|(_, partitions)| partitions);
        per_partition(out, seen.readings.partitions.iter().chain(second), (name, &[]), value);
    };
    each("millstream_consumer_lag_records", &|p| p.lag_records().map(|lag| lag as f64));
    each("millstream_consumer_lag_seconds", &|p| p.lag_seconds(seen.now_ms));
    each("millstream_consumer_committed_offset", &|p| Some(p.committed as f64));
    each("millstream_consumer_end_offset", &|p| p.end.map(|end| end as f64));
    out.sample("millstream_partitions_assigned", &[], seen.readings.partitions.len() as f64);
}

fn per_partition<'a>(
    out: &mut Exposition,
    partitions: impl Iterator<Item = &'a PartitionReading>,
    (name, before): (&'static str, &[&str]),
    value: &dyn Fn(&PartitionReading) -> Option<f64>,
) {
    for partition in partitions {
        let Some(value) = value(partition) else { continue };
        let number = partition.place.partition.to_string();
        out.sample(name, &[before, &[&partition.place.topic, &number]].concat(), value);
    }
}

/// Lag as kafka-lag-exporter names it, for dashboards and alerts that know it.
fn lag_exporter(out: &mut Exposition, seen: &Seen, group: &str) {
    let cluster = seen.cluster_id.as_str();
    let merging = seen.holdings.merging.iter().map(|(group, partitions)| (group.as_str(), partitions));
    let groups: Vec<_> = [(group, &seen.readings.partitions)].into_iter().chain(merging).collect();
    let mut each = |name, labels: usize, value: &dyn Fn(&PartitionReading) -> Option<f64>| {
        for (group, partitions) in &groups {
            per_partition(out, partitions.iter(), (name, &[cluster, group][..labels]), value);
        }
    };
    each("kafka_consumergroup_group_offset", 2, &|p| Some(p.committed as f64));
    each("kafka_consumergroup_group_lag", 2, &|p| p.lag_records().map(|lag| lag as f64));
    each("kafka_consumergroup_group_lag_seconds", 2, &|p| p.lag_seconds(seen.now_ms));
    each("kafka_partition_latest_offset", 1, &|p| p.end.map(|end| end as f64));
}

fn times(out: &mut Exposition, seen: &Seen) {
    let readings = &seen.readings;
    out.histogram("millstream_end_to_end_latency_seconds", &[], &readings.latency);
    out.histogram("millstream_batch_duration_seconds", &[], &readings.batch_time);
    for (stage, usage) in plugin_stages(seen) {
        out.histogram("millstream_stage_duration_seconds", &[&stage.name], &usage.time);
    }
    out.histogram("millstream_commit_duration_seconds", &[], &readings.commit_time);
    out.histogram("millstream_batch_size_records", &[], &readings.batch_records);
    out.histogram("millstream_commit_size_records", &[], &readings.commit_records);
    out.sample("millstream_commits", &["committed"], seen.progress.commits as f64);
    out.sample("millstream_commits", &["aborted"], readings.aborted as f64);
    out.sample("millstream_commits", &["in_doubt"], readings.in_doubt as f64);
}

fn plugin_stages(seen: &Seen) -> impl Iterator<Item = (&StageFact, &StageUsage)> {
    seen.stages.iter().zip(&seen.readings.stages).filter(|(stage, _)| !stage.digest.is_empty())
}

fn plugins(out: &mut Exposition, seen: &Seen) {
    for (stage, _) in plugin_stages(seen) {
        out.sample("millstream_plugin", &[&stage.name, &stage.plugin, &stage.version, &stage.digest], 1.0);
    }
    for (stage, usage) in plugin_stages(seen) {
        let faults = &usage.faults;
        let kinds = [
            ("trap", faults.trap),
            ("deadline", faults.deadline),
            ("memory", faults.memory),
            ("stack", faults.stack),
            ("bad_output", faults.bad_output),
            ("batch", usage.batch_faults),
        ];
        for (kind, count) in kinds {
            out.sample("millstream_plugin_faults", &[&stage.name, kind], count as f64);
        }
    }
    let mut each = |name, value: fn(&StageFact, &StageUsage) -> Option<u64>| {
        for (stage, usage) in plugin_stages(seen) {
            value(stage, usage).into_iter().for_each(|value| out.sample(name, &[&stage.name], value as f64));
        }
    };
    each("millstream_plugin_suspicions", |_, usage| Some(usage.suspicions));
    each("millstream_plugin_calls", |_, usage| Some(usage.calls));
    each("millstream_plugin_instances_started", |_, usage| Some(usage.instances));
    each("millstream_plugin_memory_peak_bytes", |_, usage| Some(usage.memory_peak_bytes));
    each("millstream_plugin_memory_limit_bytes", |stage, _| stage.memory_limit_bytes);
    let SwapCounts { done, refused, rolled_back } = seen.swaps;
    for (result, count) in [("done", done), ("refused", refused), ("rolled_back", rolled_back)] {
        out.sample("millstream_swaps", &[result], count as f64);
    }
    out.sample("millstream_chain_number", &[], seen.chain_number as f64);
    out.histogram("millstream_swap_pause_seconds", &[], &seen.swap_pauses);
    out.sample("millstream_group_mixed_partitions", &[], seen.mixed_partitions as f64);
}

fn kafka(out: &mut Exposition, readings: &Readings) {
    let clients = [("consumer", &readings.consumer), ("producer", &readings.producer)];
    for (client, figures) in clients {
        let kinds = [
            ("send", figures.send_errors),
            ("receive", figures.receive_errors),
            ("timeout", figures.timeouts),
            ("disconnect", figures.disconnects),
        ];
        for (kind, count) in kinds {
            out.sample("millstream_kafka_errors", &[client, kind], count as f64);
        }
    }
    let mut each = |name, value: fn(&ClientFigures) -> u64| {
        for (client, figures) in clients {
            out.sample(name, &[client], value(figures) as f64);
        }
    };
    each("millstream_kafka_queue_records", |figures| figures.queue_records);
    each("millstream_kafka_queue_bytes", |figures| figures.queue_bytes);
    each("millstream_kafka_brokers_up", |figures| figures.brokers_up);
}

fn tables(out: &mut Exposition, tables: &[DrainReadings]) {
    let mut each = |name, value: fn(&DrainReadings) -> f64| {
        tables.iter().for_each(|table| out.sample(name, &[&table.output], value(table)));
    };
    each("millstream_table_records_in", |table| table.records as f64);
    each("millstream_table_rows", |table| table.rows as f64);
    each("millstream_table_tombstones", |table| table.tombstones as f64);
    each("millstream_table_blocks", |table| table.blocks as f64);
    each("millstream_table_bytes", |table| table.bytes as f64);
    each("millstream_table_insert_retries", |table| table.retries as f64);
    each("millstream_table_doubts", |table| table.doubts as f64);
    each("millstream_table_imbalance_records", |table| table.imbalance() as f64);
    each("millstream_table_running", |table| f64::from(u8::from(table.state == DrainState::Running)));
    each("millstream_table_stopped", |table| f64::from(u8::from(matches!(table.state, DrainState::Stopped(_)))));
    for table in tables {
        for (reason, count) in &table.unfit {
            out.sample("millstream_table_dead_letters", &[&table.output, reason], *count as f64);
        }
    }
    for table in tables {
        for (place, committed, end) in &table.partitions {
            let number = place.partition.to_string();
            let lag = end.map(|end| (end - committed).max(0) as f64);
            let labels = [table.output.as_str(), &place.topic, &number];
            lag.into_iter().for_each(|lag| out.sample("millstream_table_lag_records", &labels, lag));
        }
    }
    for table in tables {
        out.histogram("millstream_table_insert_duration_seconds", &[&table.output], &table.insert_time);
    }
    for table in tables {
        out.histogram("millstream_table_latency_seconds", &[&table.output], &table.latency);
    }
    for table in tables {
        out.histogram("millstream_table_block_size_records", &[&table.output], &table.block_rows);
    }
}

fn lookup_tables(out: &mut Exposition, tables: &[TableReading]) {
    let mut each = |name, value: fn(&TableReading) -> f64| {
        tables.iter().for_each(|table| out.sample(name, &[&table.name], value(table)));
    };
    each("millstream_lookup_table_rows", |table| table.rows as f64);
    each("millstream_lookup_table_memory_bytes", |table| table.bytes as f64);
    each("millstream_lookup_table_loads", |table| table.loads as f64);
    each("millstream_lookup_table_failures", |table| table.failures as f64);
    each("millstream_lookup_table_bad_rows", |table| table.bad_rows as f64);
    each("millstream_lookup_table_changes", |table| table.changes as f64);
    each("millstream_lookup_table_stale", |table| f64::from(u8::from(table.trouble.is_some())));
    for table in tables {
        for (result, count) in [("hit", table.hits), ("miss", table.misses)] {
            out.sample("millstream_lookups", &[&table.name, result], count as f64);
        }
    }
    for table in tables {
        for (place, lag) in &table.lags {
            let labels = [table.name.as_str(), &place.topic, &place.partition.to_string()];
            out.sample("millstream_lookup_table_lag_records", &labels, *lag as f64);
        }
    }
}

fn quality(out: &mut Exposition, config: &QualityConfig, counts: &Counts, verdict: &Verdict) {
    let readable = counts.samples - counts.unreadable;
    for (result, count) in [("readable", readable), ("unreadable", counts.unreadable)] {
        out.sample("millstream_quality_samples", &[result], count as f64);
    }
    if config.event_time.is_some() {
        out.histogram("millstream_quality_freshness_seconds", &[], &counts.freshness);
    }
    for (watched, counts) in config.fields.iter().zip(&counts.fields) {
        for (state, count) in [("present", counts.present), ("null", counts.null), ("missing", counts.missing)] {
            out.sample("millstream_quality_field_samples", &[&watched.field, state], count as f64);
        }
    }
    for (watched, ratio) in config.fields.iter().zip(&verdict.null_ratios) {
        ratio.iter().for_each(|ratio| out.sample("millstream_quality_null_ratio", &[&watched.field], *ratio));
    }
    verdict.volume_ratio.into_iter().for_each(|ratio| out.sample("millstream_quality_volume_ratio", &[], ratio));
    out.sample("millstream_quality_stall_seconds", &[], verdict.stall_seconds);
    for (change, count) in CHANGES.iter().zip(verdict.drift) {
        out.sample("millstream_quality_drift", &[change], count as f64);
    }
    for (check, field, beyond) in &verdict.breached {
        out.sample("millstream_quality_breached", &[check, field], f64::from(u8::from(*beyond)));
    }
}

fn process(out: &mut Exposition) {
    let Some(usage) = ProcessUsage::read() else { return };
    out.sample("process_cpu_seconds", &[], usage.cpu_seconds);
    out.sample("process_resident_memory_bytes", &[], usage.resident_bytes);
    out.sample("process_virtual_memory_bytes", &[], usage.virtual_bytes);
    out.sample("process_open_fds", &[], usage.open_fds);
    out.sample("process_max_fds", &[], usage.max_fds);
    out.sample("process_start_time_seconds", &[], usage.start_time_seconds);
}
