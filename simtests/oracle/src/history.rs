//! What the clients did and were told, with virtual times: the evidence that the checks judge.
//!
//! A client records an operation before its first byte leaves ([`History::invoke`]) and its end when the answer is there,
//! or when it gives up ([`History::end`]). What never ended counts as unknown.
//!
//! The rule for outcomes: `Failed` only where the answer promises that nothing happened (`NO` to a command that is checked
//! before it is proposed, `5xx`). A time-out, a lost connection, `451`, `NO [UNAVAILABLE]` or `[SERVERBUG]` are `Unknown`.

use std::fmt;

use crate::time::Time;

/// What is in a message's body so that it is recognised wherever it turns up. Each attempt to deliver or append has one of
/// its own, a repeat too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A mailbox over its whole life: a mailbox that is deleted and made again under the same name is another one. Using
/// `(account, UIDVALIDITY as text)` is right, and so are names that are never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxKey {
    /// Whose.
    pub account: u32,
    /// Which.
    pub label: String,
}

impl MailboxKey {
    /// The mailbox of an account.
    #[must_use]
    pub fn new(account: u32, label: &str) -> Self {
        Self {
            account,
            label: label.to_owned(),
        }
    }
}

impl fmt::Display for MailboxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user{}/{}", self.account, self.label)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Flags as bits: the five system flags as in `core_types::Flags`, keywords from [`FlagSet::KEYWORD`] on as the harness
/// numbers them. Leave `\Recent` out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlagSet(pub u32);

