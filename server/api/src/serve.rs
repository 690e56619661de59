//! Serves connections until told to stop, and then lets those under way end.

use crate::app::{App, Shared};
use crate::connection::Guarded;
use crate::dispatch::{self, Connection};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// How long to wait before accepting again when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because they did not end in time.
    pub cut_off: usize,
}

impl App {
    /// Serves the listener's connections, encrypted if `tls` is given, until `shutdown`: then accepts no more, lets answers
    /// under way end, for at most the time set, and returns.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        shutdown: impl Future<Output = ()>,
    ) -> Drained {
        let shared = &self.shared;
        let tls = tls.map(TlsAcceptor::from);
        let places = Arc::new(Semaphore::new(shared.settings.connections_max));
        let (stop, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                (place, accepted) = accepted => match accepted {
                    Ok((stream, peer)) => {
                        let serving = serve_stream(Arc::clone(shared), stream, peer, tls.clone(), stopping.clone());
                        connections.spawn(async move {
                            serving.await;
                            drop(place);
                        });
                    }
                    // The connection that was to be accepted is gone, or no descriptor is left: neither is the listener's end.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(listener);
        stop.send_replace(true);
        let end = async { while connections.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(shared.settings.drain_timeout, end).await;
        let cut_off = if in_time.is_ok() {
            0
        } else {
            connections.len()
        };
        connections.shutdown().await;
        Drained { cut_off }
    }
}

async fn serve_stream(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    stopping: watch::Receiver<bool>,
) {
    let counted = Counted::new(&shared);
    // Answers go out as they are written: waiting for more to send with them costs a client 40 ms.
    let _ = stream.set_nodelay(true);
    let settings = &shared.settings;
    match tls {
        None => {
            let secure = false;
            let stream = Guarded::new(stream, settings.stall_timeout);
            serve_connection(&shared, stream, Connection { peer, secure }, stopping).await;
        }
        Some(acceptor) => {
            let handshake = tokio::time::timeout(settings.head_timeout, acceptor.accept(stream));
            if let Ok(Ok(stream)) = handshake.await {
                let secure = true;
                let stream = Guarded::new(stream, settings.stall_timeout);
                serve_connection(&shared, stream, Connection { peer, secure }, stopping).await;
            }
        }
    }
    drop(counted);
}

async fn serve_connection<S>(
    shared: &Arc<Shared>,
    stream: S,
    from: Connection,
    mut stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &shared.settings;
    let service = service_fn(|request| {
        let answer = dispatch::answer(Arc::clone(shared), from, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(settings.head_bytes_max)
        .max_headers(settings.headers_max)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What goes wrong on a connection (the client left, or broke the protocol) ends it; hyper has answered what it could.
    tokio::select! {
        _ended = connection.as_mut() => {}
        () = async { drop(stopping.wait_for(|stop| *stop).await) } => {
            connection.as_mut().graceful_shutdown();
            let _ended = connection.await;
        }
    }
}

/// Counts a connection while it is open.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.metrics.connections.fetch_add(1, Relaxed);
        shared.metrics.accepted.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Relaxed);
    }
}
