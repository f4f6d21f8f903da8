//! What a failure below means for a POP3 client: one table for logins, one for the mail store (RFC 2449 8, RFC 3206).

use directory::LoginError;
use mailstore::StoreError;

use crate::proto::Refusal;

/// `[AUTH]` only when the client has to ask its user for another password: programs forget the old one at that word.
pub(crate) fn of_login(error: &LoginError) -> Refusal {
    match error {
        LoginError::Wrong => Refusal::Credentials,
        LoginError::TooMany => Refusal::TooManyLogins,
        LoginError::Unavailable(_) => Refusal::Temporary,
    }
}

/// `[SYS/TEMP]` for whatever may be different at the next try, `[SYS/PERM]` where somebody has to do something.
pub(crate) fn of_store(error: &StoreError) -> Refusal {
    match error {
        // The account has just been moved or deleted. The next login finds out which.
        StoreError::Refused(state::Refusal::NoSuchAccount | state::Refusal::AlreadySettled) => Refusal::Temporary,
        StoreError::Refused(_) | StoreError::TooLarge(_) => Refusal::Permanent,
        // At QUIT: what is deleted shows at the next login, and a message that is deleted twice is deleted.
        StoreError::Unknown => Refusal::Temporary,
        StoreError::Unavailable(_) | StoreError::Full | StoreError::BlobMissing(_) => Refusal::Temporary,
        // A failing disk is this node's; the client may reach another.
        StoreError::Internal(_) => Refusal::Temporary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::BlobId;

    #[test]
    fn each_login_error_has_its_code() {
        for (error, refusal) in [
            (LoginError::Wrong, Refusal::Credentials),
            (LoginError::TooMany, Refusal::TooManyLogins),
            (LoginError::Unavailable("x".to_owned()), Refusal::Temporary),
        ] {
            assert_eq!(of_login(&error), refusal, "{error:?}");
        }
    }

    #[test]
    fn each_store_error_has_its_code() {
        use state::Refusal as No;
        for (error, refusal) in [
            (StoreError::Refused(No::NoSuchAccount), Refusal::Temporary),
            (StoreError::Refused(No::AlreadySettled), Refusal::Temporary),
            (StoreError::Refused(No::NoSuchMailbox), Refusal::Permanent),
            (StoreError::Refused(No::Invalid("x".to_owned())), Refusal::Permanent),
            (StoreError::TooLarge("x"), Refusal::Permanent),
            (StoreError::Unknown, Refusal::Temporary),
            (StoreError::Unavailable("x".to_owned()), Refusal::Temporary),
            (StoreError::Full, Refusal::Temporary),
            (StoreError::BlobMissing(BlobId([0; 32])), Refusal::Temporary),
            (StoreError::Internal("x".to_owned()), Refusal::Temporary),
        ] {
            assert_eq!(of_store(&error), refusal, "{error:?}");
        }
    }
}
