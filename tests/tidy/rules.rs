//! The rules of the house, each a function from a file to what is wrong in it.

use crate::lexer::{Token, tokens};

/// Most lines of a file, tests at its end not counted.
const FILE_LINES: usize = 500;
/// Most lines of a function: a screen.
const FUNCTION_LINES: usize = 70;
/// How far above an `unsafe` its reason may stand.
const REASON_LINES: usize = 8;

/// Written by a tool, so the rules on length and docs don't hold.
const GENERATED: &[&str] = &["plugins/sdk/src/bindings.rs", "plugins/sdk/src/bindings_aggregate.rs"];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["host/src/plugin/", "host/src/kafka/native/", "plugins/sdk/src/", "tests/hostile/"];

/// Each room of the host, and the rooms that it may use: arrows point one way.
const ROOMS: &[(&str, &[&str])] = &[
    ("record", &[]),
    ("metrics", &[]),
    ("config", &["kafka", "record"]),
    ("kafka", &["config", "metrics", "record"]),
    ("plugin", &["config", "metrics", "record", "table"]),
    ("spill", &[]),
    ("state", &["record", "spill"]),
    ("table", &["config", "record"]),
    ("window", &["config", "memory", "plugin", "record", "spill", "state"]),
    ("pipeline", &["config", "plugin", "record", "table", "window"]),
    ("task", &["config", "pipeline", "plugin", "record", "window"]),
    ("memory", &["record", "sink", "source", "task"]),
    ("source", &["config", "kafka", "memory", "metrics", "record"]),
    ("sink", &["config", "drain", "kafka", "memory", "metrics", "pipeline", "record", "source", "task", "window"]),
    ("worker", &["config", "metrics", "pipeline", "plugin", "quality", "record", "sink", "source", "task", "window"]),
    ("http", &["config", "metrics", "record"]),
    ("clickhouse", &["config", "record"]),
    ("drain", &["clickhouse", "config", "kafka", "metrics", "pipeline", "record", "source", "task"]),
    ("quality", &["config", "metrics", "record"]),
    ("project", &["config", "plugin", "record"]),
];

/// Rooms above all others: they put the rest together, and no other room may use them.
const TOP: &[&str] = &["cli", "golden", "run"];

/// Crates whose types stay in their rooms.
const CRATES: &[(&str, &[&str])] = &[
    ("wasmtime", &["plugin"]),
    ("wit_component", &["plugin"]),
    ("wit_parser", &["plugin"]),
    ("rdkafka", &["kafka"]),
    ("rdkafka_sys", &["kafka"]),
    ("lz4_flex", &["clickhouse"]),
    ("redb", &["spill"]),
    ("hyper", &["http", "clickhouse"]),
    ("hyper_util", &["http", "clickhouse"]),
    ("http_body_util", &["http", "clickhouse"]),
    ("tokio", &["http", "clickhouse"]),
    ("tokio_openssl", &["http", "clickhouse"]),
    ("openssl", &["http", "clickhouse"]),
];

/// Rooms that neither wait nor look at a clock: the same input gives the same bytes.
const PURE: &[&str] = &["record", "pipeline", "task", "window", "state"];
const IMPURE: &[(&str, &str)] =
    &[("Instant", "now"), ("SystemTime", "now"), ("thread", "sleep"), ("std", "net"), ("std", "fs")];

/// A file of the repository.
pub(crate) struct File<'a> {
    /// From the top folder, with `/`.
    pub path: &'a str,
    /// All of it.
    pub text: &'a str,
}

/// Everything that is wrong with a file: `path:line: what; what to do`.
pub(crate) fn check(file: &File<'_>) -> Vec<String> {
    let mut found = workplace(file);
    if file.path.ends_with(".rs") {
        let tokens = tokens(file.text);
        found.extend(unfinished(file, &tokens));
        found.extend(dangerous(file, &tokens));
        if !GENERATED.contains(&file.path) {
            found.extend(long_file(file));
            found.extend(long_functions(file, &tokens));
            found.extend(undocumented(file));
        }
        if let Some(room) = room(file.path) {
            let own = without_tests(file.path, &tokens);
            found.extend(arrows(file, room, own));
            found.extend(foreign_crates(file, room, own));
            found.extend(impure(file, room, own));
        }
    }
    if file.path == "xtask/Cargo.toml" {
        found.extend(heavy_xtask(file));
    }
    found
}

