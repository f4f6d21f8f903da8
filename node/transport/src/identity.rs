//! Who a node is: the cluster's certificate authority, nodes' keys and certificates, and the names in them.
//!
//! Everything is Ed25519. Keys and serial numbers come from [`Entropy`], so that a simulation makes the same ones again.
//! A certificate alone makes nobody a member: the transport asks the directory for the key too, so certificates live
//! long and a removed node is refused although its certificate is good.
//!
//! Not here: files (the caller stores the bytes), the TLS rules (`tls`), join tokens (`token`).

use std::fmt;
use std::time::Duration;

use core_types::{Entropy, NodeId, SiteId, UnixMillis, codec};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{GeneralName, X509Certificate, parse_x509_certificate};

/// Why a key or certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not a key, certificate or identity.
    #[error("malformed identity: {0}")]
    Malformed(String),
    /// The certificate is for another key.
    #[error("the certificate belongs to another key")]
    KeyMismatch,
    /// The certificate was not issued by this authority, or for another cluster.
    #[error("the certificate was not issued by this cluster's authority: {0}")]
    WrongAuthority(String),
}

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment (whole seconds count).
    pub not_before: UnixMillis,
    /// The last moment (whole seconds count).
    pub not_after: UnixMillis,
}

impl Validity {
    /// From a day before `now`, since clocks of nodes differ, to `length` after it.
    #[must_use]
    pub fn starting(now: UnixMillis, length: Duration) -> Self {
        Self {
            not_before: UnixMillis(now.0.saturating_sub(24 * 3600 * 1000)),
            not_after: now.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Twenty years: membership in the directory, not time, ends a node's right to talk to the others.
    #[must_use]
    pub fn usual(now: UnixMillis) -> Self {
        Self::starting(now, Duration::from_secs(20 * 365 * 24 * 3600))
    }
}

/// A node's (or token's) Ed25519 key pair.
#[derive(Clone)]
pub struct NodeKey {
    pkcs8: Vec<u8>,
    public: [u8; 32],
}

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] when the key library refuses the seed, which no Ed25519 seed is known to cause.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, IdentityError> {
        Self::from_seed(&entropy.bytes())
    }

    /// The key that this seed gives (RFC 8032 5.1.5).
    ///
    /// # Errors
    /// As [`NodeKey::generate`].
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        let mut pkcs8 = ED25519_PKCS8_PREFIX.to_vec();
        pkcs8.extend_from_slice(seed);
        Self::from_pkcs8(&pkcs8)
    }

    /// Reads a PKCS#8 key.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] for anything but an Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, IdentityError> {
        let pair = key_pair(pkcs8)?;
        let public = pair
            .der_bytes()
            .try_into()
            .map_err(|_| IdentityError::Malformed("not an Ed25519 key".to_owned()))?;
        Ok(Self {
            pkcs8: pkcs8.to_vec(),
            public,
        })
    }

    /// The private key (PKCS#8 DER). Secret.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key: what the directory keeps.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    pub(crate) fn self_signed(&self, name: &CertificateName) -> Result<CertificateDer<'static>, IdentityError> {
        let params = leaf_params(name, None, &[1])?;
        Ok(params.self_signed(&key_pair(&self.pkcs8)?)?.der().clone())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The cluster's certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    cluster: u128,
    certificate: CertificateDer<'static>,
    key: NodeKey,
}

impl Authority {
    /// A new authority for a new cluster.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] when the certificate library refuses.
    pub fn create(cluster: u128, validity: Validity, entropy: &dyn Entropy) -> Result<Self, IdentityError> {
        let key = NodeKey::generate(entropy)?;
        let mut params = CertificateParams::default();
        set_validity(&mut params, validity);
        params.serial_number = Some(serial_number(entropy));
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Everpost cluster {cluster:032x}"));
        params.subject_alt_names = vec![san(&CertificateName::Authority { cluster })?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key_pair(key.pkcs8())?)?.der().clone();
        Ok(Self {
            cluster,
            certificate,
            key,
        })
    }

