//! Every limit of the system, with its unit, its reason and what it costs at worst. A limit that stands elsewhere is a
//! defect; the tidy test looks for it.

use std::time::Duration;

// Messages.

/// Octets of one message as stored. Reason: large enough for the attachments that people send. Cost: this much disk per
/// message on three nodes; in memory never more than [`MESSAGE_MEMORY_BYTES_MAX`].
pub const MESSAGE_BYTES_MAX: u64 = 50 * 1024 * 1024;
/// Octets of the trace fields (Return-Path, Received) that we put in front of a message: one of the largest size may
/// still have them.
pub const MESSAGE_TRACE_BYTES_MAX: u64 = 4096;
/// Octets of a message that a front end holds in memory before it goes on to disk. Cost: this much per transaction.
pub const MESSAGE_MEMORY_BYTES_MAX: usize = 256 * 1024;
/// Octets of a message's header block. Reason: what Dovecot refuses too (CVE-2024-23185). Larger ones are refused.
pub const HEADER_BLOCK_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Octets of one header field that the index looks at. The stored bytes are never cut.
pub const HEADER_FIELD_INDEXED_BYTES_MAX: usize = 100 * 1024;
/// Received fields in a message that is accepted. Reason: RFC 5321 6.3 loop detection.
pub const RECEIVED_COUNT_MAX: usize = 50;

// MIME, as far as derived data goes; the stored bytes never change.

/// Levels of multipart and message/rfc822. Deeper ones are one opaque leaf. Cost: one stack entry each.
pub const MIME_DEPTH_MAX: usize = 100;
/// Parts of one message. The rest is one opaque leaf. Reason: CVE-2020-12100.
pub const MIME_PARTS_MAX: usize = 10_000;
/// Octets of header values that one message's derived data holds; fields beyond are left out. Cost: this much memory, a
/// few times over, for each message that is scanned.
pub const MIME_DERIVED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Octets of a boundary that is honoured (RFC 2046 says 70; some programs make longer ones).
pub const MIME_BOUNDARY_BYTES_MAX: usize = 200;
/// RFC 2231 parameters of one field that are parsed. Reason: CVE-2026-27859.
pub const MIME_PARAMETERS_MAX: usize = 64;
/// Addresses of one message that the index keeps. Reason: CVE-2024-23184.
pub const MIME_ADDRESSES_MAX: usize = 10_000;
/// Levels of comments in a structured field. Deeper ones are raw text.
pub const MIME_COMMENT_DEPTH_MAX: usize = 32;
/// Message ids of References that threads use: the last ones.
pub const MIME_REFERENCES_MAX: usize = 100;
/// Octets of a message id that threads use. Reason: RFC 5322 2.1.1 gives a line no more.
pub const MIME_REFERENCE_BYTES_MAX: usize = 998;
/// Octets of an encoded word that is decoded: RFC 2047 2 says 75, some programs put whole subjects in one.
pub const MIME_ENCODED_WORD_BYTES_MAX: usize = 4096;
/// Characters of a preview (RFC 8970 3.1).
pub const MIME_PREVIEW_CHARS_MAX: usize = 256;
/// Stored octets of a text part that a preview is made of. Reason: style sheets stand before the text in HTML.
pub const MIME_PREVIEW_SOURCE_BYTES_MAX: usize = 16 * 1024;
/// Octets of a message's cached structure that are kept in the index; a larger one is made anew from the blob.
pub const STRUCTURE_BYTES_MAX: usize = 64 * 1024;

// Addresses.

/// Octets of a local part (RFC 5321 4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Octets of a domain (RFC 5321 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;

/// Aliases in aliases. Cost: a look-up each at RCPT.
pub const ALIAS_DEPTH_MAX: usize = 10;
/// Recipients behind one alias, and its targets. Reason: what one transaction may have. Cost: a delivery each.
pub const ALIAS_RECIPIENTS_MAX: usize = 1000;

// Mailboxes.