fn say(file: &File<'_>, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", file.path)
}

/// The room of the host that a file belongs to; none for what stands above them.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("host/src/")?;
    Some(inside.split_once('/').map_or(inside.trim_end_matches(".rs"), |(room, _)| room))
}

/// Tests may reach into any room: they are cut off where they start.
fn without_tests<'a>(path: &str, tokens: &'a [Token]) -> &'a [Token] {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.ends_with("tests.rs") || path.contains("/tests/") {
        return &[];
    }
    let test = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let end = tokens.windows(test.len()).position(|window| window.iter().zip(test).all(|(t, text)| t.text == text));
    // A module of another file is no end: what follows it counts.
    match end {
        Some(at) if tokens.get(at + test.len() + 1).is_some_and(|token| token.text == "{") => &tokens[..at],
        _ => tokens,
    }
}

/// Uses of rooms that this one must not know.
fn arrows(file: &File<'_>, room: &str, tokens: &[Token]) -> Vec<String> {
    if TOP.contains(&room) || ["lib", "main"].contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![say(file, 1, "a room that nobody knows; say in tests/tidy/rules.rs which rooms it may use")];
    };
    let known = |name: &str| TOP.contains(&name) || ROOMS.iter().any(|(room, _)| *room == name);
    let wrong = uses_of_own_crate(tokens)
        .into_iter()
        .filter(|used| known(&used.text) && used.text != room && !allowed.contains(&used.text.as_str()));
    let what = |used: Token| {
        let may = if allowed.is_empty() { "no other room".to_owned() } else { allowed.join(", ") };
        let what = format!("`{room}` uses `{}`, but may use only {may}; move the code, or pass a value", used.text);
        say(file, used.line, &what)
    };
    wrong.map(what).collect()
}

/// The `name` of every `crate::name`, and of every `crate::{name, other::…}`.
fn uses_of_own_crate(tokens: &[Token]) -> Vec<Token> {
    let mut used = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| token.text == "crate") {
        let [colon, other, first, rest @ ..] = &tokens[at + 1..] else { continue };
        if colon.text != ":" || other.text != ":" {
            continue;
        }
        if first.is_word() {
            used.push(first.clone());
        } else if first.text == "{" {
            used.extend(group(rest));
        }
    }
    used
}

/// The first word of each member of a group that was just opened.
fn group(tokens: &[Token]) -> Vec<Token> {
    let (mut depth, mut expects, mut words) = (1, true, Vec::new());
    for token in tokens {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => expects = depth == 1,
            _ if expects && token.is_word() => {
                words.push(token.clone());
                expects = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    words
}

/// Crates that belong to another room.
fn foreign_crates(file: &File<'_>, room: &str, tokens: &[Token]) -> Vec<String> {
    let homes = |name: &str| CRATES.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, homes)| *homes);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(homes) = homes(&token.text).filter(|homes| !homes.contains(&room)) else { continue };
        let path = tokens.get(at + 1).is_some_and(|next| next.text == ":");
        let imported = at > 0 && tokens[at - 1].text == "use";
        if path || imported {
            let homes = homes.join(" and host/src/");
            let what = format!("`{}` stays in host/src/{homes}; use the room's own types", token.text);
            found.push(say(file, token.line, &what));
        }
    }
    found
}

/// Waiting, clocks and I/O where none may be.
fn impure(file: &File<'_>, room: &str, tokens: &[Token]) -> Vec<String> {
    if !PURE.contains(&room) {
        return Vec::new();
    }
    let hit = |at: usize| {
        let next = |steps: usize| tokens.get(at + steps).map_or("", |token| token.text.as_str());
        let path = next(1) == ":" && next(2) == ":";
        IMPURE
            .iter()
            .find(|(first, second)| tokens[at].text == *first && path && (second.is_empty() || next(3) == *second))
    };
    let what = |at: usize| {
        hit(at).map(|(first, second)| {
            let name = [*first, *second].join("::").trim_end_matches(':').to_owned();
            say(file, tokens[at].line, &format!("`{name}` in `{room}`, which is pure; take the value as an argument"))
        })
    };
    (0..tokens.len()).filter_map(what).collect()
}

