//! TLS as a client of a server.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::invalid;
use crate::error::{Error, Result};

/// What shakes hands with a server for gRPC: whom the server's certificate has to be of (the system's authorities, if nobody is named), and the
/// client's own certificate with its key.
pub fn connector(ca: Option<&PathBuf>, identity: Option<(&PathBuf, &PathBuf)>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in super::certificates(file)? {
                roots.add(certificate).map_err(|error| invalid(file, &error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            let (added, _) = roots.add_parsable_certificates(found);
            if added == 0 {
                return Err(Error::External("the system knows no authority that vouches for servers: name one".into()));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Internal(format!("TLS can't be set up: {error}")))?.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain: Vec<CertificateDer<'static>> = super::certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| invalid(key, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| invalid(cert, &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