/// Octets of a mailbox name in UTF-8. Reason: it is a key of the index.
pub const MAILBOX_NAME_BYTES_MAX: usize = 1000;
/// Levels of a mailbox name.
pub const MAILBOX_DEPTH_MAX: usize = 32;
/// Mailboxes of one account. Cost: LIST reads one row for each.
pub const MAILBOXES_PER_ACCOUNT_MAX: usize = 10_000;
/// Octets of a keyword.
pub const KEYWORD_BYTES_MAX: usize = 128;
/// Different keywords in one mailbox. Reason: FLAGS and PERMANENTFLAGS list them all.
pub const KEYWORDS_PER_MAILBOX_MAX: usize = 256;
/// Messages named by one op. Reason: nothing else happens in a group while one of its ops is applied, and this many take some
/// 2 s where three nodes share two cores (80 to 290 us each; MOVE and EXPUNGE cost the most). Larger COPY and MOVE, and
/// RENAME of a larger INBOX, are refused: each is done as a whole or not at all. Larger STORE and EXPUNGE are cut into several ops.
pub const MESSAGES_PER_OP_MAX: usize = 8000;
// 16 octets each fit an entry.
const _: () = assert!(MESSAGES_PER_OP_MAX as u64 * 16 < ENTRY_BYTES_MAX / 2);

// The cluster.

/// Octets of one log entry.
pub const ENTRY_BYTES_MAX: u64 = 1024 * 1024;
/// Octets of one record of the log: an entry with what consensus adds to it (a membership may be larger than an op).
pub const LOG_RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Octets that one write to the log takes together. Reason: an entry that comes meanwhile waits for all of them.
pub const LOG_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Octets of log records that wait to be written. Reason: beyond it the proposer waits. Cost: this much memory.
pub const LOG_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Octets of recent log entries, of all groups, that are read from memory. Cost: this much memory.
pub const LOG_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Octets of a segment of the log. Cost: one is written with zeros before it is used, and stands ready on the disk.
pub const LOG_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Octets of disk below which a leader takes no new ops, except those that free space. Reason: what is under way, snapshots
/// and the index still find room. Cost: this much of the disk stays unused.
pub const PROPOSE_RESERVE_BYTES: u64 = 3 * LOG_SEGMENT_BYTES;
/// Octets of entries that one answer of the log to a follower holds at most, if it is more than one.
pub const LOG_READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Octets of one frame between nodes. Cost: this much per request under way.
pub const FRAME_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Octets of one chunk of a snapshot or of a large blob between nodes.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Requests that one peer may have under way here, for each class of stream.
pub const PEER_REQUESTS_MAX: u32 = 1024;
/// Streams that one node keeps open to a peer at once, for each class; further requests wait. Reason: QUIC keeps a table
/// entry for each stream that a peer may open. Cost: some 300 octets each.
pub const PEER_STREAMS_MAX: u32 = 256;
/// Octets of one class's requests, and of its answers that wait to be sent, held for one peer; further ones are refused
/// as busy. Cost: this much, twice for each class and peer, at worst.
pub const PEER_CLASS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Octets of a frame's header between nodes.
pub const FRAME_HEADER_BYTES_MAX: usize = 256;
/// Octets of a request to join and of its answer.
pub const JOIN_BYTES_MAX: u64 = 64 * 1024;
/// Octets of a join token as text.
pub const JOIN_TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Addresses in a join token.
pub const JOIN_TOKEN_ADDRESSES_MAX: usize = 16;
/// Handshakes under way from which a new address has to prove itself with a Retry (RFC 9000 8.1.2).
pub const HANDSHAKES_RETRY: usize = 64;
/// Handshakes under way at one node; further ones are dropped. Cost: some 20 KiB each.
pub const HANDSHAKES_MAX: usize = 1024;
/// Replicas of one group; a slot is given to each. A site takes so many nodes; a further one is refused.
pub const SLOTS_MAX: u8 = 31;
/// How long a voter may leave a put unanswered before it is skipped.
pub const BLOB_PUT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long puts do not wait for a voter that left one unanswered, unless there are too few copies without it. Reason: a node
/// that hangs would cost each message a second. Cost: what is stored meanwhile has a copy less until the voter fetches it.
pub const BLOB_SILENT_FOR: Duration = Duration::from_secs(5);
/// Copies of each blob that a group with three voters or more wants.
pub const BLOB_COPIES: usize = 3;

// Blobs.

