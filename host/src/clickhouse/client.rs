//! Requests to one server over HTTP.
//!
//! Written on hyper rather than on the `clickhouse` crate, because delivery depends on what that hides: the status and
//! the exception's code of a refused insert, whether a request was sent at all, and the exact settings of each one. It
//! would also bring a second TLS stack; this one uses OpenSSL, as all of Millstream does.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_ENCODING, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use openssl::ssl::{Ssl, SslConnector, SslMethod};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{RequestError, code_of};
use crate::config::{ClickHouseConfig, Secret, server_address};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is not used again: the server may be about to close it (by default after 10 s or
/// 30 s), and an insert that was sent into a closing connection has an outcome that nobody knows.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The most bytes of an error's text that are kept.
const ERROR_BYTES_MAX: usize = 2048;

/// Why there can be no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error("`{0}` is no address of a server: expected http://HOST:PORT or https://HOST:PORT, without a path")]
    Address(String),
    /// The user or password can't be sent.
    #[error("the ClickHouse user or password has characters that no HTTP header can carry")]
    Credentials,
    /// TLS can't be set up.
    #[error("TLS to ClickHouse can't be set up: {0}")]
    Tls(String),
    /// There is no runtime for it.
    #[error("no client for ClickHouse: {0}")]
    Runtime(String),
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end_matches('\n').to_owned()
    }
}

/// A body that is ready to be sent, again and again if need be.
#[derive(Clone, Debug)]
pub struct Body {
    bytes: Bytes,
    is_compressed: bool,
}

impl Body {
    /// Bytes as they are.
    pub(super) fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes: Bytes::from(bytes), is_compressed: false }
    }

    /// Parts, one after another, that are compressed with lz4 first, as a frame that carries a checksum.
    pub(super) fn lz4(parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let info =
            lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max1MB).content_checksum(true);
        let mut frame = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::with_capacity(length / 2 + 64));
        let written = parts.iter().try_for_each(|part| frame.write_all(part)).ok().and_then(|()| frame.finish().ok());
        // Writing to memory does not fail; if it did, the bytes themselves are as good.
        written.map_or_else(
            || Self::plain(parts.concat()),
            |frame| Self { bytes: Bytes::from(frame), is_compressed: true },
        )
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True where there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// One server, as one user. It is used from one thread, within a tokio runtime; it keeps one connection.
pub struct Client {
    host: String,
    port: u16,
    tls: Option<SslConnector>,
    user: Option<HeaderValue>,
    password: Option<HeaderValue>,
    request_timeout: Duration,
    idle: RefCell<Option<(SendRequest<Full<Bytes>>, Instant)>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.address())
    }
}

