//! A client of the `admin` listener, for the command line: one request a connection, everything bounded.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod};

use crate::config::Secret;

/// How long connecting, sending, and each wait for an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error("`{0}` is no address: expected http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// Nobody answers.
    #[error("{address} does not answer: {why}")]
    Connection {
        /// Who was asked.
        address: String,
        /// What happened.
        why: String,
    },
    /// The answer is a refusal.
    #[error("{status}: {text}")]
    Refused {
        /// The status code.
        status: u16,
        /// What the server says.
        text: String,
    },
}

/// Asks one `admin` listener.
pub struct Client {
    host: String,
    port: u16,
    tls: bool,
    token: Option<Secret>,
    ca_pem: Option<Vec<u8>>,
    patience: Duration,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Client {
    /// A client for `http://HOST:PORT` or `https://HOST:PORT`, whose certificate the system or the file `ca` vouches for.
    pub fn new(url: &str, token: Option<Secret>, ca: Option<&Path>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.to_owned();
        let failed = |why: io::Error| ClientError::Connection { address: url.to_owned(), why: why.to_string() };
        let ca_pem = ca.map(std::fs::read).transpose().map_err(failed)?;
        Ok(Self { host, port, tls, token, ca_pem, patience: TIMEOUT })
    }

    /// The same client, which waits as long for each part of an answer.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The body of the answer to a GET.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.ask("GET", path, None)
    }

    /// The body of the answer to a GET of a path with one parameter, whose value is escaped.
    pub fn get_with(&self, path: &str, (name, value): (&str, &str)) -> Result<Vec<u8>, ClientError> {
        self.ask("GET", &format!("{path}?{name}={}", super::routes::escaped(value)), None)
    }

    /// The body of the answer to a request that sends `body`, of this content type.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        self.ask(method, path, Some((content_type, body)))
    }

    fn ask(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<Vec<u8>, ClientError> {
        let address = format!("{}:{}", self.host, self.port);
        let failed = |why: String| ClientError::Connection { address: address.clone(), why };
        let mut stream = self.connect(&address).map_err(failed)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {}\r\n", token.expose());
        }
        if let Some((content_type, body)) = body {
            head += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut answer = Vec::new();
        let mut talk = || -> io::Result<()> {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.map_or(&[], |(_, body)| body))?;
            stream.flush()?;
            (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map(drop)
        };
        // A server that refuses a body may close before it has read all of it: its answer counts.
        let talked = talk();
        match parse(&answer) {
            Some((200..=299, body)) => Ok(body.to_vec()),
            Some((status, body)) => {
                Err(ClientError::Refused { status, text: String::from_utf8_lossy(body).trim().to_owned() })
            }
            None => Err(failed(talked.err().map_or("no HTTP answer".to_owned(), |why| why.to_string()))),
        }
    }

    fn connect(&self, address: &str) -> Result<Box<dyn Stream>, String> {
        let text = |why: io::Error| why.to_string();
        let mut last = "no address".to_owned();
        for address in address.to_socket_addrs().map_err(text)? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(self.patience)).map_err(text)?;
                    stream.set_write_timeout(Some(TIMEOUT)).map_err(text)?;
                    return if self.tls { self.encrypt(stream) } else { Ok(Box::new(stream)) };
                }
                Err(why) => last = why.to_string(),
            }
        }
        Err(last)
    }

    fn encrypt(&self, stream: TcpStream) -> Result<Box<dyn Stream>, String> {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|why| why.to_string())?;
        if let Some(pem) = &self.ca_pem {
            let certificates = openssl::x509::X509::stack_from_pem(pem).map_err(|why| why.to_string())?;
            for certificate in certificates {
                builder.cert_store_mut().add_cert(certificate).map_err(|why| why.to_string())?;
            }
        }
        let host = self.host.trim_matches(['[', ']']);
        let stream = builder.build().connect(host, stream).map_err(|why| why.to_string())?;
        Ok(Box::new(stream))
    }
}

/// The status and the body of an answer that ends with its connection.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_nonsense_is_refused() {
        let client = Client::new("https://[::1]:9465/", None, None).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((client.host.as_str(), client.port, client.tls), ("[::1]", 9465, true));
        for wrong in ["localhost:9465", "ftp://a:1", "http://localhost", "http://localhost:x"] {
            assert!(matches!(Client::new(wrong, None, None), Err(ClientError::Address(_))), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\nx"), Some((404, &b"x"[..])));
        assert_eq!(parse(b"SSH-2.0"), None);
    }
}