/// Octets of one blob: a message and the trace fields that we put in front of it.
pub const BLOB_BYTES_MAX: u64 = MESSAGE_BYTES_MAX + 1024 * 1024;
const _: () = assert!(BLOB_BYTES_MAX >= MESSAGE_BYTES_MAX + MESSAGE_TRACE_BYTES_MAX);
/// Octets of the message in one frame of a blob's file: what is decoded and verified to serve any byte of it. A power of
/// two, so that a frame is a subtree of the BLAKE3 tree.
pub const BLOB_FRAME_BYTES: usize = 1024 * 1024;
/// Octets of an encoded blob that goes through the blob journal and in one request; larger ones go straight to their file
/// and in one request for each frame.
pub const BLOB_INLINE_BYTES_MAX: usize = 1024 * 1024;
/// Octets of one preallocated segment of the blob journal.
pub const BLOB_JOURNAL_SEGMENT_BYTES: u32 = 16 * 1024 * 1024;
/// Segments of the blob journal; a put waits when all are in use. Cost: this many segments of disk.
pub const BLOB_JOURNAL_SEGMENTS: u32 = 4;
/// Octets of one batch of the blob journal. Cost: this much memory.
pub const BLOB_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Octets of disk that blobs leave free, so that the log can still be written when mail is refused.
pub const BLOB_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// How long a blob that nothing refers to stays, and how long a put protects it. Reason: longer than any op is in doubt.
pub const BLOB_GRACE: Duration = Duration::from_secs(3600);
/// Blobs that are marked for collection at a time. Cost: some 100 octets each.
pub const BLOB_MARKS_MAX: usize = 100_000;
/// Large blobs that one peer may have under way to this node. Cost: a temporary file each.
pub const BLOB_TRANSFERS_MAX: usize = 64;
/// How long such a transfer may rest before it is dropped.
pub const BLOB_TRANSFER_IDLE: Duration = Duration::from_secs(30);
/// Small blobs that are verified at a time for peers. Cost: some 3 MiB each.
pub const BLOB_VERIFIES_MAX: usize = 16;
/// How long one request that reads a blob from a peer may take.
pub const BLOB_FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long this node's own disk may take to store a blob before it is skipped like a voter that does not answer.
pub const BLOB_LOCAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Blob ids in one request.
pub const BLOB_PAGE_MAX: usize = 1024;
/// Blobs of one group of which a node remembers that one voter lacks them; of further ones only the number, and a
/// comparison finds them. Cost: some 50 octets each.
pub const BLOB_LACKING_MAX: usize = 10_000;
/// Blobs that are fetched from other nodes at a time, for each group. Cost: a frame each.
pub const BLOB_FETCHES_MAX: usize = 4;
/// Octets of one file of a manifest; then a new one is begun.
pub const MANIFEST_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Octets of one line of a manifest. Reason: a message may have every keyword of its mailbox.
pub const MANIFEST_LINE_BYTES_MAX: usize = 64 * 1024;

// Credentials.

/// Octets of a password; longer ones are refused before they are hashed.
pub const PASSWORD_BYTES_MAX: usize = 4096;
/// Octets of one SASL exchange.
pub const SASL_BYTES_MAX: usize = 16 * 1024;

// SMTP.

