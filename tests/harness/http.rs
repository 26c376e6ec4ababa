//! Talking to a millstream's listeners, also in ways that no proper client would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that a test waits for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until the log of a process says where a listener (`observe` or `admin`) is.
pub fn address(folder: &Path, name: &str, listener: &str) -> SocketAddr {
    let log = folder.join(format!("{name}.log"));
    let marks = [format!("listener=\"{listener}\" address="), format!("listener={listener} address=")];
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    let found = |text: &str| {
        let rest = marks.iter().find_map(|mark| Some(&text[text.find(mark)? + mark.len()..]))?;
        rest.split_whitespace().next()?.parse::<SocketAddr>().ok()
    };
    let address = await_some(&format!("the address of `{listener}` in {}", log.display()), || found(&text()));
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

/// Waits until `look` finds something.
#[track_caller]
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never comes: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code; 0 where the connection ended without an answer.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends exactly these bytes, and reads until the other side closes.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the listener accepts");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    // A server that turns a body away may close before it is sent.
    let _ = stream.write_all(bytes);
    rest(stream)
}

/// Reads an answer until the other side closes.
pub fn rest(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A proper request with further header lines.
pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|header| text += &format!("{header}\r\n"));
    raw(address, format!("{text}\r\n{body}").as_bytes())
}

/// A GET that must succeed.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> String {
    let answer = ask(address, "GET", path, &[], "");
    assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.head, answer.body);
    answer.body
}

/// The sum of all samples in a text of metrics whose name and labels begin with `name` and hold all of `labels`; none where
/// there is no such sample.
pub fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let of_name = metrics.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let own = sample.split('{').next() == Some(name) && labels.iter().all(|label| sample.contains(label));
        (own && !line.starts_with('#')).then(|| value.parse::<f64>().expect("a number"))
    });
    of_name.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}
