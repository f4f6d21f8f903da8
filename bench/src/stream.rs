//! One connection: TCP or TLS, lines and counted octets, each step with a time limit.
//!
//! A target on loopback is reached from several loopback addresses in turn, so that its limit of connections for one
//! address is not what is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// One address of a service.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `host:port`.
    pub(crate) address: String,
    /// How TLS is spoken from the first octet, if it is.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// One connection.
pub(crate) struct Stream {
    inner: BufReader<Box<dyn Socket>>,
}

impl Stream {
    /// Connects; `number` is the connection's own, for the choice of the loopback address.
    pub(crate) async fn connect(endpoint: &Endpoint, number: u32) -> Result<Self, String> {
        limited("connecting", Self::open(endpoint, number)).await
    }

    async fn open(endpoint: &Endpoint, number: u32) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("{}: {error}", endpoint.address);
        let address = tokio::net::lookup_host(&endpoint.address)
            .await
            .map_err(text)?
            .next()
            .ok_or_else(|| format!("{}: no address", endpoint.address))?;
        let tcp = dial(address, number).await.map_err(text)?;
        tcp.set_nodelay(true).map_err(text)?;
        let socket: Box<dyn Socket> = match &endpoint.tls {
            None => Box::new(tcp),
            Some(config) => {
                let host = endpoint
                    .address
                    .rsplit_once(':')
                    .map_or(endpoint.address.as_str(), |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
                Box::new(
                    TlsConnector::from(Arc::clone(config))
                        .connect(name, tcp)
                        .await
                        .map_err(text)?,
                )
            }
        };
        Ok(Self {
            inner: BufReader::with_capacity(READ_BUFFER_BYTES, socket),
        })
    }

    /// Sends and flushes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        limited("sending", async {
            self.inner.write_all(bytes).await.map_err(|error| error.to_string())?;
            self.inner.flush().await.map_err(|error| error.to_string())
        })
        .await
    }

    /// The next line, without its line end.
    pub(crate) async fn line(&mut self) -> Result<String, String> {
        limited("waiting for an answer", async {
            let mut line = Vec::new();
            let read = (&mut self.inner)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)
                .await
                .map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("the server closed the connection".to_owned());
            }
            if line.pop() != Some(b'\n') {
                return Err("the answer is cut or its line too long".to_owned());
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            Ok(String::from_utf8_lossy(&line).into_owned())
        })
        .await
    }

    /// Reads this many octets and forgets them.
    pub(crate) async fn skip(&mut self, bytes: u64) -> Result<(), String> {
        limited("reading a literal", async {
            let mut part = (&mut self.inner).take(bytes);
            let read = tokio::io::copy_buf(&mut part, &mut tokio::io::sink())
                .await
                .map_err(|error| error.to_string())?;
            if read == bytes {
                Ok(())
            } else {
                Err("the server closed the connection in a literal".to_owned())
            }
        })
        .await
    }
}

async fn dial(address: SocketAddr, number: u32) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let last = u8::try_from((number / CONNECTIONS_PER_SOURCE) % 250)
            .unwrap_or(0)
            .saturating_add(1);
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
    }
    socket.connect(address).await
}

async fn limited<T>(step: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(STEP_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("{step} took longer than {} s", STEP_TIMEOUT.as_secs())),
    }
}

/// How TLS is spoken: with the certificates of `ca`, or with any certificate.
pub(crate) fn tls_config(ca: Option<&Path>, insecure: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if insecure {
        let verifier = Arc::new(AnyCertificate { provider });
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth());
    }
    let path = ca.ok_or("--tls needs --ca or --insecure")?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{}: {error}", path.display()))?;
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Takes any certificate: only for measuring servers whose certificate nobody signed.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Small, since thousands of sessions may be held.
const READ_BUFFER_BYTES: usize = 4096;
const CONNECTIONS_PER_SOURCE: u32 = 50;
