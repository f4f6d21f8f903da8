//! The machine as a conversation: [`Talk`] plays the server with a small directory, and the client is wire text.

mod abuse;
mod addresses;
mod bdat;
mod data;
mod lmtp;
mod sasl;
mod session;

use super::*;
use crate::path::ForwardPath;

/// A message that was delivered, or would have been.
#[derive(Debug)]
struct Delivered {
    transaction: Box<Transaction>,
    bytes: Vec<u8>,
}

/// A session with a server that knows `b`, `c` and `postmaster` at `our.example`, one password, `secret`, and one at
/// which it has had enough, `once too often`.
struct Talk {
    machine: Machine,
    replies: Vec<u8>,
    under_way: Option<Delivered>,
    delivered: Vec<Delivered>,
    /// Taken instead of `250` at the end of data.
    data_verdict: Option<Vec<Reply>>,
    room_verdict: Verdict,
    /// The sizes for which room was asked.
    rooms: Vec<u64>,
    logins: Vec<String>,
    senders: Vec<String>,
    recipients: Vec<ForwardPath>,
    delays: Vec<Duration>,
    aborted: usize,
    tls_started: bool,
    closed: bool,
    read_bytes: usize,
}

fn config(role: Role) -> Config {
    Config {
        role,
        hostname: "mx.our.example".into(),
        tls: Tls::Available,
        plain_login: true,
        size_max: 1 << 20,
    }
}

impl Talk {
    fn new(config: Config) -> Self {
        let mut talk = Self {
            machine: Machine::new(config),
            replies: Vec::new(),
            under_way: None,
            delivered: Vec::new(),
            data_verdict: None,
            room_verdict: Verdict::Accepted,
            rooms: Vec::new(),
            logins: Vec::new(),
            senders: Vec::new(),
            recipients: Vec::new(),
            delays: Vec::new(),
            aborted: 0,
            tls_started: false,
            closed: false,
            read_bytes: 16 * 1024,
        };
        talk.input(Input::Connected).expect("220 mx.our.example");
        talk
    }

    /// Port 25, after EHLO.
    fn relay() -> Self {
        let mut talk = Self::new(config(Role::Relay));
        talk.send("EHLO client.example\r\n").expect("250 STARTTLS");
        talk
    }

    /// Port 587, after EHLO and AUTH.
    fn submission() -> Self {
        let mut talk = Self::new(config(Role::Submission));
        talk.send("EHLO c\r\nAUTH PLAIN AGIAc2VjcmV0\r\n")
            .expect_codes(&[250, 235]);
        talk
    }

    /// As [`Talk::relay`], with `354` already given.
    fn in_data(mut self) -> Self {
        self.send("MAIL FROM:<a@x.example>\r\nRCPT TO:<b@our.example>\r\nDATA\r\n")
            .expect_codes(&[250, 250, 354]);
        self
    }

    fn input(&mut self, input: Input<'_>) -> &mut Self {
        let mut actions = Vec::new();
        self.machine.handle(input, &mut actions);
        while !actions.is_empty() {
            let verdicts: Vec<Verdict> = actions.drain(..).filter_map(|action| self.carry_out(action)).collect();
            assert!(verdicts.len() <= 1, "one question at a time");
            for verdict in verdicts {
                self.machine.handle(Input::Verdict(verdict), &mut actions);
            }
        }
        assert!(self.machine.buffered_bytes() <= SMTP_PENDING_BYTES_MAX + SMTP_READ_BYTES_MAX + SASL_BYTES_MAX);
        self
    }

