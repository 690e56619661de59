//! The sections of the configuration. Their keys are documented in `default.toml`, which a test compares with this.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tegula_identity::Secret;

/// All of it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: ListenSection,
    pub(crate) tls: TlsSection,
    pub(crate) database: DatabaseSection,
    pub(crate) store: StoreSection,
    pub(crate) identity: IdentitySection,
    pub(crate) policy: PolicySection,
    pub(crate) property_protection: PropertyProtectionSection,
    pub(crate) quotas: QuotasSection,
    pub(crate) formats: FormatsSection,
    pub(crate) cors: CorsSection,
    pub(crate) health: HealthSection,
    pub(crate) log: LogSection,
    pub(crate) metrics: MetricsSection,
    pub(crate) limits: LimitsSection,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenSection {
    #[serde(deserialize_with = "address")]
    pub(crate) address: SocketAddr,
    pub(crate) public_endpoint: Option<String>,
    pub(crate) trust_forwarded: bool,
}

/// An address, or an error that says what one looks like.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let expected = "expected an IP address and a port, such as 0.0.0.0:9292 or [::1]:9292";
        D::Error::custom(format!("{expected}, found `{text}`"))
    })
}

impl Default for ListenSection {
    fn default() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9292));
        Self {
            address,
            public_endpoint: None,
            trust_forwarded: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsSection {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DatabaseSection {
    pub(crate) url: DatabaseUrl,
    pub(crate) upgrade: bool,
}

/// It may hold a password, so it is shown to no one.
pub(crate) type DatabaseUrl = Secret;

impl Default for DatabaseSection {
    fn default() -> Self {
        Self {
            url: Secret::new("sqlite:tegula-data/catalog.sqlite"),
            upgrade: true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreSection {
    pub(crate) path: PathBuf,
    pub(crate) id: String,
    pub(crate) description: Option<String>,
    pub(crate) backend: Backend,
    pub(crate) zstd_level: i32,
    pub(crate) collect_every_s: u32,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            path: "tegula-data/store".into(),
            id: "tegula".to_owned(),
            description: None,
            backend: Backend::Auto,
            zstd_level: 1,
            collect_every_s: 3600,
        }
    }
}

/// How the store's files are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Backend {
    Auto,
    IoUring,
    Blocking,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IdentitySection {
    pub(crate) providers: Vec<ProviderKind>,
    pub(crate) admin_token: AdminTokenSection,
    pub(crate) tokens: Vec<TokenEntry>,
    pub(crate) keystone: KeystoneSection,
    pub(crate) headers: HeadersSection,
}

impl Default for IdentitySection {
    fn default() -> Self {
        Self {
            providers: vec![ProviderKind::AdminToken],
            admin_token: AdminTokenSection::default(),
            tokens: Vec::new(),
            keystone: KeystoneSection::default(),
            headers: HeadersSection::default(),
        }
    }
}

/// A way to know callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProviderKind {
    AdminToken,
    Tokens,
    Keystone,
    Headers,
    Open,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminTokenSection {
    pub(crate) file: PathBuf,
    pub(crate) user: String,
    pub(crate) project: String,
}

impl Default for AdminTokenSection {
    fn default() -> Self {
        Self {
            file: "tegula-data/admin-token".into(),
            user: "admin".to_owned(),
            project: "admin".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenEntry {
    pub(crate) sha256: String,
    pub(crate) user: String,
    pub(crate) project: String,
    pub(crate) roles: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeystoneSection {
    pub(crate) url: Option<String>,
    pub(crate) public_url: Option<String>,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) user_domain_name: String,
    pub(crate) user_domain_id: Option<String>,
    pub(crate) project: String,
    pub(crate) project_domain_name: String,
    pub(crate) project_domain_id: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) timeout_s: u32,
    pub(crate) questions_max: u16,
    pub(crate) cache_s: u32,
    pub(crate) cache_entries_max: u32,
    pub(crate) service_roles: Vec<String>,
}

impl Default for KeystoneSection {
    fn default() -> Self {
        Self {
            url: None,
            public_url: None,
            user: "glance".to_owned(),
            password: None,
            password_file: None,
            user_domain_name: "Default".to_owned(),
            user_domain_id: None,
            project: "service".to_owned(),
            project_domain_name: "Default".to_owned(),
            project_domain_id: None,
            ca_file: None,
            timeout_s: 10,
            questions_max: 32,
            cache_s: 300,
            cache_entries_max: 10_000,
            service_roles: vec!["service".to_owned()],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HeadersSection {
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicySection {
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PropertyProtectionSection {
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: PropertyFormat,
}

/// What the values in the file of property protections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PropertyFormat {
    #[default]
    Roles,
    Policies,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuotasSection {
    pub(crate) image_bytes_max: u64,
    pub(crate) project_bytes_max: Option<u64>,
    pub(crate) members_max: u32,
    pub(crate) properties_max: u32,
    pub(crate) tags_max: u32,
    pub(crate) locations_max: u32,
}

impl Default for QuotasSection {
    fn default() -> Self {
        Self {
            image_bytes_max: 1 << 40,
            project_bytes_max: None,
            members_max: 128,
            properties_max: 128,
            tags_max: 128,
            locations_max: 10,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FormatsSection {
    pub(crate) disk: Vec<String>,
    pub(crate) container: Vec<String>,
}

impl Default for FormatsSection {
    fn default() -> Self {
        let words = |list: &str| list.split(' ').map(str::to_owned).collect();
        Self {
            disk: words("ami ari aki vhd vhdx vmdk raw qcow2 vdi iso ploop"),
            container: words("ami ari aki bare ovf ova docker compressed"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CorsSection {
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) allow_credentials: bool,
    pub(crate) max_age_s: u32,
}

impl Default for CorsSection {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            allow_credentials: false,
            max_age_s: 3600,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthSection {
    pub(crate) disable_file: Option<PathBuf>,
    pub(crate) enable_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSection {
    pub(crate) format: LogFormat,
    pub(crate) level: Level,
    pub(crate) access: bool,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: Level::Info,
            access: true,
        }
    }
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The least important events that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsSection {
    pub(crate) access: AccessTo,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self {
            access: AccessTo::Loopback,
        }
    }
}

/// For whom something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessTo {
    Nobody,
    Loopback,
    Everybody,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsSection {
    pub(crate) connections_max: u32,
    pub(crate) workers_max: u16,
    pub(crate) transfers_max: u16,
    pub(crate) page_default: u32,
    pub(crate) page_max: u32,
    pub(crate) json_bytes_max: u32,
    pub(crate) head_bytes_max: u32,
    pub(crate) headers_max: u32,
    pub(crate) request_id_bytes_max: u32,
    pub(crate) head_timeout_s: u32,
    pub(crate) json_timeout_s: u32,
    pub(crate) stall_timeout_s: u32,
    pub(crate) drain_timeout_s: u32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            workers_max: 512,
            transfers_max: 256,
            page_default: 25,
            page_max: 1000,
            json_bytes_max: 1 << 20,
            head_bytes_max: 128 << 10,
            headers_max: 100,
            request_id_bytes_max: 64,
            head_timeout_s: 30,
            json_timeout_s: 30,
            stall_timeout_s: 120,
            drain_timeout_s: 60,
        }
    }
}
