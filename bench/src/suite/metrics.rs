//! `metrics`: what it costs to measure. The same records with everything off, and with metrics, data quality and a scrape a
//! second; in interleaved rounds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Setting;
use super::contender::{Contender, Run};
use super::end_to_end::one_run;
use super::report::{Row, median};
use crate::Args;

const BENCH: &str = "metrics";
const INPUT: &str = "my_events";
const MILLSTREAM: Contender = Contender::Millstream { exactly_once: true };
/// Far more often than anybody scrapes in earnest.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
const QUALITY: &str = "quality: {event_time: {field: /timestamp, encoding: epoch_s}, fields: {/user_id: 1%}}";
/// Other programs only ever add to what a run costs, so that the least of some runs is closest to the truth.
const LEAST: &str = "least_cpu_s_per_million";
const OFF: &str = "observe: off\nadmin: off\n";

pub(super) fn run(setting: &Setting, args: &Args) -> Result<Vec<Row>> {
    let records: u64 = args.get("records", 2_000_000)?;
    let rounds: u64 = args.get("rounds", 5)?;
    setting.ask_broker("topics", &[("create", &format!("{INPUT}:4"))])?;
    setting.ask_broker("load", &[("topic", INPUT), ("records", &records.to_string())])?;
    let names = ["off", "metrics", "metrics and data quality"];
    let mut cpu: [Vec<f64>; 3] = Default::default();
    for round in 1..=rounds {
        for (at, name) in names.iter().enumerate() {
            let label = format!("metrics-{at}-{round}-{}", std::process::id());
            let mut run = Run::new(setting, MILLSTREAM, INPUT, &label)?;
            let port = free_port()?;
            let quality = if at == 2 { QUALITY } else { "" };
            let on = format!("observe: {{listen: '{port}'}}\nadmin: off\n{quality}\n");
            run.more = if at == 0 { OFF.to_owned() } else { on };
            let scraped = (at > 0).then_some(port);
            let figures = scraping(scraped, || one_run(setting, &run, MILLSTREAM, records))?;
            eprintln!("round {round} of {rounds}: {name}: {:.2} CPU s a million", figures[0]);
            cpu[at].push(figures[0]);
            run.clean_up()?;
        }
    }
    let row = |(name, cpu): (&&str, Vec<f64>)| {
        let least = cpu.iter().copied().fold(f64::INFINITY, f64::min);
        let figures = vec![("cpu_s_per_million", median(cpu)), (LEAST, least)];
        Row::new(BENCH, format!("millstream, {name}"), figures)
    };
    let mut rows: Vec<Row> = names.iter().zip(cpu).map(row).collect();
    let off = rows[0].figure(LEAST);
    rows.iter_mut().for_each(|row| row.compare(off, LEAST));
    Ok(rows)
}

/// A port that is free now.
fn free_port() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("no free port")
}

/// Does `work` while somebody scrapes, if there is somebody to be scraped.
fn scraping<T>(address: Option<SocketAddr>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(address) = address else { return work() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut scrapes = 0;
            while !done.load(Ordering::Relaxed) {
                // It answers once it has started, and no more once it has ended.
                scrapes += u32::from(scrape(address).is_ok_and(|bytes| bytes > 1_000));
                std::thread::sleep(SCRAPE_INTERVAL);
            }
            scrapes
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let scrapes = scraper.join().unwrap_or(0);
        ensure!(worked.is_err() || scrapes > 0, "it was never scraped");
        worked
    })
}

fn scrape(address: SocketAddr) -> Result<usize> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut text = Vec::new();
    Ok(stream.read_to_end(&mut text)?)
}