    fn carry_out(&mut self, action: Action) -> Option<Verdict> {
        assert!(!self.closed, "after Close: {action:?}");
        match action {
            Action::Reply(bytes) => self.replies.extend(bytes),
            Action::StartTls => self.tls_started = true,
            Action::Delay(duration) => self.delays.push(duration),
            Action::Close => self.closed = true,
            Action::Authenticate { identity, password } => {
                self.logins.push(identity);
                return Some(match password.expose() {
                    "secret" => Verdict::Accepted,
                    "once too often" => Verdict::Refused(Reply::new(421, Enhanced(4, 7, 0), "enough")),
                    _ => Verdict::Refused(Reply::new(535, Enhanced(5, 7, 8), "no")),
                });
            }
            Action::CheckSender { reverse_path, .. } => {
                self.senders.push(reverse_path.to_string());
                return Some(Verdict::Accepted);
            }
            Action::CheckRecipient { recipient, .. } => return Some(self.check_recipient(recipient)),
            Action::CheckRoom { size } => {
                self.rooms.push(size);
                return Some(self.room_verdict.clone());
            }
            Action::DataBegin(transaction) => {
                assert!(self.under_way.is_none());
                self.under_way = Some(Delivered {
                    transaction,
                    bytes: Vec::new(),
                });
            }
            Action::MessageBytes(bytes) => self.under_way.as_mut().unwrap().bytes.extend(bytes),
            Action::AbortMessage => {
                self.under_way.take().unwrap();
                self.aborted += 1;
            }
            Action::EndOfData => {
                let message = self.under_way.take().unwrap();
                let default =
                    || vec![Reply::new(250, Enhanced(2, 0, 0), "stored"); message.transaction.recipients.len()];
                let verdicts = self.data_verdict.clone().unwrap_or_else(default);
                self.delivered.push(message);
                return Some(Verdict::Data(verdicts));
            }
        }
        None
    }

    fn check_recipient(&mut self, recipient: Recipient) -> Verdict {
        self.recipients.push(recipient.forward_path.clone());
        let ForwardPath::Mailbox(address) = recipient.forward_path else {
            return Verdict::Accepted;
        };
        if address.domain.as_str() != "our.example" {
            return Verdict::Refused(Reply::new(550, Enhanced(5, 7, 1), "Relaying denied"));
        }
        let name = address.local_part.folded();
        if matches!(name.as_str(), "b" | "c" | "postmaster" | "\u{e9}") || name.starts_with("user") {
            Verdict::Accepted
        } else {
            Verdict::Refused(Reply::new(550, Enhanced(5, 1, 1), "Unknown"))
        }
    }

    fn send(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let read_bytes = self.read_bytes;
        for read in text.as_ref().chunks(read_bytes) {
            assert!(self.machine.wants_input() || self.closed || self.tls_started);
            self.input(Input::Bytes(read));
        }
        self
    }

    /// The next reply, its last line if it has several.
    fn next_reply(&mut self) -> String {
        loop {
            let text = String::from_utf8(self.replies.clone()).unwrap();
            let Some((line, rest)) = text.split_once("\r\n") else {
                return text;
            };
            self.replies = rest.as_bytes().to_vec();
            if line.as_bytes()[3] == b' ' {
                return line.to_owned();
            }
        }
    }

    /// The next reply begins so, and it is the last one so far.
    #[track_caller]
    fn expect(&mut self, reply: &str) -> &mut Self {
        let next = self.next_reply();
        assert!(next.starts_with(reply) && !next.is_empty(), "{next:?} is not {reply:?}");
        assert!(
            self.replies.is_empty(),
            "more: {:?}",
            String::from_utf8_lossy(&self.replies)
        );
        self
    }

    /// All replies so far have these codes.
    #[track_caller]
    fn expect_codes(&mut self, codes: &[u16]) -> &mut Self {
        let mut replies = Vec::new();
        while !self.replies.is_empty() {
            replies.push(self.next_reply());
        }
        let found: Vec<u16> = replies.iter().map(|reply| reply[..3].parse().unwrap()).collect();
        assert_eq!(found, codes, "{replies:?}");
        self
    }

    /// All replies so far begin so.
    #[track_caller]
    fn expect_all(&mut self, replies: &[&str]) -> &mut Self {
        for reply in replies {
            let next = self.next_reply();
            assert!(next.starts_with(reply), "{next:?} is not {reply:?}");
        }
        assert!(
            self.replies.is_empty(),
            "more: {:?}",
            String::from_utf8_lossy(&self.replies)
        );
        self
    }

    #[track_caller]
    fn expect_closed(&mut self) -> &mut Self {
        assert!(self.closed && !self.machine.wants_input());
        let before = self.senders.len();
        self.send("RSET\r\nMAIL FROM:<after@close.example>\r\n").expect_all(&[]);
        assert_eq!(self.senders.len(), before);
        self
    }

    /// The text of the one message that was delivered.
    #[track_caller]
    fn delivered_text(&self) -> &str {
        assert_eq!(self.delivered.len(), 1);
        std::str::from_utf8(&self.delivered[0].bytes).unwrap()
    }
}
