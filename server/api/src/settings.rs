//! What can be set.

use crate::{Cors, HealthFiles};
use std::time::Duration;

/// Who may read the metrics: they say how much the server does, not what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Nobody: the path does not exist.
    Nobody,
    /// Requests of the machine itself.
    Loopback,
    /// Everybody who reaches the server.
    Everybody,
}

/// A store, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// Its id.
    pub id: String,
    /// What it is, in words.
    pub description: Option<String>,
}

/// How the API is served. The defaults are those of the reference, or safe ones.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What links begin with, for clients behind a proxy: `https://images.example:9292`. Without it, what the request says.
    pub public_endpoint: Option<String>,
    /// Whether `X-Forwarded-Proto` and `X-Forwarded-Host` are believed: only behind a proxy that sets them.
    pub trust_forwarded: bool,
    /// Images on a page if the caller does not say.
    pub page_default: u32,
    /// Images on a page at most.
    pub page_max: u32,
    /// The disk formats that images may have.
    pub disk_formats: Vec<String>,
    /// The container formats that images may have.
    pub container_formats: Vec<String>,
    /// The store that holds the images.
    pub store: StoreEntry,
    /// Who may call from a browser's page of another origin.
    pub cors: Cors,
    /// Files that take the server out of service or put it in.
    pub health: HealthFiles,
    /// Who may read the metrics.
    pub metrics: MetricsAccess,
    /// The longest request id that is taken over from a caller, in bytes.
    pub request_id_bytes_max: usize,
    /// The longest JSON body, in bytes.
    pub json_bytes_max: usize,
    /// The longest head of a request (and what is read at once of a body), in bytes; at least 8192.
    pub head_bytes_max: usize,
    /// Headers of a request at most.
    pub headers_max: usize,
    /// Connections at the same time; more wait to be accepted.
    pub connections_max: usize,
    /// Uploads and downloads at the same time, each of which holds a thread; more are told to come again.
    pub transfers_max: usize,
    /// How long the head of a request may take to arrive, and a connection may be idle before it.
    pub head_timeout: Duration,
    /// How long a JSON body may take to arrive.
    pub json_timeout: Duration,
    /// How long nothing of an image's bytes may arrive, or be taken.
    pub stall_timeout: Duration,
    /// How long connections may go on after the server was told to stop.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let words = |list: &str| list.split(' ').map(str::to_owned).collect();
        Self {
            public_endpoint: None,
            trust_forwarded: false,
            page_default: 25,
            page_max: 1000,
            disk_formats: words("ami ari aki vhd vhdx vmdk raw qcow2 vdi iso ploop"),
            container_formats: words("ami ari aki bare ovf ova docker compressed"),
            store: StoreEntry {
                id: "tegula".to_owned(),
                description: None,
            },
            cors: Cors::default(),
            health: HealthFiles::default(),
            metrics: MetricsAccess::Loopback,
            request_id_bytes_max: 64,
            json_bytes_max: 1 << 20,
            head_bytes_max: 128 << 10,
            headers_max: 100,
            connections_max: 8192,
            transfers_max: 256,
            head_timeout: Duration::from_secs(30),
            json_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(60),
        }
    }
}