    /// Reads what [`Authority::certificate`] and [`Authority::key`] gave.
    ///
    /// # Errors
    /// [`IdentityError`] when they are malformed, do not fit together, or are no authority's.
    pub fn load(certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let key = NodeKey::from_pkcs8(key)?;
        let parsed = Presented::parse(&certificate)?;
        let Some(CertificateName::Authority { cluster }) = parsed.name else {
            return Err(IdentityError::Malformed("not an authority's certificate".to_owned()));
        };
        if parsed.key != Some(key.public()) {
            return Err(IdentityError::KeyMismatch);
        }
        Ok(Self {
            cluster,
            certificate,
            key,
        })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// The certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key (PKCS#8 DER). Secret: whoever has it can certify nodes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.pkcs8()
    }

    /// What a join token says of this authority.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// Certifies that the key is this node's.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] when the certificate library refuses.
    pub fn issue_node_certificate(
        &self,
        node_key: &[u8; 32],
        site: SiteId,
        node: NodeId,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, IdentityError> {
        let mut spki = ED25519_SPKI_PREFIX.to_vec();
        spki.extend_from_slice(node_key);
        let public = SubjectPublicKeyInfo::from_der(&spki)?;
        let name = CertificateName::Node {
            cluster: self.cluster,
            site,
            node,
        };
        let mut params = leaf_params(&name, Some(validity), &[])?;
        params.serial_number = Some(serial_number(entropy));
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, key_pair(self.key())?)?;
        Ok(params.signed_by(&public, &issuer)?.der().to_vec())
    }
}

/// What a node shows to the others: its key, its certificate and its cluster's authority.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    cluster: u128,
    site: SiteId,
    node: NodeId,
    key: NodeKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
}

impl NodeIdentity {
    /// Puts the parts together, all DER, and checks that they belong together.
    ///
    /// # Errors
    /// Any [`IdentityError`].
    pub fn new(key: NodeKey, certificate: &[u8], authority: &[u8]) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let authority = CertificateDer::from(authority.to_vec());
        let presented = Presented::parse(&certificate)?;
        let Some(CertificateName::Node { cluster, site, node }) = presented.name else {
            return Err(IdentityError::Malformed("the certificate names no node".to_owned()));
        };
        if presented.key != Some(key.public()) {
            return Err(IdentityError::KeyMismatch);
        }
        if Presented::parse(&authority)?.name != Some(CertificateName::Authority { cluster }) {
            return Err(IdentityError::WrongAuthority("it names another cluster".to_owned()));
        }
        // Checked as of its own first second: whether it is good now is asked at each handshake.
        crate::tls::verify_chain(&certificate, &[], &authority, presented.not_before)
            .map_err(|error| IdentityError::WrongAuthority(error.to_string()))?;
        Ok(Self {
            cluster,
            site,
            node,
            key,
            certificate,
            authority,
        })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// The node's site.
    #[must_use]
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The node's key pair.
    #[must_use]
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The node's certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate (DER).
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// Everything, to be kept in one file that only the node may read.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] when a certificate is absurdly large.
    pub fn to_bytes(&self) -> Result<Vec<u8>, IdentityError> {
        let stored = StoredIdentity {
            key: self.key.pkcs8.clone(),
            certificate: self.certificate.to_vec(),
            authority: self.authority.to_vec(),
        };
        codec::encode(IDENTITY_VERSION, &stored, IDENTITY_BYTES_MAX)
            .map_err(|error| IdentityError::Malformed(error.to_string()))
    }

    /// Reads what [`NodeIdentity::to_bytes`] wrote.
    ///
    /// # Errors
    /// Any [`IdentityError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let stored: StoredIdentity = codec::decode(IDENTITY_VERSION, bytes, IDENTITY_BYTES_MAX)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        Self::new(
            NodeKey::from_pkcs8(&stored.key)?,
            &stored.certificate,
            &stored.authority,
        )
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        // The authority goes along, so that a joiner can compare it with its token's fingerprint.
        vec![self.certificate.clone(), self.authority.clone()]
    }

    pub(crate) fn authority_der(&self) -> &CertificateDer<'static> {
        &self.authority
    }
}

