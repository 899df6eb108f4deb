//! TLS for what is served: certificates from files, read again on request; and connections, plain or over TLS.
//!
//! * `transport`: what a connection is read from and written to.
//! * `incoming`: accepts connections and shakes hands, so that a slow client holds up nobody else.
//! * `connector`: the client's side.
//! * `self_signed`: a certificate and the authority that vouches for it, for whoever has none.
//!
//! Knows neither what is served nor to whom.

mod connector;
mod incoming;
mod self_signed;
mod transport;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

pub use connector::connector;
pub use incoming::Incoming;
pub use self_signed::self_signed;
pub use transport::Transport;

use crate::error::{Error, Result};

/// The files that TLS is made of, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities whose clients are let in; `None`: a client needs no certificate.
    pub client_ca: Option<PathBuf>,
}

/// TLS as it is now.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>> {
        let current = RwLock::new(Arc::new(configured(&files)?));
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again: for connections that come from now on. If they can't be used, all stays as it is.
    pub fn reload(&self) -> Result<()> {
        let fresh = Arc::new(configured(&self.files)?);
        *self.current.write() = fresh;
        Ok(())
    }

    /// What shakes hands with the next connection, for this protocol (`h2`, `http/1.1`).
    fn acceptor(&self, protocol: &[u8]) -> TlsAcceptor {
        let current = self.current.read().clone();
        let mut config = (*current).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn invalid(file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("{} can't be used for TLS: {why}", file.display()))
}

/// The certificates in a file; never none.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(file).and_then(|found| found.collect::<std::result::Result<Vec<_>, _>>());
    match found.map_err(|error| invalid(file, &error))? {
        none if none.is_empty() => Err(invalid(file, &"it holds no certificate in PEM")),
        found => Ok(found),
    }
}

fn configured(files: &TlsFiles) -> Result<ServerConfig> {
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| invalid(&files.key, &error))?;
    let chain = certificates(&files.cert)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Internal(format!("TLS can't be set up: {error}")))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| invalid(file, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| invalid(file, &error))?)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| invalid(&files.cert, &error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_none_are_named_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = self_signed(folder.path(), &[]).unwrap().files;
        let tls = Tls::load(files.clone()).unwrap();
        let before = Arc::as_ptr(&tls.current.read());
        std::fs::write(&files.cert, "nonsense").unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        assert_eq!(Arc::as_ptr(&tls.current.read()), before);
        let missing = TlsFiles { key: folder.path().join("no.pem"), ..files };
        assert!(Tls::load(missing).unwrap_err().to_string().contains("no.pem"));
    }

    #[test]
    fn what_was_made_is_used_again() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let made = self_signed(folder.path(), &[]).unwrap();
        let ca = std::fs::read(&made.ca).unwrap();
        assert_eq!(std::fs::metadata(&made.files.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(self_signed(folder.path(), &[]).unwrap().ca).unwrap(), ca);
        // Half of it, as a crash may leave it, is made anew as a whole.
        std::fs::remove_file(&made.files.key).unwrap();
        let again = self_signed(folder.path(), &["10.0.0.1".parse().unwrap()]).unwrap();
        assert_ne!(std::fs::read(&again.ca).unwrap(), ca);
        Tls::load(TlsFiles { client_ca: Some(again.ca), ..again.files }).unwrap();
    }
}
