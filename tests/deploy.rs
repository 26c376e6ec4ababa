//! Promise: what deploy/ holds fits what the process does: rules and dashboard ask for metrics that there are, alerts fire
//! when they should, and the manifest's pipeline and times are good.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use millstream::config::Config;
use millstream::metrics::{FAMILIES, Kind};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// Runs promtool, which the tests need: `cargo xtask doctor` says how to get it.
fn promtool(args: &[&str]) {
    let folder = deploy().join("prometheus");
    let output = Command::new("promtool").args(args).current_dir(folder).output().expect("promtool runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {}:\n{said}", args.join(" "));
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "config", "compose.yml"]);
    let tests = ["rules/alerts_test.yml"];
    tests.iter().for_each(|test| promtool(&["test", "rules", test]));
    // Each alert has been seen to fire.
    let (alerts, test) = (read("prometheus/rules/alerts.yml"), read("prometheus/rules/alerts_test.yml"));
    for line in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = test
            .split(&format!("alertname: {line}\n"))
            .skip(1)
            .any(|rest| rest.trim_start().starts_with("exp_alerts:\n"));
        assert!(fires, "no test sees {line} fire");
    }
}

/// Every name of ours in an expression that no table and no rule knows.
fn unknown<'a>(expr: &'a str, recorded: &BTreeSet<&str>) -> Vec<&'a str> {
    let known: BTreeSet<String> = FAMILIES
        .iter()
        .flat_map(|family| match family.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", family.name)).to_vec(),
            _ => vec![family.sample_name()],
        })
        .collect();
    let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours =
        |word: &&str| ["millstream_", "millstream:", "process_", "kafka_"].iter().any(|own| word.starts_with(own));
    words.filter(ours).filter(|word| !known.contains(*word) && !recorded.contains(word)).collect()
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is() {
    let recording = read("prometheus/rules/recording.yml");
    let recorded: BTreeSet<&str> =
        recording.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    assert!(recorded.len() >= 5, "{recorded:?}");
    for file in ["prometheus/rules/recording.yml", "prometheus/rules/alerts.yml"] {
        let text = read(file);
        let code: String = text.lines().filter(|line| !line.trim().starts_with('#')).collect::<Vec<_>>().join("\n");
        assert_eq!(unknown(&code, &recorded), Vec::<&str>::new(), "{file}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/dashboard.json")).expect("JSON");
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 30, "{} queries", queries.len());
    for query in &queries {
        assert_eq!(unknown(query, &recorded), Vec::<&str>::new(), "{query}");
    }
    assert_eq!(
        unknown("rate(millstream_gone_total[5m]) + millstream:gone:p95", &recorded).len(),
        2,
        "the check finds some"
    );
}

/// All queries of a dashboard, wherever they stand.
fn collect<'a>(value: &'a serde_json::Value, queries: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "expr" || name == "query") {
                    Some(query) => queries.push(query),
                    None => collect(value, queries),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

#[test]
fn every_pipeline_is_valid_with_nothing_set() {
    let folder = deploy().join("pipelines");
    let mut tables = 0;
    for entry in std::fs::read_dir(&folder).expect("pipelines") {
        let path = entry.expect("a pipeline").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let config = Config::parse(&path, &text, &|_: &str| None).unwrap_or_else(|error| panic!("{error}"));
        let of_outputs = config.outputs.iter().filter_map(|output| output.table.as_ref());
        for table in of_outputs.chain(config.dead_letters.table.as_ref()) {
            // The table is one that our SQL makes.
            let name = format!("CREATE TABLE IF NOT EXISTS {}.{}\n", table.database, table.table);
            let made = ["clickstream", "insurance"].iter().any(|system| sql(system).contains(&name));
            assert!(made, "{}: nothing makes {}.{}", path.display(), table.database, table.table);
            tables += 1;
        }
    }
    assert!(tables >= 6, "{tables}");
}

/// All SQL of a system.
fn sql(system: &str) -> String {
    let folder = deploy().join("../sql").join(system);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|entry| std::fs::read_to_string(entry.expect("a file").path()).expect("text")).collect()
}

fn root() -> PathBuf {
    deploy().join("..")
}

