//! IMAP4rev1 (RFC 3501) as values: command parser, response encoder, session view; sans-IO.
//!
//! - [`CommandReader`] eats bytes and yields [`Event`]s: whole [`Command`]s, "send a continuation", the pieces of an
//!   APPEND's message, lines of an AUTHENTICATE exchange, the end of IDLE, refusals, and the one event after which the
//!   connection must be closed. It never buffers more than its limits, and an APPEND's message not at all.
//! - [`Command`] is the syntax tree. What it holds is checked: a [`MailboxName`](core_types::MailboxName) is one, a
//!   [`SequenceSet`] is normalised, a search has a bounded depth, a string of a search is UTF-8.
//! - [`Encoder`] writes responses, [`FetchEncoder`] the items of one FETCH response, with room for a body that is
//!   streamed after its length was announced.
//! - [`SessionView`] maps sequence numbers to messages for one selected mailbox and says what the client may be told
//!   and when.
//!
//! Spoken: RFC 3501 with LITERAL+ and LITERAL- (RFC 7888), SASL-IR (RFC 4959), UIDPLUS (RFC 4315), MOVE (RFC 6851),
//! UNSELECT (RFC 3691), IDLE (RFC 2177), NAMESPACE (RFC 2342), ID (RFC 2971), CHILDREN (RFC 3348), LIST-EXTENDED's
//! options (RFC 5258), LIST-STATUS (RFC 5819), SPECIAL-USE and CREATE-SPECIAL-USE (RFC 6154).
//!
//! Not here, and never: sockets, clocks, tokio, TLS, the mailstore, MIME parsing. Which command is allowed in which
//! state of the session is the server's matter, except that nothing is streamed before login.

pub mod command;
pub mod date;
pub mod encode;
pub mod fuzzing;
pub mod list_pattern;
pub mod mailbox_name;
mod parse;
pub mod reader;
pub mod sequence_set;
pub mod view;

pub use command::{Command, CommandBody, Tag};
pub use encode::{Code, Encoder, FetchEncoder, Status};
pub use list_pattern::ListPattern;
pub use reader::{CommandReader, Event, Fatal, Refusal};
pub use sequence_set::SequenceSet;
pub use view::SessionView;