#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    #[serde(with = "bytes_field")]
    key: Vec<u8>,
    #[serde(with = "bytes_field")]
    certificate: Vec<u8>,
    #[serde(with = "bytes_field")]
    authority: Vec<u8>,
}

/// Byte strings as one copy, in the same encoding as a sequence of bytes.
mod bytes_field {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        bytes::Bytes::deserialize(deserializer).map(|bytes| bytes.to_vec())
    }
}

/// The name in a certificate's subject alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateName {
    /// The authority itself.
    Authority { cluster: u128 },
    /// A node.
    Node { cluster: u128, site: SiteId, node: NodeId },
    /// Whoever holds a join token.
    Join { cluster: u128 },
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority { cluster } => write!(f, "authority.{cluster:032x}.{NAME_SUFFIX}"),
            Self::Node { cluster, site, node } => write!(f, "node-{node}.site-{site}.{cluster:032x}.{NAME_SUFFIX}"),
            Self::Join { cluster } => write!(f, "join.{cluster:032x}.{NAME_SUFFIX}"),
        }
    }
}

impl CertificateName {
    /// Reads what `Display` writes; `None` for any other spelling.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_suffix(NAME_SUFFIX)?.strip_suffix('.')?;
        let (front, cluster) = rest.rsplit_once('.')?;
        let cluster = u128::from_str_radix(cluster, 16).ok()?;
        let name = match front {
            "authority" => Self::Authority { cluster },
            "join" => Self::Join { cluster },
            _ => {
                let (node, site) = front.split_once('.')?;
                let node = NodeId(node.strip_prefix("node-")?.parse().ok()?);
                let site = SiteId(site.strip_prefix("site-")?.parse().ok()?);
                Self::Node { cluster, site, node }
            }
        };
        // One spelling each: no plus signs, leading zeros or capitals.
        (name.to_string() == text).then_some(name)
    }
}

/// What a certificate says, before anybody has checked whether it may.
pub(crate) struct Presented {
    pub(crate) name: Option<CertificateName>,
    /// The Ed25519 key; `None` for another kind of key.
    pub(crate) key: Option<[u8; 32]>,
    pub(crate) not_before: UnixTime,
}

impl Presented {
    pub(crate) fn parse(certificate: &[u8]) -> Result<Self, IdentityError> {
        let (rest, parsed) =
            parse_x509_certificate(certificate).map_err(|error| IdentityError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(IdentityError::Malformed("bytes after the certificate".to_owned()));
        }
        let key = parsed.public_key().raw.strip_prefix(ED25519_SPKI_PREFIX.as_slice());
        let not_before = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        Ok(Self {
            name: single_name(&parsed),
            key: key.and_then(|key| key.try_into().ok()),
            not_before: UnixTime::since_unix_epoch(Duration::from_secs(not_before)),
        })
    }
}

fn single_name(certificate: &X509Certificate<'_>) -> Option<CertificateName> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    match names.as_slice() {
        [GeneralName::DNSName(name)] => CertificateName::parse(name),
        _ => None,
    }
}

pub(crate) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    *blake3::hash(certificate).as_bytes()
}

fn leaf_params(
    name: &CertificateName,
    validity: Option<Validity>,
    serial: &[u8],
) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    if let Some(validity) = validity {
        set_validity(&mut params, validity);
    }
    if !serial.is_empty() {
        params.serial_number = Some(SerialNumber::from_slice(serial));
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "everpost");
    params.subject_alt_names = vec![san(name)?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn san(name: &CertificateName) -> Result<SanType, IdentityError> {
    Ok(SanType::DnsName(name.to_string().try_into()?))
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    // Ten thousand years at most: X.509 knows four digits, and the sum must not overflow.
    let date =
        |time: UnixMillis| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((time.0 / 1000).min(YEAR_9000));
    params.not_before = date(validity.not_before);
    params.not_after = date(validity.not_after);
}

fn serial_number(entropy: &dyn Entropy) -> SerialNumber {
    let mut serial = entropy.bytes::<16>();
    if let Some(first) = serial.first_mut() {
        // RFC 5280 4.1.2.2: positive, and the same length always.
        *first = (*first & 0x7f) | 0x40;
    }
    SerialNumber::from_slice(&serial)
}

fn key_pair(pkcs8: &[u8]) -> Result<KeyPair, IdentityError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)
        .map_err(IdentityError::from)
}

