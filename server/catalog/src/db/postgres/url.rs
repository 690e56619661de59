//! Where the server is, and how it is spoken to.

use super::failed;
use super::tls::{self, Tls};
use crate::db::CatalogError;
use ::postgres::config::SslMode;
use ::postgres::{Client, Config, NoTls};
use std::path::PathBuf;
use std::time::Duration;

/// How long a connection may take to come to be.
const CONNECT: Duration = Duration::from_secs(10);

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
        let (base, options) = url.split_once('?').unwrap_or((url, ""));
        let mut rest = Vec::new();
        let mut encrypted = false;
        let mut authorities = None;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", "disable")) => encrypted = false,
                Some(("sslmode", "require" | "verify-full")) => encrypted = true,
                Some(("sslmode", other)) => {
                    return Err(CatalogError::Url(format!(
                        "sslmode is `{other}`, expected `disable`, `require` or `verify-full`"
                    )));
                }
                Some(("sslrootcert", path)) => authorities = Some(PathBuf::from(path)),
                _ => rest.push(option),
            }
        }
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
        .map_err(failed)
    }
}
