//! One fuzzed session, with what must hold for each: for cargo-fuzz and for the seeded test.
//!
//! The first octet picks listener, TLS and how the rest is cut into reads; the server's verdicts come from a small
//! generator, so that one input is always one session. A broken invariant panics.

use core_types::testing::Random;

use crate::{Action, Config, Enhanced, Input, Machine, Reply, Role, Tls, Verdict};

/// What has been seen of the session.
struct Observer {
    random: Random,
    role: Role,
    in_message: bool,
    recipients: usize,
    message_bytes: u64,
    /// The last octet of the message so far.
    last: u8,
    closed: bool,
}

/// Small, so that the limit and the drain beyond it are reached.
const SIZE_MAX: u64 = 300;

/// What the machine may hold: pending input, one read and one line of an AUTH exchange.
const BUFFERED_MAX: usize = 96 * 1024 + 2;

/// Runs the octets as one session.
///
/// # Panics
/// When an invariant of the machine does not hold.
pub fn fuzz_session(data: &[u8]) {
    let Some((&control, input)) = data.split_first() else {
        return;
    };
    let role = [Role::Relay, Role::Submission, Role::Lmtp]
        .into_iter()
        .nth(usize::from(control % 3))
        .unwrap_or(Role::Relay);
    let tls = if control & 0x10 == 0 {
        Tls::Available
    } else {
        Tls::Active
    };
    let plain_login = control & 0x20 == 0;
    let mut machine = Machine::new(Config {
        role,
        hostname: "fuzz.example".into(),
        tls,
        plain_login,
        size_max: SIZE_MAX,
    });
    let mut observer = Observer {
        random: Random::new(u64::from(control)),
        role,
        in_message: false,
        recipients: 0,
        message_bytes: 0,
        last: 0,
        closed: false,
    };
    observer.step(&mut machine, Input::Connected);
    let mut rest = input;
    while !rest.is_empty() && !observer.closed {
        assert!(machine.wants_input(), "no question is open, and it does not read");
        let (read, after) = rest
            .split_at_checked(observer.read_length(control))
            .unwrap_or((rest, &[]));
        rest = after;
        observer.step(&mut machine, Input::Bytes(read));
    }
    observer.step(&mut machine, Input::Disconnected);
    assert!(
        observer.closed && !observer.in_message,
        "a session that is over holds nothing"
    );
}

impl Observer {
    fn read_length(&mut self, control: u8) -> usize {
        if control & 0x40 == 0 {
            1 + self.random.below(64)
        } else {
            1 + self.random.below(3)
        }
    }

    /// One input, and the verdicts that follow from it.
    fn step(&mut self, machine: &mut Machine, input: Input<'_>) {
        let mut actions = Vec::new();
        machine.handle(input, &mut actions);
        loop {
            let mut answer = None;
            for action in actions.drain(..) {
                assert!(!self.closed, "nothing after Close: {action:?}");
                assert!(answer.is_none(), "nothing after a question: {action:?}");
                answer = self.observe(action);
            }
            assert!(machine.buffered_bytes() <= BUFFERED_MAX, "memory is bounded");
            match answer {
                Some(answer) => machine.handle(answer, &mut actions),
                None => return,
            }
        }
    }

    fn observe(&mut self, action: Action) -> Option<Input<'static>> {
        match action {
            Action::Reply(bytes) => check_replies(&bytes),
            Action::Delay(_) => {}
            Action::Close => self.closed = true,
            Action::StartTls => return Some(Input::TlsDone),
            Action::Authenticate { .. }
            | Action::CheckSender { .. }
            | Action::CheckRecipient { .. }
            | Action::CheckRoom { .. } => {
                return Some(Input::Verdict(self.verdict()));
            }
            Action::DataBegin(transaction) => {
                assert!(
                    !self.in_message && !transaction.recipients.is_empty(),
                    "a message has recipients"
                );
                assert!(
                    self.role != Role::Submission || transaction.identity.is_some(),
                    "submission has a login"
                );
                self.in_message = true;
                self.recipients = transaction.recipients.len();
                self.message_bytes = 0;
                self.last = b'\n';
            }
            Action::MessageBytes(bytes) => self.message(&bytes),
            Action::AbortMessage => assert!(std::mem::take(&mut self.in_message), "there is something to abort"),
            Action::EndOfData => {
                assert!(std::mem::take(&mut self.in_message), "there is something to end");
                assert!(self.last != b'\r', "a message has no bare CR at its end");
                let replies = (0..self.recipients).map(|_| self.data_reply()).collect();
                return Some(Input::Verdict(Verdict::Data(replies)));
            }
        }
        None
    }

    fn message(&mut self, bytes: &[u8]) {
        assert!(self.in_message, "octets belong to a message");
        self.message_bytes += bytes.len() as u64;
        assert!(self.message_bytes <= SIZE_MAX, "the limit holds");
        for &byte in bytes {
            assert_eq!(self.last == b'\r', byte == b'\n', "CR and LF stand together only");
            self.last = byte;
        }
    }

    fn verdict(&mut self) -> Verdict {
        match self.random.below(8) {
            0 => Verdict::Refused(Reply::new(550, Enhanced(5, 1, 1), "no")),
            1 => Verdict::Refused(Reply::new(450, Enhanced(4, 2, 0), "later")),
            _ => Verdict::Accepted,
        }
    }

    fn data_reply(&mut self) -> Reply {
        match self.random.below(4) {
            0 => Reply::new(552, Enhanced(5, 2, 2), "full"),
            _ => Reply::new(250, Enhanced(2, 0, 0), "stored"),
        }
    }
}

/// RFC 5321 4.2: lines of three digits from 200 to 599, space or hyphen, printable text; the last one with a space.
fn check_replies(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let lines = text
        .strip_suffix("\r\n")
        .map(|text| text.split("\r\n").collect::<Vec<_>>())
        .unwrap_or_default();
    assert!(!lines.is_empty(), "replies end in CRLF: {text:?}");
    for line in &lines {
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_some_and(|code| (200..600).contains(&code)), "a code: {line:?}");
        assert!(
            matches!(line.as_bytes().get(3), Some(b' ' | b'-')),
            "a separator: {line:?}"
        );
        assert!(
            line.len() <= 510 && line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "printable: {line:?}"
        );
    }
    assert_eq!(
        lines.last().and_then(|line| line.as_bytes().get(3)),
        Some(&b' '),
        "whole replies only"
    );
}
