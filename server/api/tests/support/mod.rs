//! A server on loopback, and a client that sends exactly what it is told.

#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "each file of tests uses what it needs"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::host_endian_bytes,
    reason = "a test that cannot go on fails here"
)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tegula_api::{AccessEntry, AccessLog, App, Drained, Parts, RandomIds, Settings};
use tegula_catalog::content::Content;
use tegula_catalog::service::{Rules, Service, TransferSettings, Transfers};
use tegula_domain::ImageId;
use tegula_domain::policy::Policy;
use tegula_domain::protection::{Format, Protection};
use tegula_domain::quota::Limits;
use tegula_engine::{BackendPreference, Clock, Engine, InitOptions, SystemClock};
use tegula_identity::{Identity, Provider, StaticToken, StaticTokens, TokenHash};
use tokio::sync::oneshot;

/// Keeps what is logged.
#[derive(Debug, Default, Clone)]
pub struct Logged(Arc<Mutex<Vec<AccessEntry>>>);

impl AccessLog for Logged {
    fn log(&self, entry: &AccessEntry) {
        self.0.lock().unwrap().push(entry.clone());
    }
}

/// What a server is started with.
#[derive(Debug, Default)]
pub struct Setup {
    pub settings: Settings,
    pub limits: Limits,
    /// A property protection file, by roles.
    pub protection: Option<&'static str>,
}

/// A server that ends with this value.
pub struct Server {
    pub address: SocketAddr,
    pub logged: Logged,
    pub service: Service,
    shutdown: Option<oneshot::Sender<()>>,
    runtime: Option<tokio::runtime::Runtime>,
    served: Option<tokio::task::JoinHandle<Drained>>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub fn start(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rules = Rules {
            policy: Arc::new(Policy::defaults()),
            protection: match setup.protection {
                Some(text) => Protection::parse(text, &Format::Roles).unwrap(),
                None => Protection::unrestricted(),
            },
        };
        let service = Service::new(
            tegula_catalog::db::open_in_memory().unwrap(),
            rules,
            Arc::clone(&clock),
            Arc::new(random_id),
            setup.limits,
        );
        let store = directory.path().join("store");
        let preference = BackendPreference::Blocking;
        let (engine, _) = Engine::init(&store, preference, InitOptions::default()).unwrap();
        let settings = TransferSettings {
            store: setup.settings.store.id.clone(),
            ..TransferSettings::default()
        };
        let transfers = Transfers::new(service.clone(), Content::new(engine), settings);
        let logged = Logged::default();
        let app = App::new(Parts {
            transfers,
            identity: Identity::new(vec![Provider::StaticTokens(tokens())]),
            settings: setup.settings,
            log: Arc::new(logged.clone()),
            clock,
            random_ids: RandomIds(random_id),
        });
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listening).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, ended) = oneshot::channel();
        let served = runtime.spawn(async move {
            let ended = async { drop(ended.await) };
            app.serve(listener, None, ended).await
        });
        Self {
            address,
            logged,
            service,
            shutdown: Some(shutdown),
            runtime: Some(runtime),
            served: Some(served),
            _directory: directory,
        }
    }

    /// Tells the server to stop; it lets go on what is under way.
    pub fn stop(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has stopped.
    pub fn stopped(&mut self) -> Drained {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(self.served.take().unwrap()).unwrap()
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Connection {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends one request on a connection of its own.
    pub fn send(
        &self,
        user: &str,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Response {
        let mut connection = self.connect();
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: images.example\r\nConnection: close\r\n");
        if !user.is_empty() {
            head.push_str(&format!("X-Auth-Token: {user}\r\n"));
        }
        let framed = headers.iter().any(|header| {
            header.starts_with("Content-Length") || header.starts_with("Transfer-Encoding")
        });
        if !framed && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        connection.write(head.as_bytes());
        connection.write(body);
        connection.response()
    }

    pub fn get(&self, user: &str, target: &str) -> Response {
        self.send(user, "GET", target, &[], b"")
    }

    pub fn post(&self, user: &str, target: &str, body: Value) -> Response {
        self.send(user, "POST", target, &[], body.to_string().as_bytes())
    }

    pub fn put(&self, user: &str, target: &str, body: Value) -> Response {
        self.send(user, "PUT", target, &[], body.to_string().as_bytes())
    }

    pub fn delete(&self, user: &str, target: &str) -> Response {
        self.send(user, "DELETE", target, &[], b"")
    }

    pub fn patch(&self, user: &str, target: &str, changes: Value) -> Response {
        let kind = "Content-Type: application/openstack-images-v2.1-json-patch";
        self.send(
            user,
            "PATCH",
            target,
            &[kind],
            changes.to_string().as_bytes(),
        )
    }

    pub fn upload(&self, user: &str, id: &str, bytes: &[u8]) -> Response {
        let target = format!("/v2/images/{id}/file");
        self.send(
            user,
            "PUT",
            &target,
            &["Content-Type: application/octet-stream"],
            bytes,
        )
    }

    /// Makes an image and returns its path.
    pub fn create(&self, user: &str, body: Value) -> String {
        let response = self.post(user, "/v2/images", body);
        assert_eq!(response.status, 201, "{response:?}");
        response.json()["self"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Each user's token is its name: two projects, `blue` and `red`, with a member and a reader each, and an administrator.
fn tokens() -> StaticTokens {
    let users = [
        ("admin", "root", "admin"),
        ("blue", "blue", "member"),
        ("blue-reader", "blue", "reader"),
        ("red", "red", "member"),
        ("nurse", "blue", "nurse"),
    ];
    let token = |(name, project, role): (&str, &str, &str)| {
        StaticToken::new(
            TokenHash::of(name),
            name,
            project,
            [role, "reader"]
                .into_iter()
                .chain((role == "nurse").then_some("member")),
        )
    };
    StaticTokens::new(users.into_iter().map(token).collect())
}

fn random_id() -> ImageId {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_ne_bytes());
    }
    ImageId::from_random(bytes)
}

pub struct Connection {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub fn write(&mut self, bytes: &[u8]) {
        // A server that has answered may close before all is sent.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads until `unread` has what `enough` finds; none at the end of the stream.
    fn fill<T>(&mut self, enough: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = enough(&self.unread) {
                return Some(found);
            }
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Reads one response, if one comes.
    pub fn try_response(&mut self) -> Option<Response> {
        let end = self.fill(|bytes| {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            end.map(|at| at + 4)
        })?;
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(0, |(_, length)| length.parse().unwrap());
        let complete = self
            .fill(|bytes| (bytes.len() >= length).then_some(()))
            .is_some();
        let body = self.unread.drain(..length.min(self.unread.len())).collect();
        Some(Response {
            status,
            headers,
            body,
            complete,
        })
    }

    pub fn response(&mut self) -> Response {
        self.try_response().expect("the server answers")
    }

    /// Whether the server has closed the connection, waiting for it.
    pub fn closed(&mut self) -> bool {
        let mut buffer = [0; 1024];
        self.unread.is_empty() && matches!(self.stream.read(&mut buffer), Ok(0))
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether as many bytes came as were announced.
    pub complete: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    pub fn json(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Logged {
    /// Waits until so many requests are logged; an answer is read before its end is noted.
    pub fn wait_for(&self, requests: usize) -> Vec<AccessEntry> {
        for _ in 0..2000 {
            let entries = self.0.lock().unwrap().clone();
            if entries.len() >= requests {
                return entries;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{requests} requests are not logged after 10 s: {self:?}");
    }
}
