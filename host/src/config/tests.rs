//! The promises of the config: what is read, and how each mistake is told.

use super::*;

const CLICKSTREAM: &str = r#"
pipeline: clickstream
source:
  kafka: {brokers: "${KAFKA_BROKERS:-localhost:9092}", topic: my_events, start: earliest}
stages:
  - name: validate
    plugin: ../../plugins/validate.wasm
    config: {blocked_countries: [XX, ZZ]}
    limits: {memory: 32MiB, deadline_ms: 20}
outputs:
  main: {kafka: {topic: enriched_events, key: /country}}
dead_letters: {to: {kafka: {topic: dlq}}, stop_above: "5% over 10000"}
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("deploy/p.yaml"), text, &|_| None)
}

fn parsed(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn fails(text: &str) -> String {
    let error = parse(text).expect_err("must be refused").to_string();
    error.strip_prefix("deploy/p.yaml:").unwrap_or(&error).to_owned()
}

#[test]
fn a_pipeline_is_read_with_every_default_filled_in() {
    let config = parsed(CLICKSTREAM);
    let SourceConfig::Kafka(source) = &config.source else { panic!("{:?}", config.source) };
    assert_eq!(source.connection.brokers, "localhost:9092");
    assert_eq!((source.group.as_str(), source.start), ("clickstream", Some(Start::Earliest)));
    assert_eq!((source.on_out_of_range, source.protocol), (OutOfRange::Stop, GroupProtocol::Classic));
    let StageKind::Plugin(plugin) = &config.stages[0].kind else { panic!("{:?}", config.stages) };
    assert_eq!(plugin.path, Path::new("deploy/../../plugins/validate.wasm"));
    assert_eq!(plugin.config_json.expose(), r#"{"blocked_countries":["XX","ZZ"]}"#);
    assert_eq!(plugin.limits, LimitsConfig { memory_bytes: 32 << 20, deadline_ms: 20, output_bytes: 32 << 20 });
    let SinkConfig::Kafka(main) = &config.outputs[0].sink else { panic!("{:?}", config.outputs) };
    assert_eq!((main.topic.as_str(), main.key.as_deref()), ("enriched_events", Some("/country")));
    assert_eq!(main.connection, source.connection);
    let budget = ErrorBudget { share_per_million: 50_000, over_records: 10_000 };
    assert_eq!(config.dead_letters.stop_above, Some(budget));
    assert_eq!(config.delivery, Delivery::ExactlyOnce);
    assert_eq!(config.commit, CommitConfig { min_interval_ms: 15, max_interval_ms: 1_000, max_records: 50_000 });
    assert_eq!((config.workers, config.memory_limit_bytes, config.create_topics), (None, None, false));
    assert!(!config.instance.is_empty());
}

#[test]
fn variables_reach_scalars_only() {
    let text = CLICKSTREAM.replace("topic: dlq", "topic: '${DLQ}'");
    let variables = |name: &str| (name == "DLQ").then(|| "dlq2".to_owned());
    let config = Config::parse(Path::new("p.yaml"), &text, &variables).unwrap_or_else(|error| panic!("{error}"));
    let SinkConfig::Kafka(dead_letters) = &config.dead_letters.to else { panic!("{config:?}") };
    assert_eq!(dead_letters.topic, "dlq2");
    let missing = fails(&text);
    assert_eq!(
        missing,
        "12:36: dead_letters.to.kafka.topic: the environment variable DLQ is not set; set it, or give a default as \
         ${DLQ:-default}"
    );
    let hostile = |_: &str| Some("x, brokers: evil:1".to_owned());
    let error = Config::parse(Path::new("p.yaml"), &text, &hostile).expect_err("must be refused").to_string();
    assert!(error.contains("(after its variables were filled in)") && !error.contains("evil"), "{error}");
}

#[test]
fn secrets_are_never_printed() {
    let properties = r#"properties: {security.protocol: SASL_SSL, sasl.password: hunter2, ssl.key.pem: "-----BEGIN", sasl.username: me}"#;
    let text = CLICKSTREAM
        .replace("topic: my_events", &format!("topic: my_events, {properties}"))
        .replace("[XX, ZZ]", "[hunter3]");
    let config = parsed(&text);
    let printed = format!("{config:?} {config:#?}");
    for secret in ["hunter2", "hunter3", "BEGIN"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("SASL_SSL") && printed.contains("\"me\""), "{printed}");
    let password = config.source.connection().map(|connection| connection.properties["sasl.password"].expose());
    assert_eq!(password, Some("hunter2"));
    let main = config.outputs[0].sink.connection().map(|connection| connection.properties["sasl.password"].expose());
    assert_eq!(main, Some("hunter2"), "outputs sign in as the source does");
}

/// A line of [`CLICKSTREAM`] replaced, and the message that follows.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "pipeline: clickstream",
        "pipeline: Click Stream",
        "2:11: pipeline: expected a name of 1 to 64 of the characters a-z 0-9 _ -, found `Click Stream`",
    ),
    ("pipeline: clickstream", "", "3:1: pipeline: is required: the pipeline's name"),
    ("pipeline: clickstream", "pipeline:", "2:1: pipeline: is required: the pipeline's name"),
    (
        "pipeline: clickstream",
        "pipeline: [a]",
        "2:1: pipeline: expected a name of 1 to 64 of the characters a-z 0-9 _ -, found a list",
    ),
    ("outputs:", "output:", "10:1: output: unknown key, did you mean `outputs`?"),
    ("topic: my_events", "topik: my_events", "4:56: source.kafka.topik: unknown key, did you mean `topic`?"),
    ("topic: my_events, ", "", "4:3: source.kafka.topic: is required: the topic to read"),
    (
        "topic: my_events",
        "topic: my events",
        "4:63: source.kafka.topic: expected a topic's name of 1 to 249 of the characters a-z A-Z 0-9 . _ -, found `my events`",
    ),
    (
        "start: earliest",
        "start: yesterday",
        "4:81: source.kafka.start: expected earliest, latest or a time such as 2026-03-01T10:00:00Z, found `yesterday`",
    ),
    (
        "start: earliest",
        "protocol: kip848",
        "4:84: source.kafka.protocol: expected classic or consumer, found `kip848`",
    ),
    (
        "start: earliest",
        "properties: {group.id: x}",
        "4:97: source.kafka.properties.\"group.id\": can't be set: use `group`",
    ),
    (
        "start: earliest",
        "properties: {a: [1]}",
        "4:87: source.kafka.properties.a: expected a property's value, found a list",
    ),
    (
        "9092}\"",
        "x}\"",
        "4:20: source.kafka.brokers: expected brokers as host:port, comma-separated, found `${KAFKA_BROKERS:-localhost:x}` (after its variables were filled in)",
    ),
    (
        "kafka: {brokers: \"${KAFKA_BROKERS:-localhost:9092}\", topic: my_events, start: earliest}",
        "kafak: {}",
        "4:3: source.kafak: unknown key, did you mean `kafka`?",
    ),
    (
        "start: earliest}",
        "start: earliest}\n  stdin: {format: csv}",
        "5:3: source.stdin: only one of kafka, files, stdin, generate can be given; `kafka` is there already",
    ),
    (
        "- name: validate",
        "- name: validate\n    route: {field: /a, outputs: {}, default: main}",
        "6:5: stages[0]: expected exactly one of plugin, select, filter, route, window, deduplicate, join or pair, found plugin and route",
    ),
    (
        "plugin: ../../plugins/validate.wasm",
        "",
        "6:5: stages[0]: expected exactly one of plugin, select, filter, route, window, deduplicate, join or pair, found none",
    ),
    (
        "plugin: ../../plugins/validate.wasm",
        "select: {keep: [/a]}",
        "8:5: stages[0].config: is for plugins; a stage with `select` has none",
    ),
    (
        "memory: 32MiB",
        "memory: 32 bananas",
        "9:22: stages[0].limits.memory: expected a size from 1MiB to 4GiB, such as 64MiB, found `32 bananas`",
    ),
    (
        "deadline_ms: 20",
        "deadline_ms: 0",
        "9:42: stages[0].limits.deadline_ms: expected an integer from 1 to 60000, found `0`",
    ),
    (
        "limits: {memory: 32MiB, deadline_ms: 20}",
        "limits: fast",
        "9:13: stages[0].limits: expected a map with the keys memory, deadline_ms, output, found `fast`",
    ),
    (
        "outputs:\n",
        "  - {name: validate, select: {drop: [/a]}}\noutputs:\n",
        "10:12: stages[1].name: another stage is called `validate` already",
    ),
    (
        "outputs:\n",
        "  - {name: r, route: {field: /a, outputs: {x: y}, default: main}}\noutputs:\n",
        "10:5: stages[1]: `r` sends records to the output `y`; there is main",
    ),
    (
        "outputs:\n",
        "  - {name: s, select: {}}\noutputs:\n",
        "10:15: stages[1].select: expected at least one of keep, drop or rename",
    ),
    (
        "outputs:\n",
        "  - {name: f, filter: {field: a, op: exists}}\noutputs:\n",
        "10:31: stages[1].filter.field: expected a JSON Pointer such as /country or /user/id, found `a`",
    ),
    (
        "outputs:\n",
        "  - {name: f, filter: {field: /a, op: lt, type: bool, value: true}}\noutputs:\n",
        "10:49: stages[1].filter.type: bool has no order; use the op eq, ne or in",
    ),
    (
        "outputs:\n",
        "  - {name: f, filter: {field: /a, op: in, type: int64, value: [1, x]}}\noutputs:\n",
        "10:67: stages[1].filter.value[1]: expected an integer of 64 bits, found `x`",
    ),
    (
        "main:",
        "principal:",
        "10:1: outputs: the output `main` is required: where records go unless a stage says otherwise",
    ),
    (
        "topic: enriched_events, key: /country",
        "topic: my_events",
        "11:3: outputs.main: the topic my_events is the source's: the pipeline would never end",
    ),
    (
        "key: /country",
        "key: country",
        "11:47: outputs.main.kafka.key: expected a JSON Pointer such as /country or /user/id, found `country`",
    ),
    (
        "outputs:\n",
        "outputs:\n  a: {kafka: {topic: t, properties: {linger.ms: 1}}}\n",
        "11:25: outputs.a.kafka.properties: outputs without `brokers` share the producer of `main`; set its properties there",
    ),
    (
        "outputs:\n",
        "outputs:\n  a: {file: {path: x}}\n",
        "2:1: delivery: exactly_once needs a Kafka source and Kafka outputs on the same cluster, so that one transaction holds outputs, dead letters and progress; outputs.a is a file. Say `delivery: at_least_once` if that is enough",
    ),
    (
        "outputs:\n",
        "delivery: exactly_once\noutputs:\n  a: {file: {path: x}}\n",
        "10:11: delivery: exactly_once needs a Kafka source and Kafka outputs on the same cluster, so that one transaction holds outputs, dead letters and progress; outputs.a is a file. Kafka to files is at_least_once: after a failure, lines may be there twice",
    ),
    (
        "outputs:\n",
        "delivery: at_least_once\noutputs:\n  a: {file: {path: x}}\n  b: {file: {path: x}}\n",
        "13:3: outputs.b: another output writes this file already",
    ),
    (
        "{to: {kafka: {topic: dlq}}, stop_above: \"5% over 10000\"}",
        "{}",
        "12:1: dead_letters.to: is required: an output; `to: {discard: {}}` if rejected records shall be lost",
    ),
    (
        "dead_letters: {to: {kafka: {topic: dlq}}, stop_above: \"5% over 10000\"}",
        "",
        "2:1: dead_letters: is required: where rejected records go; `dead_letters: {to: {discard: {}}}` if they shall be lost",
    ),
    (
        "5% over 10000",
        "5%",
        "12:55: dead_letters.stop_above: expected a share of a number of records, such as 5% over 10000, found `5%`",
    ),
    ("outputs:\n", "workers: 0\noutputs:\n", "10:10: workers: expected an integer from 1 to 256, found `0`"),
    ("outputs:\n", "create_topics: yes\noutputs:\n", "10:16: create_topics: expected true or false, found `yes`"),
    (
        "outputs:\n",
        "commit: {min_interval_ms: 20, max_interval_ms: 10}\noutputs:\n",
        "10:1: commit: min_interval_ms (20) is above max_interval_ms (10)",
    ),
    (
        "outputs:\n",
        "logs: {level: loud}\noutputs:\n",
        "10:15: logs.level: expected error, warn, info, debug or trace, found `loud`",
    ),
    (
        "outputs:\n",
        "instance: a b\noutputs:\n",
        "10:11: instance: expected 1 to 128 of the characters a-z A-Z 0-9 . _ -, found `a b`",
    ),
];

