//! Whose certificates are good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::settings::KeystoneError;

/// The authorities that a server's certificate must come from. There is no way to do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchors {
    /// Those that the system trusts.
    System,
    /// Those of a PEM file, and no others.
    File(PathBuf),
}

impl TrustAnchors {
    /// A client's configuration that trusts these.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, KeystoneError> {
        config(match self {
            Self::System => system_roots()?,
            Self::File(path) => roots_of(path)?,
        })
    }
}

/// A client's configuration that trusts no one: for connections without TLS.
pub(crate) fn without_trust() -> Result<ClientConfig, KeystoneError> {
    config(RootCertStore::empty())
}

fn config(roots: RootCertStore) -> Result<ClientConfig, KeystoneError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, KeystoneError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A bundle of a system may hold some that the library does not take; the others are good.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let cause = found
        .errors
        .first()
        .map_or_else(|| "there are none".to_owned(), ToString::to_string);
    Err(KeystoneError::Certificates {
        place: "the system".to_owned(),
        cause,
    })
}

fn roots_of(path: &Path) -> Result<RootCertStore, KeystoneError> {
    let refuse = |cause: String| KeystoneError::Certificates {
        place: path.display().to_string(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        Err(refuse("there is no certificate in it".to_owned()))
    } else {
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        for path in [
            "/nonexistent/ca.pem",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ] {
            let error = TrustAnchors::File(path.into())
                .client_config()
                .unwrap_err()
                .to_string();
            assert!(error.contains(path), "{error}");
        }
    }
}
