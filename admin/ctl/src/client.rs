//! Asks a node over its admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use admin::api::Failure as ApiFailure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{Exit, Failure};

/// The name of the socket in a node's data directory.
pub const SOCKET: &str = "admin.sock";

/// A node's admin socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The socket of the node with this data directory, whether it answers or not.
    #[must_use]
    pub fn of_node(data_dir: &Path) -> Self {
        Self {
            socket: data_dir.join(SOCKET),
        }
    }

    /// The socket of the node whose data directory this is; of a quickstart's directory, of the first node that answers.
    ///
    /// # Errors
    /// [`Exit::Unreachable`] when there is none.
    pub async fn find(dir: &Path) -> Result<Self, Failure> {
        let mut candidates = vec![dir.join(SOCKET)];
        if let Ok(entries) = std::fs::read_dir(dir) {
            let mut nodes: Vec<_> = entries.flatten().map(|entry| entry.path().join(SOCKET)).collect();
            nodes.sort();
            candidates.extend(nodes);
        }
        for socket in candidates {
            if UnixStream::connect(&socket).await.is_ok() {
                return Ok(Self { socket });
            }
        }
        Err(Failure::new(
            Exit::Unreachable,
            format!(
                "no running node has its admin socket in {}: start the node, or name its data directory with --dir",
                dir.display()
            ),
        ))
    }

    /// `GET`
    ///
    /// # Errors
    /// What the node answered, or [`Exit::Unreachable`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.request(Method::GET, path, None::<&()>).await
    }

    /// Any other method, with a JSON body.
    ///
    /// # Errors
    /// What the node answered, or [`Exit::Unreachable`].
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(Failure::new(Exit::TryAgain, "the node did not answer in time")))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<T, Failure> {
        let lost = |error: String| Failure::new(Exit::Unreachable, format!("{}: {error}", self.socket.display()));
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| lost(error.to_string()))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(error.to_string()))?;
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let answer = async {
            // Taken in, so that the connection ends with the answer.
            let mut sender = sender;
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| lost(error.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| lost(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let (answered, _) = tokio::join!(answer, connection);
        let (status, bytes) = answered?;
        let malformed = |error: serde_json::Error| Failure::new(Exit::Failed, format!("the node's answer: {error}"));
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(malformed);
        }
        let failure: ApiFailure = serde_json::from_slice(&bytes).map_err(malformed)?;
        Err(Failure::new(
            Exit::of_code(failure.error.exit_code),
            failure.error.message,
        ))
    }
}

/// Octets of an answer: a list of many thousand accounts.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long an answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