#[test]
fn every_mistake_is_told_with_line_column_key_and_what_was_expected() {
    let mut wrong = Vec::new();
    for (line, replacement, expected) in MISTAKES {
        assert!(CLICKSTREAM.contains(line), "{line}");
        let found = fails(&CLICKSTREAM.replacen(line, replacement, 1));
        if !found.starts_with(expected) {
            wrong.push(format!("{replacement}\n  expected {expected}\n  found    {found}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn without_kafka_the_guarantee_follows_from_the_files() {
    let base = "pipeline: p\nsource: {files: {paths: [in.csv.gz, b.jsonl]}}\noutputs: {main: {file: {path: out}}}\n\
                dead_letters: {to: {discard: }}\n";
    let config = parsed(base);
    assert_eq!(config.delivery, Delivery::AtLeastOnce);
    let SourceConfig::Files(files) = &config.source else { panic!("{config:?}") };
    let formats: Vec<FileFormat> = files.files.iter().map(|file| file.format).collect();
    assert_eq!(formats, [FileFormat::Csv, FileFormat::Ndjson]);
    assert_eq!(files.files[0].path, Path::new("deploy/in.csv.gz"));
    assert_eq!(
        fails(&format!("{base}delivery: exactly_once")),
        "5:11: delivery: exactly_once needs a Kafka source and Kafka outputs on the same cluster, so that one \
         transaction holds outputs, dead letters and progress; the source reads files. Without Kafka leave \
         `delivery` out: a run that fails leaves .partial files only, and the next one writes the same bytes anew"
    );
    assert_eq!(
        fails(&base.replace("path: out", "path: b.jsonl")),
        "3:11: outputs.main: deploy/b.jsonl is read by the source"
    );
    assert!(fails(&base.replace("b.jsonl", "b")).contains("source.files.paths[1]: its name does not end in"));
    assert!(
        fails(&base.replace("file: {path: out}", "kafka: {topic: t}"))
            .starts_with("3:18: outputs.main.kafka.brokers: is required")
    );
}

#[test]
fn the_generator_and_stdin_are_read() {
    let base = "pipeline: p\nsource: {generate: {clickstream: {seed: 7, records: 100, records_per_second: 0, partitions: 4, \
                malformed: 0.5%, start_time: 2023-11-14T22:13:21Z}}}\noutputs: {main: {stdout: {}}}\n\
                dead_letters: {to: {stdout: {}}}\n";
    let expected = ClickstreamConfig {
        seed: 7,
        records: Some(100),
        records_per_second: 0,
        partitions: 4,
        start_time_s: 1_700_000_001,
        schema_change_after_s: 30,
        malformed_per_million: 5_000,
    };
    assert_eq!(parsed(base).source, SourceConfig::Generate(GenerateConfig::Clickstream(expected)));
    let stdin = base.replace(base.lines().nth(1).expect("a source"), "source: {stdin: {format: csv}}");
    let expected = StdinSourceConfig { format: FileFormat::Csv, max_line_bytes: 16 << 20 };
    assert_eq!(parsed(&stdin).source, SourceConfig::Stdin(expected));
}

#[test]
fn built_in_stages_are_read() {
    let stages = "stages:\n- {name: s, select: {keep: [/a, /b], rename: {/a: /c}}}\n\
                  - {name: f, filter: {field: /n, type: float64, op: ge, value: 1.5}}\n\
                  - {name: r, route: {field: /kind, outputs: {x: audit}, default: main}}\n";
    let config = parsed(&format!(
        "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\n{stages}outputs: {{audit: {{discard: }}, main: {{stdout: }}}}\n\
         dead_letters: {{to: {{discard: }}}}"
    ));
    let names: Vec<&str> = config.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["main", "audit"]);
    let filter = FilterConfig {
        field: "/n".to_owned(),
        field_type: Some(FieldType::Float64),
        op: FilterOp::Ge,
        values: vec![FieldValue::Float64(1.5)],
    };
    assert_eq!(config.stages[1].kind, StageKind::Filter(filter));
}

#[test]
fn the_pipelines_that_we_ship_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pipelines");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        names.push(path);
    }
    assert!(names.len() >= 2, "{names:?}");
}

proptest::proptest! {
    /// Whatever a file holds, it is read or refused; never a panic, and every refusal names the file.
    #[test]
    fn no_file_is_too_odd_to_be_refused(cut in 0..CLICKSTREAM.len(), junk in "[\\PC\n\t \\-:{}\\[\\]&*!|>'\"%@`$#,?]{0,40}") {
        let at = CLICKSTREAM.floor_char_boundary(cut);
        for text in [junk.clone(), format!("{}{junk}{}", &CLICKSTREAM[..at], &CLICKSTREAM[at..]), CLICKSTREAM[..at].to_owned()] {
            if let Err(error) = parse(&text) {
                proptest::prop_assert!(error.to_string().starts_with("deploy/p.yaml:"), "{error}");
            }
        }
    }
}

#[test]
fn states_have_a_folder_and_bounds() {
    let parse = |state: &str| parse(&format!("{CLICKSTREAM}state: {state}\n")).map(|config| config.state);
    assert_eq!(parse("").expect("nothing is said"), StateConfig::default());
    let found = parse("{dir: /var/lib/states, memory: 256MiB, disk: 8GiB}").expect("all is said");
    let dir = Some(Path::new("/var/lib/states").to_owned());
    assert_eq!(found, StateConfig { dir, memory_bytes: Some(256 << 20), disk_bytes: Some(8 << 30) });
    let why = parse("{memory: 1KiB}").expect_err("too little").to_string();
    assert!(why.contains("state.memory"), "{why}");
    let why = parse("{folder: x}").expect_err("an unknown key").to_string();
    assert!(why.contains("folder") && why.contains("dir"), "{why}");
}
