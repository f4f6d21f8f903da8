//! Response codes (RFC 3501 7.1, RFC 4315 3, RFC 5530, RFC 6154).

use core_types::{Flags, Uid, UidValidity};

use super::flag_list;

/// What stands in brackets in front of a status response's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// The text must be shown to a person.
    Alert,
    /// The target exists.
    AlreadyExists,
    /// APPEND worked: the new message's number.
    AppendUid(UidValidity, Uid),
    /// Credentials were wrong, or may have been.
    AuthenticationFailed,
    /// Known, but not allowed to log in here.
    AuthorizationFailed,
    /// The charset is unknown; names those that are.
    BadCharset,
    /// Can never work.
    Cannot,
    /// What the server can do, for greeting and login.
    Capability(Vec<&'static str>),
    /// The client does what is of no use.
    ClientBug,
    /// Somebody should be told.
    ContactAdmin,
    /// COPY or MOVE worked: the new UIDVALIDITY, the old numbers and the new ones in the same order.
    CopyUid(UidValidity, Vec<Uid>, Vec<Uid>),
    /// The command named messages that are gone.
    ExpungeIssued,
    /// The client was silent for too long.
    Inactive,
    /// In use by another session.
    InUse,
    /// A limit of the server's.
    Limit,
    /// There is none of that name.
    NonExistent,
    /// No right to do that.
    NoPerm,
    /// Over the quota.
    OverQuota,
    /// A message could not be parsed.
    Parse,
    /// Which flags last; with `true` also new keywords.
    PermanentFlags(Flags, bool),
    /// Only with TLS.
    PrivacyRequired,
    /// The mailbox is selected read-only.
    ReadOnly,
    /// The mailbox is selected to be written.
    ReadWrite,
    /// A defect of the server's.
    ServerBug,
    /// A literal or message over the limit (RFC 7889 4).
    TooBig,
    /// CREATE the mailbox, then it may work.
    TryCreate,
    /// UIDs of this mailbox do not last (RFC 4315).
    UidNotSticky,
    /// The UID that the next message gets at least.
    UidNext(Uid),
    /// The mailbox's UIDVALIDITY.
    UidValidity(UidValidity),
    /// Something that the command needs is away; try again.
    Unavailable,
    /// An octet sequence that cannot be stored this way (RFC 3516 4.3).
    UnknownCte,
    /// The sequence number of the first message without `\Seen`.
    Unseen(u32),
    /// The special use cannot be given (RFC 6154 3).
    UseAttr,
}

impl Code {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let text = match self {
            Self::AppendUid(validity, uid) => format!("APPENDUID {validity} {uid}"),
            Self::Capability(capabilities) => format!("CAPABILITY {}", capabilities.join(" ")),
            Self::CopyUid(validity, from, to) => format!("COPYUID {validity} {} {}", uid_set(from), uid_set(to)),
            Self::PermanentFlags(flags, new_keywords) => {
                out.extend_from_slice(b"PERMANENTFLAGS ");
                flag_list(out, flags, if *new_keywords { &["\\*"] } else { &[] });
                return;
            }
            Self::UidNext(uid) => format!("UIDNEXT {uid}"),
            Self::UidValidity(validity) => format!("UIDVALIDITY {validity}"),
            Self::Unseen(sequence_number) => format!("UNSEEN {sequence_number}"),
            plain => plain.word().to_owned(),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Alert => "ALERT",
            Self::AlreadyExists => "ALREADYEXISTS",
            Self::AppendUid(..) => "APPENDUID",
            Self::AuthenticationFailed => "AUTHENTICATIONFAILED",
            Self::AuthorizationFailed => "AUTHORIZATIONFAILED",
            Self::BadCharset => "BADCHARSET (UTF-8)",
            Self::Cannot => "CANNOT",
            Self::Capability(_) => "CAPABILITY",
            Self::ClientBug => "CLIENTBUG",
            Self::ContactAdmin => "CONTACTADMIN",
            Self::CopyUid(..) => "COPYUID",
            Self::ExpungeIssued => "EXPUNGEISSUED",
            Self::Inactive => "INACTIVE",
            Self::InUse => "INUSE",
            Self::Limit => "LIMIT",
            Self::NonExistent => "NONEXISTENT",
            Self::NoPerm => "NOPERM",
            Self::OverQuota => "OVERQUOTA",
            Self::Parse => "PARSE",
            Self::PermanentFlags(..) => "PERMANENTFLAGS",
            Self::PrivacyRequired => "PRIVACYREQUIRED",
            Self::ReadOnly => "READ-ONLY",
            Self::ReadWrite => "READ-WRITE",
            Self::ServerBug => "SERVERBUG",
            Self::TooBig => "TOOBIG",
            Self::TryCreate => "TRYCREATE",
            Self::UidNotSticky => "UIDNOTSTICKY",
            Self::UidNext(_) => "UIDNEXT",
            Self::UidValidity(_) => "UIDVALIDITY",
            Self::Unavailable => "UNAVAILABLE",
            Self::UnknownCte => "UNKNOWN-CTE",
            Self::Unseen(_) => "UNSEEN",
            Self::UseAttr => "USEATTR",
        }
    }
}

/// RFC 4315 `uid-set`, in the order given: runs of ascending numbers become ranges, so both sets of a COPYUID stay in
/// step.
fn uid_set(uids: &[Uid]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &Uid(uid) in uids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    let mut text = String::new();
    for (first, last) in ranges {
        let comma = if text.is_empty() { "" } else { "," };
        text += &if first == last {
            format!("{comma}{first}")
        } else {
            format!("{comma}{first}:{last}")
        };
    }
    text
}
