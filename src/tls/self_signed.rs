//! A certificate for whoever has none: made once, with an authority of its own that clients can be told to trust.

use std::{
    io::Write,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::TlsFiles;
use crate::error::{Error, Result};

/// How long it is good for.
const YEARS: i32 = 10;

/// What was made.
#[derive(Debug)]
pub struct SelfSigned {
    /// What the server needs.
    pub files: TlsFiles,
    /// The authority's certificate: what clients have to trust.
    pub ca: PathBuf,
}

/// The certificate in a data directory, made if there is none, for this machine by its usual names and these addresses.
pub fn self_signed(data_dir: &Path, addresses: &[IpAddr]) -> Result<SelfSigned> {
    let folder = data_dir.join("tls");
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    let made = SelfSigned { files: TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: None }, ca: ca.clone() };
    if [&ca, &cert, &key].iter().all(|file| file.exists()) {
        return Ok(made);
    }
    let failed = |error: &dyn std::fmt::Display| Error::External(format!("no certificate could be made in {}: {error}", folder.display()));
    let texts = make(addresses).map_err(|error| failed(&error))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| failed(&error))?;
    for (file, text) in [&ca, &cert, &key].into_iter().zip(texts) {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
        let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(|error| failed(&error))?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(|error| failed(&error))?;
    }
    Ok(made)
}

/// The authority's certificate, the server's and the server's key. The authority's key is forgotten: nothing else can be signed with it.
fn make(addresses: &[IpAddr]) -> std::result::Result<[String; 3], rcgen::Error> {
    let today = chrono::Utc::now().date_naive();
    let year = chrono::Datelike::year(&today);
    let (from, to) = (rcgen::date_time_ymd(year - 1, 1, 1), rcgen::date_time_ymd(year + YEARS, 1, 1));
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, "Tidegate self-signed authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (from, to);
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();

    let mut names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into(), "::1".into()];
    names.extend(addresses.iter().filter(|address| !address.is_unspecified()).map(ToString::to_string));
    // The machine's own name, if it is one that a certificate can have.
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    if !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
        names.push(host);
    }
    names.sort();
    names.dedup();
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "Tidegate");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = (from, to);
    let key = KeyPair::generate()?;
    let cert = server.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
    Ok([ca, cert, key.serialize_pem()])
}
