//! The syntax tree of a command (RFC 3501 9, `command`).
//!
//! Everything in it is checked as far as syntax goes. Not here: whether a command is allowed now, or what it does.

use std::fmt;

use core_types::{Flags, MailboxName};

use crate::date::{Date, DateTime};
use crate::list_pattern::ListPattern;
use crate::sequence_set::SequenceSet;

/// A command's tag (RFC 3501 `tag`): 1 to [`core_types::limits::IMAP_TAG_BYTES_MAX`] octets of ASTRING-CHAR without
/// `+`. It is echoed, so nothing else may be in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tag(pub(crate) Vec<u8>);

impl Tag {
    /// Checks a tag. `None` when it is not one or over the limit.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        crate::parse::is_tag(bytes).then(|| Self(bytes.to_vec()))
    }

    /// Its octets, all of them printable ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Octets that a log must never show: a password, or a SASL message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What the tagged response repeats.
    pub tag: Tag,
    /// What to do.
    pub body: CommandBody,
}

/// What a command asks for. APPEND is not here: it comes as [`crate::reader::Event::AppendStart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandBody {
    /// RFC 3501 6.1.1
    Capability,
    /// RFC 3501 6.1.2
    Noop,
    /// RFC 3501 6.1.3
    Logout,
    /// RFC 3501 6.2.1
    StartTls,
    /// RFC 3501 6.2.2 with RFC 4959
    Authenticate {
        /// The SASL mechanism in upper case.
        mechanism: String,
        /// The initial response, decoded; `Some` and empty for `=`.
        initial: Option<Secret>,
    },
    /// RFC 3501 6.2.3
    Login {
        /// Who.
        username: Vec<u8>,
        /// The password.
        password: Secret,
    },
    /// RFC 3501 6.3.1
    Select(MailboxName),
    /// RFC 3501 6.3.2
    Examine(MailboxName),
    /// RFC 3501 6.3.3 with RFC 6154 5
    Create {
        /// Its name, without the separator at its end that only announces children.
        mailbox: MailboxName,
        /// What it shall be used for; empty without `USE`.
        special_use: Vec<SpecialUse>,
    },
    /// RFC 3501 6.3.4
    Delete(MailboxName),
    /// RFC 3501 6.3.5
    Rename {
        /// The name now.
        from: MailboxName,
        /// The new name.
        to: MailboxName,
    },
    /// RFC 3501 6.3.6
    Subscribe(MailboxName),
    /// RFC 3501 6.3.7
    Unsubscribe(MailboxName),
    /// RFC 3501 6.3.8 with RFC 5258
    List(List),
    /// RFC 3501 6.3.9
    Lsub(ListPattern),
    /// RFC 3501 6.3.10
    Status {
        /// Which mailbox.
        mailbox: MailboxName,
        /// What about it, in the client's order.
        items: Vec<StatusItem>,
    },
    /// RFC 3501 6.4.1
    Check,
    /// RFC 3501 6.4.2
    Close,
    /// RFC 3691
    Unselect,
    /// RFC 3501 6.4.3
    Expunge,
    /// RFC 4315 2.1
    UidExpunge(SequenceSet),
    /// RFC 3501 6.4.4
    Search {
        /// Whether UIDs are answered.
        uid: bool,
        /// What to find. Several keys are one [`SearchKey::And`].
        key: SearchKey,
    },
    /// RFC 3501 6.4.5
    Fetch {
        /// Whether the set holds UIDs. If so, the items hold [`FetchItem::Uid`].
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// What of them; macros are spelled out.
        items: Vec<FetchItem>,
    },
    /// RFC 3501 6.4.6
    Store {
        /// Whether the set holds UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// How.
        op: StoreOp,
        /// Whether the new flags are not to be answered.
        silent: bool,
        /// Which flags.
        flags: Flags,
    },
    /// RFC 3501 6.4.7
    Copy {
        /// Whether the set holds UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// Where to.
        mailbox: MailboxName,
    },
    /// RFC 6851
    Move {
        /// Whether the set holds UIDs.
        uid: bool,
        /// Which messages.
        set: SequenceSet,
        /// Where to.
        mailbox: MailboxName,
    },
    /// RFC 2177
    Idle,
    /// RFC 2342
    Namespace,
    /// RFC 2971: pairs of field and value; empty for NIL.
    Id(Vec<(Vec<u8>, Option<Vec<u8>>)>),
}

/// APPEND up to its message (RFC 3501 6.3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// What the tagged response repeats.
    pub tag: Tag,
    /// Where to.
    pub mailbox: MailboxName,
    /// With which flags; `\Recent` is left out.
    pub flags: Flags,
    /// The INTERNALDATE that the client wants.
    pub date: Option<DateTime>,
    /// Octets of the message that follows.
    pub size: u64,
    /// Whether the client waits for a continuation before it sends the message.
    pub sync: bool,
}

