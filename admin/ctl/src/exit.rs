//! How a command ends.

use std::fmt;

/// Exit codes: `sysexits.h`, where it has a word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// It was asked wrongly.
    Usage = 2,
    /// There is no such object.
    NoSuchObject = 67,
    /// The cluster, or its majority, cannot be reached.
    Unreachable = 69,
    /// The object exists already, or a quota would be passed.
    Exists = 73,
    /// It may work later.
    TryAgain = 75,
    /// It is not allowed.
    NotAllowed = 77,
    /// The configuration is wrong.
    Configuration = 78,
}

impl Exit {
    /// The exit of this code; anything unknown is [`Exit::Failed`].
    #[must_use]
    pub fn of_code(code: u8) -> Self {
        match code {
            2 => Self::Usage,
            67 => Self::NoSuchObject,
            69 => Self::Unreachable,
            73 => Self::Exists,
            75 => Self::TryAgain,
            77 => Self::NotAllowed,
            78 => Self::Configuration,
            _ => Self::Failed,
        }
    }
}

/// Why a command failed, and with which code it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// A sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
