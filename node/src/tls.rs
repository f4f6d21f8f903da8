//! The certificate for mail programs: the administrator's files, or one that the node makes for itself.

use std::sync::Arc;

use core_types::{Disk, DiskError};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use wire::ServerTls;

use crate::config::Config;
use crate::files;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Read(std::path::PathBuf, std::io::Error),
    /// It cannot be used.
    #[error(transparent)]
    Tls(#[from] wire::TlsError),
    /// The node's own disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// None could be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// The certificate that the configuration names, or a self-signed one, made once and kept in the data directory.
pub(crate) fn server_tls(config: &Config, disk: &dyn Disk) -> Result<Arc<ServerTls>, CertificateError> {
    let (chain, key) = match &config.tls {
        Some(tls) => {
            let read = |path: &std::path::PathBuf| {
                std::fs::read(path).map_err(|error| CertificateError::Read(path.clone(), error))
            };
            (read(&tls.certificate)?, read(&tls.key)?)
        }
        None => match (files::read(disk, CERTIFICATE)?, files::read(disk, KEY)?) {
            (Some(chain), Some(key)) => (chain, key),
            _ => {
                let (chain, key) = self_signed(&config.hostname)?;
                files::write(disk, KEY, key.as_bytes())?;
                files::write(disk, CERTIFICATE, chain.as_bytes())?;
                (chain.into_bytes(), key.into_bytes())
            }
        },
    };
    Ok(Arc::new(ServerTls::from_pem(&chain, &key)?))
}

/// A self-signed certificate and its key, PEM. ECDSA P-256: some mail programs know no Ed25519 certificates.
fn self_signed(hostname: &str) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let params = CertificateParams::new(names(hostname))?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// A private authority and a certificate of it that is valid on every node, PEM: authority, certificate, key.
pub(crate) fn private_authority(hostname: &str) -> Result<(String, String, String), rcgen::Error> {
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Everpost quickstart");
    authority.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::DigitalSignature,
    ];
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names(hostname))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, hostname);
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((authority_pem, certificate.pem(), key.serialize_pem()))
}

fn names(hostname: &str) -> Vec<String> {
    let mut names = vec![
        hostname.to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.dedup();
    names
}

const CERTIFICATE: &str = "mail.pem";
const KEY: &str = "mail.key";
