//! The section `tls`: the server's certificate, and changing it while serving.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{Config, ConfigError};

/// TLS as the configuration wants it.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    certificate: Arc<Current>,
}

impl Tls {
    /// Reads certificate and key; `None` if the configuration names neither.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if it names one of them only, or they cannot be read or do not belong together.
    pub(crate) fn load(config: &Config) -> Result<Option<Self>, ConfigError> {
        let (certificate, key) = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(ConfigError::value(
                    "tls.key",
                    "not set, though `tls.certificate` is",
                ));
            }
            (None, Some(_)) => {
                return Err(ConfigError::value(
                    "tls.certificate",
                    "not set, though `tls.key` is",
                ));
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = Files { certificate, key };
        let current = Arc::new(Current {
            key: RwLock::new(files.read(&provider)?),
            files,
            provider: Arc::clone(&provider),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::value("tls", error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self {
            config: Arc::new(config),
            certificate: current,
        }))
    }

    /// What connections are accepted with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads certificate and key again, for connections from now on.
    ///
    /// # Errors
    /// As [`Tls::load`]; those from before are kept then.
    pub(crate) fn reload(&self) -> Result<(), ConfigError> {
        let key = self.certificate.files.read(&self.certificate.provider)?;
        *self
            .certificate
            .key
            .write()
            .unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

/// The certificate that is shown now.
#[derive(Debug)]
struct Current {
    key: RwLock<Arc<CertifiedKey>>,
    files: Files,
    provider: Arc<CryptoProvider>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.key.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, ConfigError> {
        let chain = certificates(&self.certificate)?;
        let refuse =
            |text: String| ConfigError::value("tls.key", format!("{}: {text}", self.key.display()));
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| refuse(error.to_string()))?;
        // Also finds out whether the key is that of the certificate.
        let key = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Arc::new(key))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let refuse =
        |text: String| ConfigError::value("tls.certificate", format!("{}: {text}", path.display()));
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| refuse(error.to_string()))?;
    if chain.is_empty() {
        Err(refuse("there is no certificate in it".to_owned()))
    } else {
        Ok(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../identity/tests/tls/server.pem"
    );
    const KEY: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../identity/tests/tls/server.key"
    );
    const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../identity/tests/tls/ca.pem");

    fn load(certificate: Option<&str>, key: Option<&str>) -> Result<Option<Tls>, String> {
        let mut config = Config::default();
        config.tls.certificate = certificate.map(Into::into);
        config.tls.key = key.map(Into::into);
        Tls::load(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_and_its_key_are_taken_and_nothing_else() {
        assert!(load(None, None).unwrap().is_none());
        assert!(load(Some(CERTIFICATE), Some(KEY)).unwrap().is_some());
        for (certificate, key, named) in [
            (Some(CERTIFICATE), None, "tls.key"),
            (None, Some(KEY), "tls.certificate"),
            (Some("/nonexistent"), Some(KEY), "/nonexistent"),
            (Some(CERTIFICATE), Some("/nonexistent"), "/nonexistent"),
            (Some(KEY), Some(KEY), "tls.certificate"),
            (Some(CERTIFICATE), Some(CERTIFICATE), "tls.key"),
            (Some(OTHER), Some(KEY), "tls.key"),
        ] {
            let error = load(certificate, key).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_certificate_that_went_bad_does_not_replace_the_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::copy(CERTIFICATE, path("certificate")).unwrap();
        std::fs::copy(KEY, path("key")).unwrap();
        let tls = load(Some(&path("certificate")), Some(&path("key")))
            .unwrap()
            .unwrap();
        let shown = || Arc::clone(&tls.certificate.key.read().unwrap());
        let before = shown();
        std::fs::write(path("certificate"), "").unwrap();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &shown()));
        std::fs::copy(CERTIFICATE, path("certificate")).unwrap();
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &shown()));
    }
}
