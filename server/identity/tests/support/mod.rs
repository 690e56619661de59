//! A Keystone that does what a test tells it: raw answers over a socket of the machine itself.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use tegula_domain::{Caller, Timestamp};
use tegula_identity::{
    Credentials, Domain, Identity, IdentityError, Keystone, KeystoneSettings, Presented, Provider,
    Secret, TrustAnchors, WallClock,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the clock shows at first: 2026-11-25T00:00:00Z.
pub(crate) const START_US: i64 = 1_795_564_800_000_000;
/// When the fake's own tokens end unless a test says otherwise.
pub(crate) const TOMORROW: &str = "2026-11-26T00:00:00.000000Z";
pub(crate) const PASSWORD: &str = "canary-password";

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    pub(crate) fn is_login(&self) -> bool {
        self.method == "POST"
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status, headers, and a body of its length.
    Whole(u16, Vec<(&'static str, String)>, String),
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// The beginning of an answer, and then nothing, for ever.
    Stall,
    /// Another reply, after a while.
    After(Duration, Box<Reply>),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Whole(
            status,
            vec![],
            r#"{"error": {"message": "canary-message"}}"#.to_owned(),
        )
    }

    /// A login that succeeds with a token that ends tomorrow.
    pub(crate) fn logged_in(token: &str) -> Self {
        Self::logged_in_until(token, TOMORROW)
    }

    pub(crate) fn logged_in_until(token: &str, expires: &str) -> Self {
        Self::Whole(
            201,
            vec![("X-Subject-Token", token.to_owned())],
            token_json("service-user", expires, "", &["service"]),
        )
    }

    /// A good token of a user in project `p1`.
    pub(crate) fn member(user: &str) -> Self {
        Self::token(
            user,
            TOMORROW,
            r#""project": {"id": "p1", "name": "demo"}"#,
            &["member", "reader"],
        )
    }

    pub(crate) fn token(user: &str, expires: &str, more: &str, roles: &[&str]) -> Self {
        Self::Whole(200, vec![], token_json(user, expires, more, roles))
    }
}

pub(crate) fn token_json(user: &str, expires: &str, more: &str, roles: &[&str]) -> String {
    let roles: Vec<String> = roles
        .iter()
        .map(|role| format!(r#"{{"id": "id-{role}", "name": "{role}"}}"#))
        .collect();
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", {more}")
    };
    format!(
        r#"{{"token": {{"expires_at": "{expires}", "user": {{"id": "{user}"}}, "roles": [{}]{more}}}}}"#,
        roles.join(", ")
    )
}

/// A running fake.
pub(crate) struct FakeKeystone {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl FakeKeystone {
    /// Answers every request with what `answer` makes of it and of how many came before.
    pub(crate) async fn start(
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with("127.0.0.1:0", None, answer).await
    }

    pub(crate) async fn start_tls(
        address: &str,
        acceptor: TlsAcceptor,
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(address, Some(acceptor), answer).await
    }

    async fn start_with(
        address: &str,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&received), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (log, answer, tls) = (Arc::clone(&log), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, &log, &*answer).await,
                        Some(tls) => {
                            // A client that does not trust us breaks the handshake off.
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, &log, &*answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, received }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn logins(&self) -> usize {
        self.received()
            .iter()
            .filter(|request| request.is_login())
            .count()
    }

    pub(crate) fn validations(&self) -> usize {
        self.received().len() - self.logins()
    }
}

async fn serve(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<Received>>,
    answer: &(impl Fn(&Received, usize) -> Reply + ?Sized),
) {
    while let Some(request) = read_request(&mut socket).await {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let mut reply = answer(&request, before);
        while let Reply::After(delay, then) = reply {
            tokio::time::sleep(delay).await;
            reply = *then;
        }
        let written = match reply {
            Reply::Whole(status, headers, body) => {
                let headers: String = headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect();
                let text = format!(
                    "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                socket.write_all(text.as_bytes()).await
            }
            Reply::Raw(bytes) => {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.shutdown().await;
                return;
            }
            Reply::Silence => std::future::pending().await,
            Reply::Stall => {
                let _ = socket
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"token\":")
                    .await;
                std::future::pending().await
            }
            Reply::After(..) => unreachable!("unwrapped above"),
        };
        if written.is_err() {
            return;
        }
    }
}

async fn read_request(socket: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (
        first.next().unwrap().to_owned(),
        first.next().unwrap().to_owned(),
    );
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    while bytes.len() < head_end + 4 + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[head_end + 4..].to_vec()).unwrap();
    Some(Received {
        method,
        target,
        headers,
        body,
    })
}

/// An identity of one Keystone, and the clock it looks at.
pub(crate) struct World {
    pub(crate) identity: Identity,
    now: Arc<AtomicI64>,
}

pub(crate) fn settings(url: &str) -> KeystoneSettings {
    KeystoneSettings {
        url: url.to_owned(),
        public_url: None,
        credentials: Credentials {
            user: "glance".to_owned(),
            user_domain: Domain::Name("Default".to_owned()),
            password: Secret::new(PASSWORD),
            project: "service".to_owned(),
            project_domain: Domain::Id("default".to_owned()),
        },
        trust: TrustAnchors::System,
        timeout: Duration::from_secs(5),
        questions_max: 8,
        cache_lifetime: Duration::from_secs(300),
        cache_entries_max: 100,
        service_roles: vec!["service".to_owned()],
    }
}

impl World {
    pub(crate) fn new(settings: KeystoneSettings) -> Self {
        let now = Arc::new(AtomicI64::new(START_US));
        let shown = Arc::clone(&now);
        let clock: WallClock =
            Arc::new(move || Timestamp::from_micros(shown.load(Ordering::SeqCst)));
        let keystone = Keystone::new(settings, clock).unwrap();
        Self {
            identity: Identity::new(vec![Provider::Keystone(Arc::new(keystone))]),
            now,
        }
    }

    pub(crate) fn pass_seconds(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    pub(crate) async fn token(&self, token: &str) -> Result<Caller, IdentityError> {
        self.ask(&Method::GET, "/v2/images", &[("x-auth-token", token)])
            .await
    }

    pub(crate) async fn with_service(
        &self,
        token: &str,
        service: &str,
    ) -> Result<Caller, IdentityError> {
        self.ask(
            &Method::GET,
            "/v2/images",
            &[("x-auth-token", token), ("x-service-token", service)],
        )
        .await
    }

    pub(crate) fn ask<'a>(
        &'a self,
        method: &'a Method,
        path: &'a str,
        headers: &[(&str, &str)],
    ) -> impl Future<Output = Result<Caller, IdentityError>> + Send + 'a {
        let headers = header_map(headers);
        async move {
            ask(
                &self.identity,
                method,
                path,
                &headers,
                ([10, 9, 8, 7], 4000).into(),
            )
            .await
        }
    }
}

pub(crate) fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    map
}

pub(crate) async fn ask(
    identity: &Identity,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    peer: SocketAddr,
) -> Result<Caller, IdentityError> {
    identity
        .identify(&Presented {
            method,
            path,
            headers,
            peer,
        })
        .await
}