/// Octets of a command line without CRLF (RFC 5321 4.5.3.1.4 says 512, extensions add to it).
pub const SMTP_LINE_BYTES_MAX: usize = 2048;
/// Octets without a line end after which the connection is closed.
pub const SMTP_LINE_CLOSE_BYTES: usize = 64 * 1024;
/// Recipients of one transaction; further ones get 452.
pub const SMTP_RECIPIENTS_MAX: usize = 1000;
/// Errors of one session from which each answer is slower.
pub const SMTP_ERRORS_SLOW: u32 = 10;
/// Errors of one session at which it is closed.
pub const SMTP_ERRORS_MAX: u32 = 20;
/// NOOP, RSET, VRFY and HELP without a message; further ones count as errors.
pub const SMTP_JUNK_COMMANDS_MAX: u32 = 100;
/// Recipients that do not exist in one session of the relay listener, after which it is closed. Reason: harvesting.
pub const SMTP_UNKNOWN_RECIPIENTS_MAX: u32 = 20;
/// Octets of a BDAT chunk below which it is tiny.
pub const SMTP_CHUNK_TINY_BYTES: u64 = 1024;
/// Tiny BDAT chunks without a delivered message, after which the session is closed.
pub const SMTP_CHUNKS_TINY_MAX: u32 = 1000;
/// Octets of pipelined commands that wait for the answer to an earlier one; above it the server stops reading. Cost:
/// this much and one read ([`SMTP_READ_BYTES_MAX`]) per connection.
pub const SMTP_PENDING_BYTES_MAX: usize = 16 * 1024;
/// Octets that the server hands to the session machine at once.
pub const SMTP_READ_BYTES_MAX: usize = 64 * 1024;
/// How many times the size limit of a message is read and thrown away before the connection is closed.
pub const SMTP_DRAIN_FACTOR: u64 = 2;
/// How long one command may take as a whole (RFC 5321 4.5.3.2).
pub const SMTP_COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Octets per second below which DATA (and IMAP's APPEND) is given up, averaged over [`SMTP_DATA_RATE_WINDOW`].
pub const SMTP_DATA_RATE_MIN: u64 = 500;
/// Over how long the rate of DATA is averaged.
pub const SMTP_DATA_RATE_WINDOW: Duration = Duration::from_secs(60);
/// How long the relay listener waits for a client that speaks before the greeting.
pub const SMTP_EARLY_TALKER_WAIT: Duration = Duration::from_millis(100);
/// How long a closed connection is read from, so that the client gets our last reply.
pub const SMTP_LINGER: Duration = Duration::from_secs(1);
/// How long a TLS handshake may take.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

// IMAP.

/// Octets of one command without its literals.
pub const IMAP_LINE_BYTES_MAX: usize = 64 * 1024;
/// Octets of one literal in a command other than APPEND (RFC 9051 4.3 lets us refuse).
pub const IMAP_LITERAL_BYTES_MAX: u64 = 100 * 1024;
/// Octets of all literals of one command other than APPEND's message.
pub const IMAP_LITERALS_BYTES_MAX: u64 = 1024 * 1024;
/// Literals of one command.
pub const IMAP_LITERALS_MAX: usize = 1000;
/// Octets of what a client may make us hold before it has logged in.
pub const IMAP_PREAUTH_BYTES_MAX: usize = 64 * 1024;
/// Octets of a tag.
pub const IMAP_TAG_BYTES_MAX: usize = 128;
/// Levels of search keys in each other.
pub const IMAP_SEARCH_DEPTH_MAX: usize = 64;
/// Strings that one SEARCH looks for. Reason: clients send a few. Cost: each is looked for in every text.
pub const IMAP_SEARCH_STRINGS_MAX: usize = 64;
/// Levels of parentheses elsewhere. Reason: CVE-2026-27857.
pub const IMAP_LIST_DEPTH_MAX: usize = 32;
/// Octets of a non-synchronising literal where only LITERAL- is offered (RFC 7888).
pub const IMAP_LITERAL_MINUS_BYTES_MAX: u64 = 4096;
/// Items of one FETCH. Reason: far above what clients send. Cost: each is an answer per message.
pub const IMAP_FETCH_ITEMS_MAX: usize = 256;
/// Patterns of one LIST. Reason: clients send two or three. Cost: each is matched with every name.
pub const IMAP_LIST_PATTERNS_MAX: usize = 16;
/// Octets of a quoted string in a response; longer ones are literals. Reason: clients read lines into small buffers.
pub const IMAP_QUOTED_BYTES_MAX: usize = 1000;
/// Pairs of ID (RFC 2971 3.3).
pub const IMAP_ID_PAIRS_MAX: usize = 30;
/// Octets of a field of ID (RFC 2971 3.3).
pub const IMAP_ID_FIELD_BYTES_MAX: usize = 30;
/// Octets of a value of ID (RFC 2971 3.3).
pub const IMAP_ID_VALUE_BYTES_MAX: usize = 1024;
/// How long a client may be silent after login (RFC 9051 5.4 asks for 30 minutes at least).
pub const IMAP_IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How long a client may be silent before login.
pub const IMAP_LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to log in, whatever else it does meanwhile. Reason: a connection is held for it.
pub const IMAP_LOGIN_TIME_MAX: Duration = Duration::from_secs(3 * 60);
/// Failed logins of one session at which it is closed.
pub const IMAP_AUTH_FAILURES_MAX: u32 = 5;
/// Commands before login that are refused, after which the session is closed.
pub const IMAP_ERRORS_BEFORE_LOGIN_MAX: u32 = 20;
/// Octets of further commands that are read while one runs; the rest waits in the network. Cost: this much per session.
pub const IMAP_READ_AHEAD_BYTES_MAX: usize = 4096;
/// Messages of one FETCH whose bytes cannot be had, after which no more are tried. Reason: each may take as long as asking
/// every other node does.
pub const IMAP_FETCH_FAILURES_MAX: u32 = 10;
/// Mailboxes of which a node remembers what it announced, for `\Recent`. Cost: some 40 octets each.
pub const IMAP_RECENT_MAILBOXES_MAX: usize = 100_000;
/// Sessions of one account on one node.
pub const SESSIONS_PER_ACCOUNT_MAX: usize = 100;

// POP3.

/// Octets of a command line with its CRLF (RFC 2449 4).
pub const POP3_LINE_BYTES_MAX: usize = 255;
/// Octets without a line end after which the connection is closed.
pub const POP3_LINE_CLOSE_BYTES: usize = 4096;
/// Octets that the machine takes at once. Cost: this much per session, once more while it waits for an answer.
pub const POP3_READ_BYTES_MAX: usize = 16 * 1024;
/// Octets of answers after which the machine waits for the server to send them; one answer line may go beyond.
pub const POP3_OUTPUT_STEP_BYTES: usize = 16 * 1024;
/// Errors of one session at which it is closed.
pub const POP3_ERRORS_MAX: u32 = 50;
/// Failed logins of one session at which it is closed.
pub const POP3_AUTH_FAILURES_MAX: u32 = 5;
/// NOOP, CAPA, STAT and RSET in a row, with no command on a message between them, at which a session is closed. Reason:
/// they cost the client nothing; ten seconds apart, this many last for a day.
pub const POP3_JUNK_COMMANDS_MAX: u32 = 10_000;
/// How long a client may be silent (RFC 1939 3 asks for 10 minutes at least).
pub const POP3_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

// Every front end.

/// Connections at the same time from one address to one listener.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 100;
/// Connections at the same time to one node, over all listeners.
pub const CONNECTIONS_MAX: usize = 25_000;
/// Octets of answers that wait for a client to read them. Cost: this much per connection.
pub const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;
/// How long a client may leave its answers unread.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

// Memory of what was done.

/// How long a delivery is remembered by its GUID at least, in op time.
pub const DELIVERY_MEMORY: Duration = Duration::from_secs(35 * 24 * 3600);
/// How long expunged messages are retained at least.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far an op's time may lie beyond the previous op's.
pub const OP_TIME_STEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// Unsettled ops of one boot of one node that a group remembers; a further one is refused until some are settled.
pub const UNSETTLED_OPS_MAX: usize = 4096;

// The queue.

/// How long a message waits in the queue before it is given up (RFC 5321 4.5.4.1 asks for four to five days at least).
pub const QUEUE_EXPIRY: Duration = Duration::from_secs(5 * 24 * 3600);
/// Attempts without which nothing is given up, however late it is. Reason: clocks may be wrong, and nodes away. The pauses
/// between so many last for half a day.
pub const QUEUE_EXPIRY_ATTEMPTS_MIN: u32 = 24;
/// The first pause before a recipient that is one of ours is tried again; it doubles up to [`QUEUE_RETRY_MAX`].
pub const QUEUE_FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest pause between two attempts.
pub const QUEUE_RETRY_MAX: Duration = Duration::from_secs(3600);
/// How long one attempt to deliver an entry may take; until then no other node tries it.
pub const QUEUE_ATTEMPT_TIME: Duration = Duration::from_secs(120);
/// Entries of one group that are tried at a time. Cost: a message being read and written each.
pub const QUEUE_ATTEMPTS_MAX: usize = 8;
/// Octets of a message that a report returns whole; of a larger one it returns the header.
pub const QUEUE_RETURN_BYTES_MAX: u64 = 1024 * 1024;
/// Octets of a header that a report returns.
pub const QUEUE_RETURN_HEADER_BYTES_MAX: u64 = 64 * 1024;
