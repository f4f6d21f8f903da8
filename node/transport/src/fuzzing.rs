//! Entry points for fuzz targets: everything that reads a peer's or a user's bytes, without a network.

use crate::frame::{Frame, Hello, Reach, Status};
use crate::identity::{NodeIdentity, Presented};
use crate::token::JoinToken;

/// Reads the bytes as every frame there is; what is read must be written back as the same bytes.
pub fn frames(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes)
        && let Ok(again) = frame.encode()
    {
        // Fields that a kind does not use are not kept, so compare what is read again.
        assert_eq!(Frame::decode(&again), Ok(frame));
    }
    if let Ok(status) = Status::decode(bytes) {
        assert_eq!(status.encode().as_deref(), Ok(bytes));
    }
    let _ = Hello::decode(bytes);
    let _ = Reach::decode(bytes);
}

/// Reads the bytes as a join token's text.
pub fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = JoinToken::parse(&text) {
        assert_eq!(token.text().and_then(|text| JoinToken::parse(&text)), Ok(token));
    }
}

/// Reads the bytes as a certificate and as a stored identity.
pub fn identities(bytes: &[u8]) {
    let _ = Presented::parse(bytes);
    let _ = NodeIdentity::from_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use core_types::{Entropy, NodeId, UnixMillis};

    use super::*;
    use crate::frame::{Request, Route};
    use crate::identity::{Authority, Validity};
    use crate::rpc::{Class, ServiceId};
    use crate::testing::Seeded;

    #[test]
    fn mutated_frames_tokens_and_certificates_never_panic() {
        let entropy = Seeded::new(20);
        let request = Request {
            class: Class::Log,
            service: ServiceId::RAFT,
            route: Route::Relay(NodeId(3)),
            timeout: Duration::from_secs(1),
        };
        let authority = Authority::create(7, Validity::usual(UnixMillis(1_790_000_000_000)), &entropy).unwrap();
        let token = JoinToken::generate(7, authority.fingerprint(), vec!["127.0.0.1:1".to_owned()], &entropy).unwrap();
        let seeds = [
            Frame::Request(request).encode().unwrap(),
            Status::Refused.encode().unwrap(),
            token.text().unwrap().into_bytes(),
            authority.certificate().to_vec(),
            Vec::new(),
        ];
        let below = |bound: usize| usize::try_from((&entropy as &dyn Entropy).below(bound as u64)).unwrap();
        for round in 0..20_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..=below(4) {
                match below(4) {
                    0 => bytes.truncate(below(bytes.len() + 1)),
                    1 => bytes.push(u8::try_from(below(256)).unwrap()),
                    _ if bytes.is_empty() => {}
                    _ => {
                        let place = below(bytes.len());
                        bytes[place] = u8::try_from(below(256)).unwrap();
                    }
                }
            }
            frames(&bytes);
            token_and_identities(&bytes);
        }
    }

    fn token_and_identities(bytes: &[u8]) {
        token(bytes);
        identities(bytes);
    }
}
