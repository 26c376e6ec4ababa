//! Clusters that want to know who comes.

use std::time::{Duration, Instant};

use crate::room::{Pipeline, Room, broker, numbered};

const PASSWORD: &str = "alice-secret";

/// The same broker's address at another of its listeners.
fn listener(room: &Room, ports_on: u16) -> String {
    let (host, port) = room.brokers.rsplit_once(':').expect("host:port");
    format!("{host}:{}", port.parse::<u16>().expect("a port") + ports_on)
}

/// Runs a pipeline over another listener, with its properties, and everything logged that there is.
fn run_over(room: &Room, name: &str, ports_on: u16, properties: &str) -> (Option<i32>, String) {
    let config = room.config(name, Pipeline { rest: "logs: {level: trace}", ..Pipeline::default() });
    let text = std::fs::read_to_string(&config).expect("it was written");
    let text = text.replace(&room.brokers, &listener(room, ports_on));
    let text = text.replace(
        "start: earliest",
        &format!("start: earliest, properties: {{{properties}, debug: \"security,conf\"}}"),
    );
    room.command(name, &["run", &room.file(&format!("{name}.yaml"), text), "--until-end"])
}

#[test]
fn a_user_signs_in_by_scram_and_the_password_is_nowhere_to_be_read() {
    let room = Room::new("scram", 1);
    room.send(numbered(0..5));
    let ca = broker().certificates().join("ca.pem");
    let properties = |password: &str| {
        format!(
            "security.protocol: SASL_SSL, ssl.ca.location: {}, sasl.mechanism: SCRAM-SHA-512, \
             sasl.username: alice, sasl.password: \"${{file:{password}}}\"",
            ca.display()
        )
    };
    let right = room.file("password", format!("{PASSWORD}\n"));
    let (code, said) = run_over(&room, "right", 2, &properties(&right));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(room.numbers("out"), [0, 1, 2, 3, 4]);
    assert!(said.len() > 1_000 && !said.contains(PASSWORD), "{said}");

    let wrong = room.file("wrong-password", "bob-secret");
    let started = Instant::now();
    let (code, said) = run_over(&room, "wrong", 2, &properties(&wrong));
    assert_eq!(code, Some(1), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains("uthentication") && error.contains(&listener(&room, 2)), "{said}");
    assert!(!said.contains("bob-secret"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(30), "it takes {:?} to say so", started.elapsed());
}

#[test]
fn a_client_shows_its_certificate() {
    let room = Room::new("mutual", 1);
    room.send(numbered(0..5));
    let files = broker().certificates();
    let file = |name: &str| files.join(name).display().to_string();
    let without = format!("security.protocol: SSL, ssl.ca.location: {}", file("ca.pem"));
    let key = std::fs::read_to_string(file("client.key")).expect("a key");
    let with = format!(
        "{without}, ssl.certificate.location: {}, ssl.key.pem: \"${{file:{}}}\"",
        file("client.crt"),
        file("client.key")
    );
    let (code, said) = run_over(&room, "with", 3, &with);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(room.numbers("out"), [0, 1, 2, 3, 4]);
    let line = key.lines().nth(1).expect("base64");
    assert!(!said.contains(line), "the key is in the log");
    let (code, said) = run_over(&room, "without", 3, &without);
    assert_eq!(code, Some(1), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains("certificate") || error.contains("SSL"), "{said}");
}
