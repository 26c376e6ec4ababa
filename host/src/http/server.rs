//! The listeners' thread: accepting, bounds of time and number, TLS.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;
use tokio_openssl::SslStream;

use super::answer::Door;
use super::guard::Guard;
use super::{Sender, Service};
use crate::config::{AdminConfig, Listen, ObserveConfig, TlsConfig};

/// Connections that a listener serves at a time; more get a 503.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take for its request's head, and for everything: TLS, request and response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open connections may take at the end.
const END_TIMEOUT: Duration = Duration::from_millis(200);

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Why a listener does not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address can't be listened on.
    #[error("`{listener}` can't listen on {address}: {why}")]
    Bind {
        /// Which of the two.
        listener: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        why: io::Error,
    },
    /// Certificate or key can't be used.
    #[error("`admin.tls`: {} and {} can't be used: {why}", cert.display(), key.display())]
    Tls {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// OpenSSL's reason.
        why: String,
    },
    /// No thread or runtime.
    #[error("the listeners can't start: {0}")]
    Thread(io::Error),
}

/// The running listeners; they end when this is dropped.
pub struct Server {
    observe: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A bound port with what is served there.
struct Entrance {
    listener: StdListener,
    door: Arc<Door>,
    tls: Option<SslAcceptor>,
}

impl Server {
    /// Starts the listeners that are configured. A port of a default that is taken is given up with a warning, so that
    /// several pipelines may run on one machine; one that the configuration names is an error.
    pub fn start(
        observe: Option<&ObserveConfig>,
        admin: Option<&AdminConfig>,
        service: &Arc<dyn Service>,
    ) -> Result<Self, ListenError> {
        let mut entrances = Vec::new();
        let mut addresses = [None, None];
        if let Some(config) = observe
            && let Some((listener, address)) = bind("observe", config.listen)?
        {
            addresses[0] = Some(address);
            entrances.push(Entrance { listener, door: Arc::new(Door::new(service.clone(), None)), tls: None });
        }
        if let Some(config) = admin {
            let tls = config.tls.as_ref().map(acceptor).transpose()?;
            if let Some((listener, address)) = bind("admin", config.listen)? {
                addresses[1] = Some(address);
                let door = Arc::new(Door::new(service.clone(), Some(Guard::new(config))));
                entrances.push(Entrance { listener, door, tls });
            }
        }
        let [observe, admin] = addresses;
        let mut server = Self { observe, admin, stop: None, thread: None };
        if !entrances.is_empty() {
            let (stop, stopped) = oneshot::channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
            let runtime = runtime.map_err(ListenError::Thread)?;
            let body = move || {
                LocalSet::new().block_on(&runtime, serve(entrances, stopped));
                runtime.shutdown_timeout(END_TIMEOUT);
            };
            let thread = std::thread::Builder::new().name("http".to_owned()).spawn(body);
            server.thread = Some(thread.map_err(ListenError::Thread)?);
            server.stop = Some(stop);
        }
        Ok(server)
    }

    /// Where metrics and health are served, if they are.
    pub fn observe(&self) -> Option<SocketAddr> {
        self.observe
    }

    /// Where status and control are served, if they are.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread waits for the sender to go.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn bind(listener: &'static str, listen: Listen) -> Result<Option<(StdListener, SocketAddr)>, ListenError> {
    let open = || {
        let socket = StdListener::bind(listen.address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    match open() {
        Ok((socket, address)) => {
            tracing::info!(listener, %address, "listening");
            Ok(Some((socket, address)))
        }
        Err(why) if listen.by_default => {
            let address = listen.address;
            tracing::warn!(
                "running without `{listener}`, which can't listen on {address}: {why}; give it another port"
            );
            Ok(None)
        }
        Err(why) => Err(ListenError::Bind { listener, address: listen.address, why }),
    }
}

fn acceptor(config: &TlsConfig) -> Result<SslAcceptor, ListenError> {
    let make = || {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        builder.set_certificate_chain_file(&config.cert)?;
        builder.set_private_key_file(&config.key, SslFiletype::PEM)?;
        builder.check_private_key()?;
        Ok(builder.build())
    };
    make().map_err(|why: openssl::error::ErrorStack| ListenError::Tls {
        cert: config.cert.clone(),
        key: config.key.clone(),
        why: why.to_string(),
    })
}

async fn serve(entrances: Vec<Entrance>, stopped: oneshot::Receiver<()>) {
    for entrance in entrances {
        tokio::task::spawn_local(accept(entrance));
    }
    // Ends when the sender goes.
    let _ = stopped.await;
}

async fn accept(entrance: Entrance) {
    let Entrance { listener, door, tls } = entrance;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(why) => return tracing::error!("a listener ends: {why}"),
    };
    let (tls, free) = (Arc::new(tls), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = free.clone().try_acquire_owned() else {
            // What does not fit into the socket's buffer is not worth waiting for.
            let _ = stream.try_write(BUSY);
            continue;
        };
        let (door, tls) = (door.clone(), tls.clone());
        let sender = Sender { address: address.ip() };
        tokio::task::spawn_local(async move {
            // Who does not finish in time, or breaks off, has nothing to complain about.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, welcome(stream, (door, sender), &tls)).await;
            drop(place);
        });
    }
}

async fn welcome(stream: TcpStream, door: (Arc<Door>, Sender), tls: &Option<SslAcceptor>) {
    let Some(acceptor) = tls else { return converse(TokioIo::new(stream), door).await };
    let Ok(mut stream) = Ssl::new(acceptor.context()).and_then(|ssl| SslStream::new(ssl, stream)) else { return };
    if let Ok(Ok(())) = tokio::time::timeout(HEAD_TIMEOUT, Pin::new(&mut stream).accept()).await {
        converse(TokioIo::new(stream), door).await;
    }
}

/// One request and its response.
async fn converse(io: impl Read + Write + Unpin + 'static, (door, sender): (Arc<Door>, Sender)) {
    let answer = service_fn(move |request| {
        let (door, sender) = (door.clone(), sender.clone());
        async move { door.answer(request, &sender).await }
    });
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX);
    if let Err(why) = connection.serve_connection(io, answer).await {
        tracing::debug!("a connection broke off: {why}");
    }
}
