//! What can go wrong with a request, and the one table that maps it to HTTP and to exit codes.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use directory::{LookupError, PasswordError};
use mailstore::StoreError;
use raft::consensus::ProposeError;
use state::Refusal;

use crate::api::{Failure, FailureDetail};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// The kind.
    pub kind: Kind,
    /// A sentence for people.
    pub message: String,
}

/// Kinds of failure; each has its HTTP status and exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed.
    Usage,
    /// There is no such object.
    NoSuchObject,
    /// The cluster, or a majority of it, cannot be reached.
    Unreachable,
    /// The object exists already, or a quota would be passed.
    Exists,
    /// The outcome is not known, or it may work later.
    TryAgain,
    /// It is not allowed as things stand.
    NotAllowed,
    /// The node failed.
    Failed,
}

impl Kind {
    fn row(self) -> (StatusCode, u8, &'static str) {
        match self {
            Self::Usage => (StatusCode::BAD_REQUEST, 2, "usage"),
            Self::NoSuchObject => (StatusCode::NOT_FOUND, 67, "no_such_object"),
            Self::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, 69, "unreachable"),
            Self::Exists => (StatusCode::CONFLICT, 73, "exists"),
            Self::TryAgain => (StatusCode::SERVICE_UNAVAILABLE, 75, "try_again"),
            Self::NotAllowed => (StatusCode::FORBIDDEN, 77, "not_allowed"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, 1, "failed"),
        }
    }

    /// The exit code of the command line.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self.row().1
    }
}

impl AdminError {
    /// A failure with its sentence.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The body of the answer.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (_, exit_code, kind) = self.kind.row();
        Failure {
            error: FailureDetail {
                exit_code,
                kind: kind.to_owned(),
                message: self.message.clone(),
            },
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.kind.row().0, Json(self.failure())).into_response()
    }
}

impl From<Refusal> for AdminError {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::NoSuchAccount | Refusal::NoSuchMailbox | Refusal::NoSuchObject(_) => Kind::NoSuchObject,
            Refusal::AlreadyExists | Refusal::OverQuota | Refusal::Limit(_) => Kind::Exists,
            Refusal::InUse(_) | Refusal::InboxStays | Refusal::BadToken => Kind::NotAllowed,
            Refusal::IntoItself | Refusal::BadName(_) | Refusal::Invalid(_) => Kind::Usage,
            Refusal::OpIdReused | Refusal::AlreadySettled => Kind::Failed,
        };
        Self::new(kind, refusal.to_string())
    }
}

impl From<ProposeError> for AdminError {
    fn from(error: ProposeError) -> Self {
        let kind = match &error {
            ProposeError::Unknown => Kind::TryAgain,
            ProposeError::TooLarge => Kind::Usage,
            _ => Kind::Unreachable,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => refusal.into(),
            StoreError::Unknown => Self::new(Kind::TryAgain, error.to_string()),
            StoreError::Unavailable(_) => Self::new(Kind::Unreachable, error.to_string()),
            _ => Self::new(Kind::Failed, error.to_string()),
        }
    }
}

impl From<LookupError> for AdminError {
    fn from(error: LookupError) -> Self {
        Self::new(Kind::Unreachable, error.to_string())
    }
}

impl From<PasswordError> for AdminError {
    fn from(error: PasswordError) -> Self {
        let kind = if matches!(error, PasswordError::Failed(_)) {
            Kind::Failed
        } else {
            Kind::Usage
        };
        Self::new(kind, error.to_string())
    }
}