/// A special use (RFC 6154 2) as a client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecialUse {
    /// `\All`
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`
    Flagged,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl SpecialUse {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::All,
        Self::Archive,
        Self::Drafts,
        Self::Flagged,
        Self::Junk,
        Self::Sent,
        Self::Trash,
    ];

    /// As on the wire, with the backslash.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }
}

/// LIST's arguments (RFC 3501 6.3.8, RFC 5258 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What to match, the reference already in front; never empty.
    pub patterns: Vec<ListPattern>,
    /// Which mailboxes only.
    pub selection: ListSelection,
    /// What more to say about each.
    pub returns: ListReturn,
    /// Whether the extended syntax of RFC 5258 was used.
    pub extended: bool,
}

/// RFC 5258 3.1, RFC 6154
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListSelection {
    /// Only subscribed names, also those that do not exist.
    pub subscribed: bool,
    /// Also remote mailboxes, which we do not have.
    pub remote: bool,
    /// Also parents of what matches, with CHILDINFO.
    pub recursive_match: bool,
    /// Only mailboxes with a special use.
    pub special_use: bool,
}

/// RFC 5258 3.2, RFC 6154, RFC 5819
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReturn {
    /// `\Subscribed`
    pub subscribed: bool,
    /// `\HasChildren`, `\HasNoChildren`
    pub children: bool,
    /// The special use.
    pub special_use: bool,
    /// A STATUS response for each; empty for none.
    pub status: Vec<StatusItem>,
}

/// RFC 3501 6.3.10
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    /// `MESSAGES`
    Messages,
    /// `RECENT`
    Recent,
    /// `UIDNEXT`
    UidNext,
    /// `UIDVALIDITY`
    UidValidity,
    /// `UNSEEN`
    Unseen,
}

impl StatusItem {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Messages,
        Self::Recent,
        Self::UidNext,
        Self::UidValidity,
        Self::Unseen,
    ];

    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
        }
    }
}

/// RFC 3501 6.4.6
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// RFC 3501 6.4.5
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchItem {
    /// `FLAGS`
    Flags,
    /// `UID`
    Uid,
    /// `INTERNALDATE`
    InternalDate,
    /// `ENVELOPE`
    Envelope,
    /// `BODY`: the structure without extension data
    Body,
    /// `BODYSTRUCTURE`
    BodyStructure,
    /// `RFC822`: as `BODY[]`
    Rfc822,
    /// `RFC822.HEADER`: as `BODY.PEEK[HEADER]`
    Rfc822Header,
    /// `RFC822.SIZE`
    Rfc822Size,
    /// `RFC822.TEXT`: as `BODY[TEXT]`
    Rfc822Text,
    /// `BODY[section]<partial>`
    BodySection {
        /// Whether `\Seen` is not set.
        peek: bool,
        /// Which octets.
        section: Section,
        /// Which of those.
        partial: Option<Partial>,
    },
}

impl FetchItem {
    /// Whether fetching it sets `\Seen` (RFC 3501 6.4.5).
    #[must_use]
    pub fn sets_seen(&self) -> bool {
        matches!(
            self,
            Self::Rfc822 | Self::Rfc822Text | Self::BodySection { peek: false, .. }
        )
    }
}

/// Octets from `offset`, at most `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first octet, from 0.
    pub offset: u32,
    /// How many at most; not 0.
    pub count: u32,
}

/// RFC 3501 `section-spec`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The part's numbers, each 1 and above; empty for the message itself.
    pub part: Vec<u32>,
    /// What of it.
    pub text: SectionText,
}

/// RFC 3501 `section-text`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SectionText {
    /// The whole message or the part's body.
    #[default]
    All,
    /// `HEADER`
    Header,
    /// `HEADER.FIELDS` and `HEADER.FIELDS.NOT`
    HeaderFields {
        /// Whether all fields but these are meant.
        not: bool,
        /// The fields' names as the client wrote them, ASCII without controls; never empty.
        names: Vec<String>,
    },
    /// `TEXT`
    Text,
    /// `MIME`, of a part only
    Mime,
}

/// RFC 3501 6.4.4. The depth is at most [`core_types::limits::IMAP_SEARCH_DEPTH_MAX`], so it may be walked by recursion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchKey {
    /// `ALL`
    All,
    /// All of these; empty ones cannot be written.
    And(Vec<Self>),
    /// `NOT`
    Not(Box<Self>),
    /// `OR`
    Or(Box<Self>, Box<Self>),
    /// Sequence numbers
    Sequence(SequenceSet),
    /// `UID`
    Uid(SequenceSet),
    /// All of these system flags are set (`ANSWERED`, `DELETED`, ...); see [`Flags`] for the bits.
    Flag(u8),
    /// The system flag is not set (`UNANSWERED`, ...).
    NotFlag(u8),
    /// `KEYWORD`; `None` for a word that can be no keyword of ours, which no message has.
    Keyword(Option<core_types::Keyword>),
    /// `UNKEYWORD`
    NotKeyword(Option<core_types::Keyword>),
    /// `RECENT`
    Recent,
    /// `OLD`: not `\Recent`
    Old,
    /// `NEW`: `\Recent` and not `\Seen`
    New,
    /// `BEFORE`: the INTERNALDATE's day is earlier
    Before(Date),
    /// `ON`
    On(Date),
    /// `SINCE`: that day or later
    Since(Date),
    /// `SENTBEFORE`: the Date field's day
    SentBefore(Date),
    /// `SENTON`
    SentOn(Date),
    /// `SENTSINCE`
    SentSince(Date),
    /// `LARGER`: more octets
    Larger(u32),
    /// `SMALLER`: fewer octets
    Smaller(u32),
    /// `FROM`, `TO`, `CC`, `BCC`, `SUBJECT`: the substring, in any case
    Envelope(EnvelopeField, String),
    /// `HEADER`: field name and substring; an empty substring asks whether the field is there
    Header(String, String),
    /// `BODY`
    Body(String),
    /// `TEXT`: header or body
    Text(String),
}

/// Which field of the header a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeField {
    /// `BCC`
    Bcc,
    /// `CC`
    Cc,
    /// `FROM`
    From,
    /// `SUBJECT`
    Subject,
    /// `TO`
    To,
}
