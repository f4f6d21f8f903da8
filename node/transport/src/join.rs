//! The joiner's side: asks the cluster that a join token names to be taken in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use core_types::Clock;
use core_types::limits::JOIN_BYTES_MAX;
use quinn::ConnectionError;
use rustls::AlertDescription;
use tokio::time::timeout;

use crate::dial::CONNECT_TIMEOUT;
use crate::endpoint::{self, Socket, Tuning};
use crate::frame::{Frame, Request, Route, Status};
use crate::link::{read_answer, write_frame};
use crate::peers::Resolver;
use crate::rpc::{Class, ServiceId};
use crate::tls;
use crate::token::JoinToken;

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// None of the token's addresses answers.
    #[error("none of the cluster's addresses answers: {0}")]
    Unreachable(String),
    /// Whoever answers is not the cluster that made the token.
    #[error("{address} does not belong to the token's cluster: {reason}")]
    WrongCluster {
        /// Who answered.
        address: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// The token is spent, expired, or not known to the cluster.
    #[error("the token is spent, expired or unknown; make a new one with `everpost node add`")]
    TokenRefused,
    /// The cluster answered that it will not.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer came: the node may have been taken in. Asking again with the same token and key is safe.
    #[error("{0} did not answer in time; try again with the same token")]
    NoAnswer(SocketAddr),
    /// The request is larger than allowed.
    #[error("the request to join is too large")]
    TooLarge,
    /// The local side cannot be set up.
    #[error("cannot join from here: {0}")]
    Local(String),
}

/// What a joiner needs.
pub struct Joiner {
    /// What the administrator gave.
    pub token: JoinToken,
    /// From where to dial.
    pub socket: Socket,
    /// For certificates' times.
    pub clock: Arc<dyn Clock>,
    /// For names in addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Settings of QUIC.
    pub tuning: Tuning,
}

/// Sends the request to the first of the token's addresses that answers, and gives the cluster's answer.
///
/// # Errors
/// [`JoinError`].
pub async fn join(joiner: Joiner, request: Bytes, patience: Duration) -> Result<Bytes, JoinError> {
    if request.len() as u64 > JOIN_BYTES_MAX {
        return Err(JoinError::TooLarge);
    }
    let Joiner {
        token,
        socket,
        clock,
        resolver,
        tuning,
    } = joiner;
    let local = |error: &dyn std::fmt::Display| JoinError::Local(error.to_string());
    let key = token.key().map_err(|error| local(&error))?;
    let tls = tls::join_config(&key, token.cluster(), token.fingerprint(), clock).map_err(|error| local(&error))?;
    let config = endpoint::client_config(tls, &tuning);
    let endpoint = endpoint::open(socket, None).map_err(|error| local(&error))?;
    let mut failure = JoinError::Unreachable("it has none".to_owned());
    'all: for name in token.addresses() {
        let addresses = match resolver.resolve(name).await {
            Ok(addresses) => addresses,
            Err(error) => {
                note_unreachable(&mut failure, name, &error);
                continue;
            }
        };
        for address in addresses {
            let asked = ask(&endpoint, config.clone(), address, request.clone(), patience).await;
            match asked {
                Ok(answer) => {
                    failure = match answer {
                        Ok(answer) => return finish(&endpoint, Ok(answer)).await,
                        Err(error) => error,
                    };
                    // Another node of the cluster would say the same, or may do it a second time.
                    break 'all;
                }
                Err(error) => note_unreachable(&mut failure, name, &error),
            }
        }
    }
    finish(&endpoint, Err(failure)).await
}

async fn finish(endpoint: &quinn::Endpoint, result: Result<Bytes, JoinError>) -> Result<Bytes, JoinError> {
    endpoint.close(0_u32.into(), b"done");
    // So that the cluster's node hears of the end; it is not waited for.
    let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    result
}

fn note_unreachable(failure: &mut JoinError, name: &str, error: &io::Error) {
    let text = format!("{name}: {error}");
    match failure {
        JoinError::Unreachable(all) if all != "it has none" => {
            all.push_str("; ");
            all.push_str(&text);
        }
        other => *other = JoinError::Unreachable(text),
    }
}

/// The outer error says that the next address may be tried.
async fn ask(
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    request: Bytes,
    patience: Duration,
) -> io::Result<Result<Bytes, JoinError>> {
    let connecting = endpoint
        .connect_with(config, address, JOIN_SERVER_NAME)
        .map_err(io::Error::other)?;
    let connection = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectionError::TransportError(error))) => {
            return Ok(Err(JoinError::WrongCluster {
                address,
                reason: error.to_string(),
            }));
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    let asked = timeout(patience, async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        let request_header = Request {
            class: Class::Store,
            service: ServiceId::JOIN,
            route: Route::Direct,
            timeout: patience,
        };
        write_frame(&mut send, &Frame::Request(request_header).encode().ok()?, request)
            .await
            .ok()?;
        read_answer(&mut recv).await.ok()
    })
    .await;
    Ok(match asked {
        Ok(Some((Status::Done, answer))) => Ok(answer),
        Ok(Some((_, reason))) => Err(JoinError::Refused(String::from_utf8_lossy(&reason).into_owned())),
        Ok(None) | Err(_) => Err(match connection.close_reason() {
            Some(ConnectionError::ConnectionClosed(close))
                if close.error_code == quinn::TransportErrorCode::crypto(AlertDescription::AccessDenied.into()) =>
            {
                JoinError::TokenRefused
            }
            _ => JoinError::NoAnswer(address),
        }),
    })
}

const JOIN_SERVER_NAME: &str = "join.everpost.internal";