impl FlagSet {
    /// `\Seen`
    pub const SEEN: Self = Self(1);
    /// `\Answered`
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`
    pub const DELETED: Self = Self(8);
    /// `\Draft`
    pub const DRAFT: Self = Self(16);
    /// The first keyword; the next is twice this.
    pub const KEYWORD: Self = Self(32);
}

impl fmt::Display for FlagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"];
        let names = (0..32).filter(|bit| self.0 & (1 << bit) != 0).map(|bit| {
            let name = named.get(bit as usize).map(|name| (*name).to_owned());
            name.unwrap_or_else(|| format!("keyword{}", bit - 5))
        });
        write!(f, "({})", names.collect::<Vec<_>>().join(" "))
    }
}

/// How a STORE means its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagChange {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and acknowledged.
    Ok,
    /// Taken with a promise, and done some time (mail that was queued or spooled): at the end it has to be there.
    Later,
    /// Refused: nothing happened, and nothing will.
    Failed,
    /// Nobody knows. It may have happened, may still happen, or never.
    Unknown,
}

/// What a client saw of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// From its body, where that was read.
    pub token: Option<Token>,
    /// Its flags, where they were read.
    pub flags: Option<FlagSet>,
}

/// One operation. UIDs in lists are ascending. What an answer tells is filled in by [`History::end`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// SMTP or LMTP, one recipient.
    Deliver {
        /// Where it goes.
        to: MailboxKey,
        /// What is in it.
        token: Token,
        /// BLAKE3 of the bytes as they are to be read, without what the server puts in front.
        digest: [u8; 32],
    },
    /// APPEND.
    Append {
        /// Where it goes.
        to: MailboxKey,
        /// What is in it.
        token: Token,
        /// BLAKE3 of the bytes.
        digest: [u8; 32],
        /// With which flags.
        flags: FlagSet,
        /// APPENDUID, once it is told.
        uid: Option<u32>,
    },
    /// UID STORE. Messages that are gone are passed over.
    Store {
        /// Where.
        mailbox: MailboxKey,
        /// Which messages.
        uids: Vec<u32>,
        /// How.
        change: FlagChange,
        /// What.
        flags: FlagSet,
    },
    /// UID COPY within an account; all or nothing.
    Copy {
        /// From where.
        from: MailboxKey,
        /// To where.
        to: MailboxKey,
        /// Which messages, and their COPYUID once it is told: then only those that it names. None when the command was
        /// acknowledged without one, since then nothing was copied.
        pairs: Vec<(u32, Option<u32>)>,
    },
    /// UID MOVE within an account; all or nothing.
    Move {
        /// From where.
        from: MailboxKey,
        /// To where.
        to: MailboxKey,
        /// As for a copy.
        pairs: Vec<(u32, Option<u32>)>,
    },
    /// UID EXPUNGE, EXPUNGE, CLOSE, or QUIT of POP3. Acknowledged: the UIDs that are gone by then; otherwise those that were
    /// to go.
    Expunge {
        /// Where.
        mailbox: MailboxKey,
        /// Which messages.
        uids: Vec<u32>,
    },
    /// CREATE, superiors with it.
    Create {
        /// Whose.
        account: u32,
        /// Its full name.
        name: String,
    },
    /// DELETE; mailboxes below it stay.
    Delete {
        /// Which mailbox that is.
        mailbox: MailboxKey,
        /// Its full name then.
        name: String,
    },
    /// RENAME, with all that is below; not of INBOX.
    Rename {
        /// Whose.
        account: u32,
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// LIST: the names of all mailboxes that exist.
    List {
        /// Whose.
        account: u32,
        /// Their names; filled in at the end.
        names: Vec<String>,
    },
    /// SELECT, STATUS, NOOP, or the login of POP3, and what was read in the state that it showed. Invoked when that command
    /// began, ended when the last of it was read.
    Read {
        /// Where.
        mailbox: MailboxKey,
        /// All messages by UID, when all were listed.
        messages: Option<Vec<(u32, Seen)>>,
        /// Some messages by UID, when only some were looked at.
        some: Vec<(u32, Seen)>,
        /// How many messages it said there are.
        count: Option<u32>,
    },
    /// The bytes of a message were read.
    Fetch {
        /// Where.
        mailbox: MailboxKey,
        /// Its UID; `None` by POP3.
        uid: Option<u32>,
        /// What was in it; `None` when there was none, which is a message that nobody sent.
        token: Option<Token>,
        /// BLAKE3 of the bytes, without what the server puts in front.
        digest: [u8; 32],
    },
}

/// One operation with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Which client.
    pub client: u32,
    /// To which node it was connected.
    pub node: u64,
    /// What.
    pub action: Action,
    /// When it began.
    pub invoked: Time,
    /// When it ended; `None` while it has not.
    pub ended: Option<Time>,
    /// How; `Unknown` until it ended.
    pub outcome: Outcome,
}

impl Op {
    /// Whether it is acknowledged.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Until when it must have taken effect; `None` for no bound.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.ended.filter(|_| self.is_ok())
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..", self.invoked)?;
        match self.ended {
            Some(ended) => write!(f, "{ended}]")?,
            None => write!(f, "]")?,
        }
        write!(
            f,
            " client {} node {} {:?}: {}",
            self.client, self.node, self.outcome, self.action
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver { to, token, .. } => write!(f, "deliver {token} to {to}"),
            Self::Append {
                to, token, flags, uid, ..
            } => write!(f, "append {token} {flags} to {to} as {uid:?}"),
            Self::Store {
                mailbox,
                uids,
                change,
                flags,
            } => write!(f, "store {mailbox} {uids:?} {change:?} {flags}"),
            Self::Copy { from, to, pairs } => write!(f, "copy {from} to {to} {pairs:?}"),
            Self::Move { from, to, pairs } => write!(f, "move {from} to {to} {pairs:?}"),
            Self::Expunge { mailbox, uids } => write!(f, "expunge {mailbox} {uids:?}"),
            Self::Create { account, name } => write!(f, "create user{account} {name}"),
            Self::Delete { mailbox, name } => write!(f, "delete {mailbox} {name}"),
            Self::Rename { account, from, to } => write!(f, "rename user{account} {from} to {to}"),
            Self::List { account, names } => write!(f, "list user{account} {names:?}"),
            Self::Read {
                mailbox,
                messages,
                some,
                count,
            } => {
                write!(f, "read {mailbox} count {count:?}")?;
                for (uid, seen) in messages.iter().flatten().chain(some) {
                    write!(f, " {uid}")?;
                    if let Some(token) = seen.token {
                        write!(f, "{token}")?;
                    }
                    if let Some(flags) = seen.flags {
                        write!(f, "{flags}")?;
                    }
                }
                Ok(())
            }
            Self::Fetch {
                mailbox, uid, token, ..
            } => write!(f, "fetch {mailbox} {uid:?} {token:?}"),
        }
    }
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpRef(usize);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct History {
    ops: Vec<Op>,
}

impl History {
    /// No operation yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An operation begins.
    pub fn invoke(&mut self, client: u32, node: u64, now: Time, action: Action) -> OpRef {
        self.ops.push(Op {
            client,
            node,
            action,
            invoked: now,
            ended: None,
            outcome: Outcome::Unknown,
        });
        OpRef(self.ops.len() - 1)
    }

    /// An operation ends; `fill` writes what the answer told into the action.
    pub fn end(&mut self, op: OpRef, now: Time, outcome: Outcome, fill: impl FnOnce(&mut Action)) {
        if let Some(op) = self.ops.get_mut(op.0) {
            op.ended = Some(now);
            op.outcome = outcome;
            fill(&mut op.action);
        }
    }

    /// All operations, in the order in which they began.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Operations that did not end by a bound after they began (I33).
    #[must_use]
    pub fn overdue(&self, now: Time, bound: std::time::Duration) -> Vec<crate::Violation> {
        let late = |op: &&Op| op.ended.unwrap_or(now) > op.invoked.plus(bound);
        let violation =
            |op: &Op| crate::Violation::at("I33", op.invoked, format!("did not end within {bound:?}: {op}"));
        self.ops.iter().filter(late).map(violation).collect()
    }
}