impl Client {
    /// A client by the configuration; nothing is sent yet.
    pub fn new(config: &ClickHouseConfig) -> Result<Self, ClientError> {
        let (is_tls, host, port) =
            server_address(&config.url).ok_or_else(|| ClientError::Address(config.url.clone()))?;
        let tls = is_tls.then(|| connector(config.ca.as_ref())).transpose()?;
        let header = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| ClientError::Credentials)?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self {
            host,
            port,
            tls,
            user: config.user.as_deref().map(header).transpose()?,
            password: config.password.as_ref().map(Secret::expose).map(header).transpose()?,
            request_timeout: config.request_timeout,
            idle: RefCell::new(None),
        })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The answer to a query; `parameters` are the values of its `{name:Type}`.
    pub async fn query(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<Answer, RequestError> {
        let parameters: Vec<(String, &str)> =
            parameters.iter().map(|(name, value)| (format!("param_{name}"), *value)).collect();
        let pairs = parameters.iter().map(|(name, value)| (name.as_str(), *value));
        // The answer is whole before its status is sent, so that a failure in the middle is one.
        let path = path(pairs.chain([("wait_end_of_query", "1")]));
        self.send(&path, &Body::plain(sql.as_bytes().to_vec())).await
    }

    /// Sends a request whose parameters are in `path`, within the time that requests have.
    pub(super) async fn send(&self, path: &str, body: &Body) -> Result<Answer, RequestError> {
        let answer = timeout(self.request_timeout, self.exchange(path, body)).await;
        answer.unwrap_or_else(|_| {
            Err(self.no_answer(format!("no answer within {} s", self.request_timeout.as_secs_f64())))
        })
    }

    async fn exchange(&self, path: &str, body: &Body) -> Result<Answer, RequestError> {
        let request = self.request(path, body)?;
        let mut kept = self.idle.borrow_mut().take().filter(|(_, since)| since.elapsed() < IDLE_MAX);
        if let Some((sender, _)) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some((sender, _)) => sender,
            None => self.connect().await?,
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            // It was never sent: the connection closed in the moment before.
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    sender = self.connect().await?;
                    sender.send_request(request).await.map_err(|error| self.no_answer(chain(&error)))?
                }
                None => return Err(self.no_answer(chain(&error.into_error()))),
            },
        };
        let answer = self.read(response).await;
        if !matches!(answer, Err(RequestError::NoAnswer { .. })) {
            *self.idle.borrow_mut() = Some((sender, Instant::now()));
        }
        answer
    }

    fn request(&self, path: &str, body: &Body) -> Result<Request<Full<Bytes>>, RequestError> {
        let mut request = Request::post(path).header(HOST, self.address());
        let names = [("X-ClickHouse-User", &self.user), ("X-ClickHouse-Key", &self.password)];
        for (name, value) in names {
            if let Some(value) = value {
                request = request.header(name, value.clone());
            }
        }
        if body.is_compressed {
            request = request.header(CONTENT_ENCODING, "lz4");
        }
        request.body(Full::new(body.bytes.clone())).map_err(|error| self.no_answer(error.to_string()))
    }

    async fn read(&self, response: Response<hyper::body::Incoming>) -> Result<Answer, RequestError> {
        let status = response.status();
        let code = response.headers().get("X-ClickHouse-Exception-Code");
        let code = code.and_then(|code| code.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.no_answer(format!("the answer was cut: {error}")))?.to_bytes();
        if status.is_success() && code.is_none() {
            return Ok(Answer { body: body.to_vec() });
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_BYTES_MAX)]).trim().to_owned();
        Err(RequestError::Answered { status: status.as_u16(), code: code.or_else(|| code_of(&text)), text })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RequestError> {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port))).await;
        let stream = connecting
            .map_err(|_| self.no_answer(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|error| self.no_answer(error.to_string()))?;
        // A delayed packet costs more than a small one; where this can't be set, nothing is lost.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.open(stream).await };
        let failed = |error: String| self.no_answer(format!("TLS: {error}"));
        let ssl: Ssl = tls
            .configure()
            .and_then(|configuration| configuration.into_ssl(&self.host))
            .map_err(|error| failed(error.to_string()))?;
        let mut stream = tokio_openssl::SslStream::new(ssl, stream).map_err(|error| failed(error.to_string()))?;
        Pin::new(&mut stream).connect().await.map_err(|error| failed(chain(&error)))?;
        self.open(stream).await
    }

    async fn open<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, RequestError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.no_answer(chain(&error)))?;
        // It ends with the sender; what goes wrong is told to whoever waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    fn no_answer(&self, why: String) -> RequestError {
        RequestError::NoAnswer { address: self.address(), why }
    }
}

fn connector(ca: Option<&PathBuf>) -> Result<SslConnector, ClientError> {
    let failed = |error: String| ClientError::Tls(error);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|error| failed(error.to_string()))?;
    if let Some(file) = ca {
        builder.set_ca_file(file).map_err(|error| failed(format!("{}: {error}", file.display())))?;
    }
    Ok(builder.build())
}

/// `/?name=value&…`
pub(super) fn path<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut path = "/?".to_owned();
    for (name, value) in pairs {
        if !path.ends_with('?') {
            path.push('&');
        }
        escape(name, &mut path);
        path.push('=');
        escape(value, &mut path);
    }
    path
}

fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// An error with what is behind it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped() {
        assert_eq!(path([("a", "1"), ("b c", "ä&=")].into_iter()), "/?a=1&b%20c=%C3%A4%26%3D");
    }

    #[test]
    fn a_compressed_body_is_a_frame_of_lz4() {
        let bytes = b"millstream ".repeat(1000);
        let body = Body::lz4(&[&bytes[..5], &bytes[5..]]);
        assert!(body.is_compressed && body.len() < bytes.len() / 10);
        let mut back = Vec::new();
        let read = std::io::Read::read_to_end(&mut lz4_flex::frame::FrameDecoder::new(&body.bytes[..]), &mut back);
        assert_eq!((read.ok(), back == bytes), (Some(bytes.len()), true));
    }

    #[test]
    fn a_client_says_nothing_of_its_secrets() {
        let mut config = ClickHouseConfig::new("http://h:1", "d", "t");
        config.password = Some(Secret::new("hunter2"));
        let client = Client::new(&config).expect("a client");
        assert_eq!(format!("{client:?}"), "Client(h:1)");
        config.password = Some(Secret::new("new\nline"));
        assert_eq!(Client::new(&config).err(), Some(ClientError::Credentials));
    }
}
