//! The join token: what an administrator carries to a new node so that it and the cluster know each other.
//!
//! The secret never goes over the wire: it is the seed of an Ed25519 key, the directory keeps the public half, and the
//! joiner proves in the TLS handshake that it has the other. The authority's fingerprint lets the joiner know the
//! cluster. Whether a token is spent or expired stands in the directory.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core_types::limits::{JOIN_TOKEN_ADDRESSES_MAX, JOIN_TOKEN_BYTES_MAX};
use core_types::{Entropy, codec};
use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, NodeKey};

/// A join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    cluster: u128,
    fingerprint: [u8; 32],
    secret: [u8; 32],
    addresses: Vec<String>,
}

/// Why a text is no join token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with `everpost-join-1.`.
    #[error("not a join token: it must begin with {TOKEN_PREFIX}")]
    Prefix,
    /// It is cut or changed.
    #[error("the join token is damaged; copy it whole")]
    Damaged,
    /// It names no address, or too many.
    #[error("the join token must name 1 to {JOIN_TOKEN_ADDRESSES_MAX} addresses")]
    Addresses,
}

impl JoinToken {
    /// A new token for a cluster whose nodes are reached at `addresses` (`host:port`).
    ///
    /// # Errors
    /// [`TokenError::Addresses`].
    pub fn generate(
        cluster: u128,
        fingerprint: [u8; 32],
        addresses: Vec<String>,
        entropy: &dyn Entropy,
    ) -> Result<Self, TokenError> {
        Self {
            cluster,
            fingerprint,
            secret: entropy.bytes(),
            addresses,
        }
        .checked()
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() > JOIN_TOKEN_BYTES_MAX {
            return Err(TokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Damaged)?;
        let (body, sum) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .map(|(body, sum)| (body, *sum))
            .ok_or(TokenError::Damaged)?;
        if check(body) != sum {
            return Err(TokenError::Damaged);
        }
        codec::decode::<Self>(TOKEN_VERSION, body, JOIN_TOKEN_BYTES_MAX as u64)
            .map_err(|_| TokenError::Damaged)?
            .checked()
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// The BLAKE3 hash of the authority's certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Where nodes of the cluster are reached, `host:port`.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The key that the secret gives; its public half is what the directory keeps.
    ///
    /// # Errors
    /// As [`NodeKey::from_seed`].
    pub fn key(&self) -> Result<NodeKey, IdentityError> {
        NodeKey::from_seed(&self.secret)
    }

    /// The text form. Secret until it is spent.
    ///
    /// # Errors
    /// [`TokenError::Addresses`] when the addresses are too long for a token.
    pub fn text(&self) -> Result<String, TokenError> {
        let limit = (JOIN_TOKEN_BYTES_MAX / 4 * 3 - CHECK_BYTES - 1) as u64;
        let mut bytes = codec::encode(TOKEN_VERSION, self, limit).map_err(|_| TokenError::Addresses)?;
        bytes.extend_from_slice(&check(&bytes));
        Ok(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn checked(self) -> Result<Self, TokenError> {
        let count = self.addresses.len();
        if count == 0 || count > JOIN_TOKEN_ADDRESSES_MAX || self.addresses.iter().any(|address| address.len() > 300) {
            return Err(TokenError::Addresses);
        }
        Ok(self)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// A few octets at the end, so that a token copied in part is told apart from a wrong one.
fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut sum = [0; CHECK_BYTES];
    blake3::Hasher::new()
        .update(b"everpost join token")
        .update(body)
        .finalize_xof()
        .fill(&mut sum);
    sum
}

const TOKEN_PREFIX: &str = "everpost-join-1.";
const TOKEN_VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    fn token(addresses: &[&str]) -> Result<JoinToken, TokenError> {
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        JoinToken::generate(5, [9; 32], addresses, &Seeded::new(3))
    }

    #[test]
    fn a_token_is_read_back_as_it_was_written() {
        let token = token(&["a.example:1", "[::1]:2"]).unwrap();
        let text = token.text().unwrap();
        assert!(text.starts_with("everpost-join-1."));
        assert!(
            text.chars()
                .all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
        );
        assert_eq!(JoinToken::parse(&format!(" {text}\n")), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn a_damaged_token_is_refused() {
        let text = token(&["a.example:1"]).unwrap().text().unwrap();
        assert_eq!(JoinToken::parse(""), Err(TokenError::Prefix));
        assert_eq!(JoinToken::parse("everpost-join-2.AAAA"), Err(TokenError::Prefix));
        assert_eq!(JoinToken::parse(&text[..text.len() - 1]), Err(TokenError::Damaged));
        assert_eq!(JoinToken::parse(&format!("{text}A")), Err(TokenError::Damaged));
        assert_eq!(JoinToken::parse(&text.replacen('A', "B", 1)), Err(TokenError::Damaged));
        assert_eq!(
            JoinToken::parse(&format!("everpost-join-1.{}", "A".repeat(9000))),
            Err(TokenError::Damaged)
        );
    }

    #[test]
    fn a_token_names_one_to_sixteen_addresses() {
        assert_eq!(token(&[]).unwrap_err(), TokenError::Addresses);
        let longest = format!("{}:65535", "x".repeat(294));
        assert!(JoinToken::parse(&token(&[longest.as_str(); 16]).unwrap().text().unwrap()).is_ok());
        assert_eq!(token(&["x:1"; 17]).unwrap_err(), TokenError::Addresses);
        assert_eq!(token(&["x".repeat(301).as_str()]).unwrap_err(), TokenError::Addresses);
    }
}
