//! Who may shake hands: TLS 1.3 with ring only, certificates of both sides always, no resumption and no 0-RTT, so that
//! every connection is checked in full.
//!
//! A server accepts a node whose certificate its cluster's authority issued, or the holder of a pending join token with
//! a self-signed certificate of the token's key. Membership of a node is asked after the handshake, in `accept`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use core_types::{Clock, NodeId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::identity::{CertificateName, IdentityError, NodeIdentity, NodeKey, Presented, fingerprint};
use crate::peers::Peers;

/// The protocol's name in the handshake (RFC 7301).
pub(crate) const ALPN: &[u8] = b"everpost/1";

/// Why the configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Tls(#[from] Error),
    #[error("{0}")]
    Setup(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What a node presents and accepts as a server.
pub(crate) fn server_config(
    identity: &NodeIdentity,
    peers: Arc<dyn Peers>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<QuicServerConfig>, TlsError> {
    let roots = Arc::new(roots(identity.authority_der())?);
    let nodes = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let verifier = Arc::new(NodesAndJoiners {
        nodes,
        cluster: identity.cluster(),
        peers,
    });
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), private_key(identity.key()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config)
        .map(Arc::new)
        .map_err(|error| TlsError::Setup(error.to_string()))
}

/// What a node presents and accepts as a client.
pub(crate) fn client_config(identity: &NodeIdentity, clock: Arc<dyn Clock>) -> Result<Arc<QuicClientConfig>, TlsError> {
    let verifier = Arc::new(ExpectedNode {
        authority: identity.authority_der().clone(),
        cluster: identity.cluster(),
    });
    client(verifier, identity.chain(), identity.key(), clock)
}

/// What the holder of a join token presents and accepts.
pub(crate) fn join_config(
    key: &NodeKey,
    cluster: u128,
    fingerprint: [u8; 32],
    clock: Arc<dyn Clock>,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let certificate = key.self_signed(&CertificateName::Join { cluster })?;
    client(
        Arc::new(FingerprintedCluster { cluster, fingerprint }),
        vec![certificate],
        key,
        clock,
    )
}

/// The name that a dialler asks for: it says which node must answer.
pub(crate) fn server_name(node: NodeId) -> String {
    format!("node-{node}.everpost.internal")
}

/// Checks that the authority issued the certificate and that it is good at `now`.
pub(crate) fn verify_chain(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    authority: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let algorithms = provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots(authority)?, intermediates, now, algorithms.all)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client(
    verifier: Arc<dyn ServerCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: &NodeKey,
    clock: Arc<dyn Clock>,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, private_key(key))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config)
        .map(Arc::new)
        .map_err(|error| TlsError::Setup(error.to_string()))
}

fn roots(authority: &CertificateDer<'_>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(roots)
}

fn private_key(key: &NodeKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()))
}

fn presented(certificate: &CertificateDer<'_>) -> Result<Presented, Error> {
    Presented::parse(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// Our clock, as rustls asks for it.
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().0)))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

/// How the peer proves that it has its certificate's key: the same for both sides.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    };
}

/// The rule of a server: nodes of this cluster, and holders of pending join tokens.
struct NodesAndJoiners {
    nodes: Arc<dyn ClientCertVerifier>,
    cluster: u128,
    peers: Arc<dyn Peers>,
}

impl fmt::Debug for NodesAndJoiners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodesAndJoiners")
    }
}

impl ClientCertVerifier for NodesAndJoiners {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a joiner's certificate comes from no authority.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown = presented(end_entity)?;
        if let Some(CertificateName::Join { cluster }) = shown.name {
            // Its self-signature proves nothing and is not looked at; the handshake's signature proves the key.
            let pending = shown.key.is_some_and(|key| self.peers.is_pending_token(&key));
            return if pending && cluster == self.cluster {
                Ok(ClientCertVerified::assertion())
            } else {
                Err(CertificateError::ApplicationVerificationFailure.into())
            };
        }
        self.nodes.verify_client_cert(end_entity, intermediates, now)?;
        match shown.name {
            Some(CertificateName::Node { cluster, .. }) if cluster == self.cluster => {
                Ok(ClientCertVerified::assertion())
            }
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    signatures!();
}

/// The rule of a dialling node: the node that it wanted, certified by its own authority.
#[derive(Debug)]
struct ExpectedNode {
    authority: CertificateDer<'static>,
    cluster: u128,
}

impl ServerCertVerifier for ExpectedNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_chain(end_entity, intermediates, &self.authority, now)?;
        match presented(end_entity)?.name {
            Some(CertificateName::Node { cluster, node, .. })
                if cluster == self.cluster && server_name.to_str() == self::server_name(node) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    signatures!();
}

/// The rule of a joiner: any node of the cluster whose authority the token names.
#[derive(Debug)]
struct FingerprintedCluster {
    cluster: u128,
    fingerprint: [u8; 32],
}

impl ServerCertVerifier for FingerprintedCluster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        verify_chain(end_entity, &[], authority, now)?;
        match presented(end_entity)?.name {
            Some(CertificateName::Node { cluster, .. }) if cluster == self.cluster => {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    signatures!();
}
