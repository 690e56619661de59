//! Where the server is, and how it is spoken to.

use super::tls::{self, Tls};
use crate::db::CatalogError;
use ::postgres::config::SslMode;
use ::postgres::{Client, Config, NoTls};
use std::path::PathBuf;
use std::time::Duration;

/// How long a connection may take to come to be.
const CONNECT: Duration = Duration::from_secs(10);
/// How long what was sent may be without an acknowledgement of the other machine before it counts as gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// After how long without a word the other machine is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A server, as a URL names it.
#[derive(Debug)]
pub(in crate::db) struct Server {
    config: Config,
    tls: Option<Tls>,
}

impl Server {
    /// Reads a URL: `postgresql://[USER[:PASSWORD]@][HOST][:PORT][/DATABASE][?OPTIONS]`; a host that is a directory
    /// (`%2Frun%2Fpostgresql`, or `host=/run/postgresql` among the options) has a Unix socket in it. The options are libpq's,
    /// and of `sslmode` those that say what they do: `disable` (the default), and `require` or `verify-full`, which are the
    /// same here: the server's certificate must be good and of that host, by the authorities in the file `sslrootcert`, or
    /// else by those that the system trusts.
    ///
    /// # Errors
    /// [`CatalogError::Url`].
    pub(in crate::db) fn parse(url: &str) -> Result<Self, CatalogError> {
        let (base, options) = split(url);
        let mut rest = Vec::new();
        let mut encrypted = None;
        let mut authorities = None;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            // Names and values may be percent-encoded, and are the same then.
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match (decoded(name)?.as_str(), value) {
                ("sslmode", mode) => {
                    let before = encrypted.replace(is_encrypted(&decoded(mode)?)?);
                    if before.is_some_and(|before| Some(before) != encrypted) {
                        let text = "sslmode is given twice, with different values";
                        return Err(CatalogError::Url(text.to_owned()));
                    }
                }
                ("sslrootcert", path) => authorities = Some(PathBuf::from(decoded(path)?)),
                _ => rest.push(option),
            }
        }
        let encrypted = encrypted.unwrap_or(false);
        if authorities.is_some() && !encrypted {
            return Err(CatalogError::Url(
                "sslrootcert is given, but sslmode is not `require` or `verify-full`".to_owned(),
            ));
        }
        let mut config: Config =
            format!("{base}?{}", rest.join("&"))
                .parse()
                .map_err(|error: ::postgres::Error| {
                    let cause = std::error::Error::source(&error)
                        .map_or_else(|| error.to_string(), ToString::to_string);
                    CatalogError::Url(format!("the database's URL cannot be read: {cause}"))
                })?;
        config.ssl_mode(if encrypted {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNACKNOWLEDGED);
        }
        if !options.contains("keepalives") {
            config.keepalives_idle(KEEPALIVE);
            config.keepalives_interval(KEEPALIVE / 3);
            config.keepalives_retries(3);
        }
        if config.get_application_name().is_none() {
            config.application_name("tegulad");
        }
        let tls = encrypted
            .then(|| tls::trusting(authorities.as_deref()))
            .transpose()?;
        Ok(Self { config, tls })
    }

    /// A new connection.
    pub(super) fn connect(&self) -> Result<Client, CatalogError> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()),
            None => self.config.connect(NoTls),
        }
        .map_err(|error| CatalogError::Unavailable(error.into()))
    }
}

/// A URL, and its options. A password may have a `?`: the library takes all up to the first `@` for the user's.
fn split(url: &str) -> (&str, &str) {
    let host = url.find('@').unwrap_or(0);
    let mark = url.get(host..).and_then(|rest| rest.find('?'));
    mark.and_then(|mark| Some((url.get(..host + mark)?, url.get(host + mark + 1..)?)))
        .unwrap_or((url, ""))
}

/// An option's name or value, of which a `%` and two hexadecimal digits are a byte.
fn decoded(text: &str) -> Result<String, CatalogError> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let byte = piece
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => bytes.push(byte),
            // Not the text: it may be that of a password.
            None => return Err(not_encoded()),
        }
        bytes.extend(piece.bytes().skip(2));
    }
    String::from_utf8(bytes).map_err(|_| not_encoded())
}

fn not_encoded() -> CatalogError {
    let text = "an option of the database's URL is not percent-encoded UTF-8";
    CatalogError::Url(text.to_owned())
}

fn is_encrypted(mode: &str) -> Result<bool, CatalogError> {
    match mode {
        "disable" => Ok(false),
        "require" | "verify-full" => Ok(true),
        other => Err(CatalogError::Url(format!(
            "sslmode is `{other}`, expected `disable`, `require` or `verify-full`"
        ))),
    }
}