/// Files that are too long to read at once.
fn long_file(file: &File<'_>) -> Option<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let inline = |at: usize| {
        lines[at].trim() == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.trim_end().ends_with('{'))
    };
    let end = (0..lines.len()).find(|at| inline(*at)).unwrap_or(lines.len());
    let what =
        || format!("{end} lines, at most {FILE_LINES} (tests at the end not counted); split the file by purpose");
    (end > FILE_LINES).then(|| say(file, FILE_LINES + 1, &what()))
}

/// Functions that do not fit a screen.
fn long_functions(file: &File<'_>, tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "fn") {
        let Some(name) = tokens.get(at + 1).filter(|name| name.is_word()) else { continue };
        let Some(last) = last_line(&tokens[at..]) else { continue };
        let lines = last - token.line + 1;
        if lines > FUNCTION_LINES {
            let what = format!("`{}` has {lines} lines, at most {FUNCTION_LINES}; give its parts names", name.text);
            found.push(say(file, token.line, &what));
        }
    }
    found
}

/// The line on which the body of a function ends; none without a body.
fn last_line(tokens: &[Token]) -> Option<usize> {
    let (mut depth, mut inside) = (0_u32, 0_u32);
    for token in tokens {
        match token.text.as_str() {
            ";" if depth == 0 && inside == 0 => return None,
            "(" | "[" => inside += 1,
            ")" | "]" => inside = inside.saturating_sub(1),
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && inside == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}

/// Files that do not say what they are for.
fn undocumented(file: &File<'_>) -> Option<String> {
    let starts = file.text.trim_start().starts_with("//!");
    (!starts).then(|| say(file, 1, "the file starts without `//!`; say in a sentence what it is for"))
}

/// `unsafe` in the wrong place, or without its reason.
fn dangerous(file: &File<'_>, tokens: &[Token]) -> Vec<String> {
    let allowed = UNSAFE.iter().any(|folder| file.path.starts_with(folder));
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        if !allowed {
            found.push(say(
                file,
                token.line,
                "`unsafe` outside its rooms; use what host/src/plugin or kafka/native offer",
            ));
            continue;
        }
        // A function says in its docs what its caller owes; a block or an impl says why it holds.
        let acts = tokens.get(at + 1).is_some_and(|next| next.text == "{" || next.text == "impl");
        let above = &lines[token.line.saturating_sub(REASON_LINES + 1)..token.line.min(lines.len())];
        if acts && !GENERATED.contains(&file.path) && !above.iter().any(|line| line.contains("SAFETY")) {
            found.push(say(file, token.line, "`unsafe` without a reason; write `// SAFETY:` above it"));
        }
    }
    found
}

/// Code that was left for later.
fn unfinished(file: &File<'_>, tokens: &[Token]) -> Vec<String> {
    let macros = ["todo", "unimplemented", "dbg"];
    let bang = |pair: &[Token]| macros.contains(&pair[0].text.as_str()) && pair[1].text == "!";
    let what =
        |pair: &[Token]| say(file, pair[0].line, &format!("`{}!` is left; finish it or take it out", pair[0].text));
    tokens.windows(2).filter(|pair| bang(pair)).map(what).collect()
}

/// Paths that exist on one machine only.
fn workplace(file: &File<'_>) -> Vec<String> {
    let needle = concat!("/wo", "rk/");
    let lines = file.text.lines().enumerate().filter(|(_, line)| line.contains(needle));
    lines.map(|(at, _)| say(file, at + 1, "a path of somebody's machine; use one from the top folder")).collect()
}

/// xtask is built before anything else, also by those who only want the demo.
fn heavy_xtask(file: &File<'_>) -> Vec<String> {
    let mut section = "";
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && !line.trim().is_empty() && !line.starts_with("anyhow") {
            found.push(say(file, at + 1, "xtask uses std and anyhow only; put heavier work into a crate of its own"));
        }
    }
    found
}
