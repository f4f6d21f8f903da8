//! What the fuzz target and the seeded test drive: arbitrary octets in arbitrary pieces, and what must hold then.
//!
//! Not here: libFuzzer (`fuzz/`), the corpus and its mutation (`tests/mutated_commands.rs`).

use core_types::limits::{IMAP_LINE_BYTES_MAX, IMAP_LITERALS_BYTES_MAX};

use crate::command::CommandBody;
use crate::encode::{Encoder, Status};
use crate::reader::{CommandReader, Event, Refusal};
use crate::view::{NEVER_RECENT, SessionView};

/// Reads `data` as a connection's octets. Its first two octets decide how it is cut into pieces, whether the client
/// has logged in, which literals are offered and whether messages are taken.
///
/// # Panics
/// When an invariant is broken: memory beyond the limits, an event after a fatal error, octets of a message beyond
/// what was announced, an answer that is not one line.
pub fn fuzz_commands(data: &[u8]) {
    let Some((&[pieces, settings], mut rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mut reader = CommandReader::new(settings & 1 != 0);
    if settings & 2 != 0 {
        reader.set_logged_in();
    }
    let mut check = Check {
        refuse_append: settings & 4 != 0,
        message_left: None,
        closed: false,
    };
    let mut size = usize::from(pieces);
    while !rest.is_empty() {
        // Pieces of changing sizes, 1 to 256.
        size = size.wrapping_mul(5).wrapping_add(3) & 255;
        let (mut piece, tail) = rest.split_at(rest.len().min(size + 1));
        rest = tail;
        while let Some(event) = reader.poll(&mut piece) {
            check.handle(&mut reader, event);
        }
        assert!(piece.is_empty(), "octets that were not taken");
        assert!(reader.buffered_bytes() <= BUFFERED_BYTES_MAX, "memory over the limits");
    }
}

struct Check {
    refuse_append: bool,
    message_left: Option<u64>,
    closed: bool,
}

impl Check {
    fn handle(&mut self, reader: &mut CommandReader, event: Event<'_>) {
        assert!(!self.closed, "an event after a fatal error");
        match event {
            Event::Command(command) => match command.body {
                CommandBody::Idle => reader.begin_idle(command.tag),
                CommandBody::Authenticate { initial: None, .. } => reader.begin_authenticate(command.tag),
                CommandBody::Fetch { uid, set, .. } | CommandBody::Store { uid, set, .. } => {
                    if let Ok(view) = SessionView::new([], NEVER_RECENT) {
                        assert!(view.select(&set, uid).is_ok_and(|selected| selected.is_empty()) == uid);
                    }
                }
                _ => {}
            },
            Event::AppendStart(append) => {
                self.message_left = Some(append.size);
                if self.refuse_append {
                    let text = "Not wanted";
                    reader.refuse_append(Refusal {
                        tag: Some(append.tag),
                        status: Status::No,
                        code: None,
                        text,
                    });
                } else {
                    reader.accept_append();
                }
            }
            Event::AppendData(octets) => {
                let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
                self.message_left = self.message_left.and_then(|left| left.checked_sub(length));
                assert!(
                    self.message_left.is_some() && length > 0,
                    "octets that were not announced"
                );
            }
            Event::AppendEnd => assert_eq!(self.message_left.take(), Some(0), "a message that ended early"),
            Event::Refused(refusal) => {
                self.message_left = None;
                assert_one_line(|out| out.refusal(&refusal));
            }
            Event::Fatal(fatal) => {
                self.closed = true;
                assert_one_line(|out| out.fatal(&fatal));
            }
            Event::Continue | Event::AuthenticateResponse(_) | Event::IdleDone => {}
        }
    }
}

fn assert_one_line(write: impl FnOnce(&mut Encoder<'_>)) {
    let mut line = Vec::new();
    write(&mut Encoder::new(&mut line));
    let text = line.strip_suffix(b"\r\n");
    assert!(
        text.is_some_and(|text| text.iter().all(|byte| (b' '..=b'~').contains(byte))),
        "not one line"
    );
}

/// What one command may hold, twice since a growing vector doubles, and the headers of its literals.
const BUFFERED_BYTES_MAX: usize = 2 * (2 * IMAP_LINE_BYTES_MAX + IMAP_LITERALS_BYTES_MAX as usize) + 4096;