/// Containers can't be run here; what can be seen without them is checked.
#[test]
fn the_compose_file_is_sound_and_gives_no_password_away() {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).expect("a compose file");
    let provisioning =
        ["datasources", "dashboards"].map(|kind| read(&format!("grafana/provisioning/{kind}/millstream.yaml")));
    for yaml in provisioning.iter().chain([&text]) {
        let events: Result<Vec<_>, _> = saphyr_parser::Parser::new_from_str(yaml).collect();
        events.unwrap_or_else(|error| panic!("{error}"));
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    for line in &lines {
        // Everything that is mounted is there.
        if let Some(mount) = line.strip_prefix("- ./") {
            let path = mount.split(':').next().unwrap_or_default();
            assert!(root().join(path).exists() && mount.ends_with(":ro"), "{line}");
        }
        // Images have a version with a patch level; our own is built.
        if let Some(image) = line.strip_prefix("image: ").filter(|image| *image != "millstream-systems") {
            let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{line}"));
            assert!(
                tag.trim_start_matches('v').split('.').filter(|part| part.parse::<u32>().is_ok()).count() >= 3,
                "{line}"
            );
        }
        // Nothing of ours is reached from another machine unless somebody wants it.
        if let Some(ports) = line.strip_prefix("ports: ") {
            assert!(ports.starts_with("[\"127.0.0.1:"), "{line}");
        }
        // A password comes from outside, and none is a default.
        if let Some((_, value)) = line.split_once("PASSWORD: ") {
            assert!(value.starts_with("${") && value.ends_with(":?set it in .env}"), "{line}");
        }
        // What containers run of ours is there.
        if let Some(file) = line.split("/usr/share/millstream/").nth(1).filter(|_| line.starts_with("command: ")) {
            let path = file.trim_end_matches(']').replace("pipelines/", "deploy/pipelines/");
            assert!(root().join(path).exists(), "{line}");
        }
    }
    let example = std::fs::read_to_string(root().join(".env.example")).expect("an example");
    let variables = text.split("${").skip(1).filter_map(|rest| rest.split(":?").next());
    for name in variables.collect::<BTreeSet<_>>() {
        assert!(
            example.lines().any(|line| line == format!("{name}=")),
            "{name} is not in .env.example, or has a value"
        );
    }
    // Whatever keeps running says whether it is well.
    let services =
        text.split("\nservices:\n").nth(1).and_then(|rest| rest.split("\nvolumes:\n").next()).expect("services");
    for service in services.split("\n\n").filter(|service| service.contains("restart: unless-stopped")) {
        assert!(service.contains("healthcheck:"), "{service}");
    }
}

#[test]
fn the_image_has_the_plugins_of_every_pipeline() {
    let dockerfile = read("Dockerfile");
    for entry in std::fs::read_dir(deploy().join("pipelines")).expect("pipelines") {
        let text = std::fs::read_to_string(entry.expect("a pipeline").path()).expect("text");
        for plugin in text.lines().filter_map(|line| line.trim().strip_prefix("plugin: ")) {
            let name = plugin.rsplit('/').next().and_then(|file| file.strip_suffix(".wasm")).expect("a component");
            assert!(dockerfile.contains(&format!(" {name} ")) || dockerfile.contains(&format!(" {name};")), "{name}");
        }
    }
}

#[test]
fn the_sidecars_pipeline_is_valid_and_its_grace_is_longer_than_the_drain() {
    let manifest = read("k8s/sidecar.yaml");
    let block = manifest.split("pipeline.yaml: |\n").nth(1).expect("a pipeline").split("---").next().expect("its end");
    let pipeline: String =
        block.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let variables =
        |name: &str| Some(name.to_lowercase().replace('_', "-") + ":9092").filter(|_| name == "KAFKA_BROKERS");
    let variables = |name: &str| variables(name).or_else(|| (name == "POD_NAME").then(|| "clickstream-0".to_owned()));
    let config =
        Config::parse(Path::new("pipeline.yaml"), &pipeline, &variables).unwrap_or_else(|error| panic!("{error}"));
    let observe = config.observe.expect("it is on").listen.address;
    assert!(!observe.ip().is_loopback() && manifest.contains(&format!("containerPort: {}", observe.port())));
    let number = |key: &str| -> u64 {
        let rest = manifest.split(key).nth(1).unwrap_or_else(|| panic!("no {key}"));
        rest.trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .and_then(|digits| digits.parse().ok())
            .expect("a number")
    };
    // Five tries to commit, and a request of a transaction takes 8 s at most.
    let drain = 5 * 8;
    let grace = number("terminationGracePeriodSeconds:");
    assert!(grace > drain + number("sleep: {seconds:"), "{grace} s");
    for needed in
        ["restartPolicy: Always", "readOnlyRootFilesystem: true", "runAsNonRoot: true", "preStop:", "startupProbe:"]
    {
        assert!(manifest.contains(needed), "{needed}");
    }
    let dockerfile = read("Dockerfile");
    assert!(
        dockerfile.contains("\nUSER 10001") && manifest.contains("runAsUser: 10001"),
        "the same user that is not root"
    );
}
