//! How a command ends that did not succeed: one table for each kind of error, and nowhere else.

use std::fmt;

use directory::LoginError;
use imap_proto::{Code, Status};
use mailstore::StoreError;
use state::Refusal;
use wire::OutputError;

/// What the tagged response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) code: Option<Code>,
    pub(crate) text: &'static str,
}

/// Why a session ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed the connection, or it broke.
    Gone,
    /// The client does not read, or the connection broke while it was written to.
    Output(OutputError),
    /// LOGOUT; everything was said.
    Logout,
    /// Say BYE with this text.
    Bye(&'static str),
    /// Say BYE, since the client was silent for too long after login.
    Inactive,
    /// Close without a word: what was being said cannot be finished.
    Abort(&'static str),
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is answered, the session goes on.
    Answer(Answer),
    /// Nothing is left to say: the answer was sent, or comes later.
    Done,
    /// The session is over.
    End(End),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the client is gone"),
            Self::Output(error) => error.fmt(f),
            Self::Logout => f.write_str("over"),
            Self::Inactive => f.write_str("idle for too long"),
            Self::Bye(reason) | Self::Abort(reason) => f.write_str(reason),
        }
    }
}

impl Answer {
    pub(crate) fn ok(text: &'static str) -> Self {
        Self::new(Status::Ok, None, text)
    }

    pub(crate) fn ok_with(code: Code, text: &'static str) -> Self {
        Self::new(Status::Ok, Some(code), text)
    }

    pub(crate) fn no(code: Code, text: &'static str) -> Self {
        Self::new(Status::No, Some(code), text)
    }

    pub(crate) fn bad(text: &'static str) -> Self {
        Self::new(Status::Bad, None, text)
    }

    fn new(status: Status, code: Option<Code>, text: &'static str) -> Self {
        Self { status, code, text }
    }
}

impl From<Answer> for Failure {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<OutputError> for End {
    fn from(error: OutputError) -> Self {
        Self::Output(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Answer(store_answer(&error))
    }
}

/// The table of the mail store's errors.
pub(crate) fn store_answer(error: &StoreError) -> Answer {
    match error {
        StoreError::Refused(refusal) => refusal_answer(refusal),
        StoreError::Unavailable(reason) => {
            tracing::info!(reason, "not available");
            Answer::no(Code::Unavailable, "Not available now, try again later")
        }
        StoreError::Unknown => Answer::no(Code::Unavailable, "It is not known whether this was done"),
        StoreError::Full => Answer::no(Code::Unavailable, "No space left on the server, try again later"),
        StoreError::BlobMissing(blob) => {
            tracing::error!(%blob, "the bytes of a message cannot be had");
            Answer::no(Code::Unavailable, "The message cannot be read now, try again later")
        }
        StoreError::TooLarge(_) => Answer::no(Code::TooBig, "Message too large"),
        StoreError::Internal(reason) => {
            tracing::error!(reason, "internal error");
            Answer::no(Code::ServerBug, "Internal error")
        }
    }
}

/// The table of the state machine's refusals.
fn refusal_answer(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::NoSuchAccount => Answer::no(Code::Unavailable, "The account is not here now"),
        Refusal::NoSuchMailbox => Answer::no(Code::NonExistent, "No such mailbox"),
        Refusal::AlreadyExists => Answer::no(Code::AlreadyExists, "There is a mailbox of that name"),
        Refusal::InboxStays => Answer::no(Code::Cannot, "INBOX cannot be deleted"),
        Refusal::IntoItself => Answer::no(Code::Cannot, "A mailbox cannot be moved to below itself"),
        Refusal::BadName(_) => Answer::no(Code::Cannot, "A name would be too long or too deep"),
        Refusal::OverQuota => Answer::no(Code::OverQuota, "Over quota"),
        Refusal::Limit(_) => Answer::no(Code::Limit, "A limit would be passed"),
        Refusal::InUse(_) => Answer::no(Code::InUse, "In use"),
        Refusal::NoSuchObject(_)
        | Refusal::BadToken
        | Refusal::OpIdReused
        | Refusal::AlreadySettled
        | Refusal::Invalid(_) => {
            tracing::error!(%refusal, "refused");
            Answer::no(Code::ServerBug, "Internal error")
        }
    }
}

/// The table of failed logins.
pub(crate) fn login_failure(error: &LoginError) -> Failure {
    match error {
        LoginError::Wrong => Answer::no(Code::AuthenticationFailed, "Wrong name or password").into(),
        LoginError::Unavailable(reason) => {
            tracing::info!(reason, "logging in is not possible");
            Answer::no(Code::Unavailable, "Logging in is not possible now, try again later").into()
        }
        LoginError::TooMany => End::Bye("Too many failed logins from your network, try again later").into(),
    }
}

#[cfg(test)]
mod tests {
    use core_types::BlobId;

    use super::*;

    #[test]
    fn every_store_error_has_its_code() {
        let refused = |refusal| StoreError::Refused(refusal);
        let limit = || "X".to_owned();
        let table = [
            (refused(Refusal::NoSuchAccount), Code::Unavailable),
            (refused(Refusal::NoSuchMailbox), Code::NonExistent),
            (refused(Refusal::AlreadyExists), Code::AlreadyExists),
            (refused(Refusal::InboxStays), Code::Cannot),
            (refused(Refusal::IntoItself), Code::Cannot),
            (refused(Refusal::BadName(limit())), Code::Cannot),
            (refused(Refusal::OverQuota), Code::OverQuota),
            (refused(Refusal::Limit(limit())), Code::Limit),
            (refused(Refusal::InUse(limit())), Code::InUse),
            (refused(Refusal::Invalid(limit())), Code::ServerBug),
            (StoreError::Unavailable(limit()), Code::Unavailable),
            (StoreError::Unknown, Code::Unavailable),
            (StoreError::Full, Code::Unavailable),
            (StoreError::BlobMissing(BlobId::of(b"")), Code::Unavailable),
            (StoreError::TooLarge("message"), Code::TooBig),
            (StoreError::Internal(limit()), Code::ServerBug),
        ];
        for (error, code) in table {
            let answer = store_answer(&error);
            assert_eq!((answer.status, answer.code), (Status::No, Some(code)), "{error:?}");
        }
    }

    #[test]
    fn every_login_error_has_its_answer() {
        let code = |error| match login_failure(&error) {
            Failure::Answer(answer) => answer.code,
            Failure::End(_) | Failure::Done => None,
        };
        assert_eq!(code(LoginError::Wrong), Some(Code::AuthenticationFailed));
        assert_eq!(code(LoginError::Unavailable(String::new())), Some(Code::Unavailable));
        assert!(matches!(login_failure(&LoginError::TooMany), Failure::End(End::Bye(_))));
    }
}