impl From<rcgen::Error> for IdentityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

const NAME_SUFFIX: &str = "everpost.internal";
const IDENTITY_VERSION: u8 = 1;
const IDENTITY_BYTES_MAX: u64 = 64 * 1024;
const YEAR_9000: u64 = 221_845_392_000;
/// RFC 8410 7: PrivateKeyInfo with an Ed25519 seed of 32 octets behind it.
const ED25519_PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// RFC 8410 4: SubjectPublicKeyInfo with an Ed25519 key of 32 octets behind it.
const ED25519_SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    fn authority(seed: u64, cluster: u128) -> Authority {
        Authority::create(
            cluster,
            Validity::usual(UnixMillis(1_790_000_000_000)),
            &Seeded::new(seed),
        )
        .unwrap()
    }

    fn identity(authority: &Authority, node: u64) -> NodeIdentity {
        let entropy = Seeded::new(node);
        let key = NodeKey::generate(&entropy).unwrap();
        let validity = Validity::usual(UnixMillis(1_790_000_000_000));
        let certificate = authority
            .issue_node_certificate(&key.public(), SiteId(3), NodeId(node), validity, &entropy)
            .unwrap();
        NodeIdentity::new(key, &certificate, authority.certificate()).unwrap()
    }

    #[test]
    fn an_identity_is_read_back_as_it_was_written() {
        let loaded = NodeIdentity::from_bytes(&identity(&authority(1, 77), 9).to_bytes().unwrap()).unwrap();
        assert_eq!(
            (loaded.cluster(), loaded.site(), loaded.node()),
            (77, SiteId(3), NodeId(9))
        );
    }

    #[test]
    fn an_authority_is_read_back_as_it_was_written() {
        let made = authority(1, 77);
        let loaded = Authority::load(made.certificate(), made.key()).unwrap();
        assert_eq!((loaded.cluster(), loaded.fingerprint()), (77, made.fingerprint()));
        assert_eq!(
            Authority::load(made.certificate(), authority(2, 77).key()).unwrap_err(),
            IdentityError::KeyMismatch
        );
    }

    #[test]
    fn the_same_entropy_gives_the_same_certificates() {
        assert_eq!(
            identity(&authority(5, 1), 2).to_bytes(),
            identity(&authority(5, 1), 2).to_bytes()
        );
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (ours, theirs) = (authority(1, 77), authority(2, 77));
        let (one, other) = (identity(&ours, 1), identity(&ours, 2));
        let mixed = |key: &NodeIdentity, certificate: &NodeIdentity, authority: &Authority| {
            NodeIdentity::new(key.key().clone(), certificate.certificate(), authority.certificate()).unwrap_err()
        };
        assert_eq!(mixed(&one, &other, &ours), IdentityError::KeyMismatch);
        assert!(matches!(mixed(&one, &one, &theirs), IdentityError::WrongAuthority(_)));
        assert!(matches!(
            mixed(&one, &one, &authority(1, 78)),
            IdentityError::WrongAuthority(_)
        ));
        assert!(matches!(
            NodeIdentity::from_bytes(&[1, 2, 3]),
            Err(IdentityError::Malformed(_))
        ));
    }

    #[test]
    fn a_name_has_one_spelling() {
        let name = CertificateName::Node {
            cluster: 0xab,
            site: SiteId(1),
            node: NodeId(7),
        };
        assert_eq!(CertificateName::parse(&name.to_string()), Some(name));
        let text = name.to_string();
        for wrong in [
            text.replace("node-7", "node-07"),
            text.replace("node-7", "node-+7"),
            text.to_uppercase(),
            text.replace(".site-1", ""),
            format!("x.{text}"),
            text.replace("everpost.internal", "everpost.example"),
            String::new(),
        ] {
            assert_eq!(CertificateName::parse(&wrong), None, "{wrong}");
        }
    }
}
