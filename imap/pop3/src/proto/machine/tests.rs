//! Tests of the machine, with the `pop3-*` rows of the catalogue of bad inputs that end here.

use super::*;

fn guid(number: u64) -> MessageGuid {
    MessageGuid(u128::from(number).to_be_bytes())
}

/// A session with a server that does as it was told.
struct Talk {
    machine: Machine,
    maildrop: Vec<Entry>,
    login: Verdict,
    commit: Verdict,
    sent: String,
    /// Questions, in their order.
    asked: Vec<String>,
    largest_reply: usize,
}

impl Talk {
    fn new(tls: Tls, plain_login: bool) -> Self {
        let entry = |number: u64| Entry {
            size: number * 100,
            guid: guid(number),
        };
        let mut talk = Self {
            machine: Machine::new(
                Config {
                    host: "mail.example".to_owned(),
                    plain_login,
                },
                tls,
            ),
            maildrop: (1..=3).map(entry).collect(),
            login: Verdict::Accepted,
            commit: Verdict::Accepted,
            sent: String::new(),
            asked: Vec::new(),
            largest_reply: 0,
        };
        talk.input(Input::Connected);
        assert_eq!(std::mem::take(&mut talk.sent), "+OK mail.example POP3 ready\r\n");
        talk
    }

    fn logged_in() -> Self {
        let mut talk = Self::new(Tls::Active, false);
        talk.send("USER a\r\nPASS b\r\n").expect("+OK\r\n+OK 3 messages\r\n");
        talk
    }

    fn send(&mut self, text: &str) -> &mut Self {
        self.input(Input::Bytes(text.as_bytes()));
        self
    }

    fn expect(&mut self, text: &str) -> &mut Self {
        assert_eq!(std::mem::take(&mut self.sent), text);
        self
    }

    fn input(&mut self, input: Input<'_>) {
        let mut actions = Vec::new();
        self.machine.handle(input, &mut actions);
        let mut at_once = 0;
        for action in actions {
            let verdict = match action {
                Action::Reply(bytes) => {
                    at_once += bytes.len();
                    self.largest_reply = self.largest_reply.max(at_once);
                    self.sent.push_str(std::str::from_utf8(&bytes).unwrap());
                    continue;
                }
                Action::Close => {
                    self.sent.push_str("(closed)");
                    continue;
                }
                Action::StartTls => {
                    self.input(Input::TlsDone);
                    continue;
                }
                Action::Resume => {
                    self.input(Input::Resume);
                    continue;
                }
                Action::Authenticate { identity, password } => {
                    self.asked.push(format!("login {identity} {}", password.expose()));
                    self.login.clone()
                }
                Action::OpenMaildrop => Verdict::Maildrop(self.maildrop.clone()),
                Action::Retrieve { index } => {
                    self.asked.push(format!("retrieve {index}"));
                    Verdict::Accepted
                }
                Action::Top { index, lines } => {
                    self.asked.push(format!("top {index} {lines}"));
                    Verdict::Accepted
                }
                Action::SendMessage { index, mut encoder } => {
                    let mut out = Vec::new();
                    encoder.encode(format!("Subject: {index}\r\n\r\n.body\r\nmore").as_bytes(), &mut out);
                    encoder.finish(&mut out);
                    self.sent.push_str(std::str::from_utf8(&out).unwrap());
                    Verdict::Sent
                }
                Action::Commit { deleted } => {
                    self.asked.push(format!("commit {deleted:?}"));
                    self.commit.clone()
                }
            };
            self.input(Input::Verdict(verdict));
        }
    }
}

#[test]
fn a_session_reads_and_deletes() {
    let mut talk = Talk::logged_in();
    talk.send("STAT\r\nLIST\r\nuidl 2\r\n").expect(&format!(
        "+OK 3 600\r\n+OK\r\n1 100\r\n2 200\r\n3 300\r\n.\r\n+OK 2 {:032x}\r\n",
        2
    ));
    talk.send("RETR 2\r\n")
        .expect("+OK 200 octets\r\nSubject: 1\r\n\r\n..body\r\nmore\r\n.\r\n");
    talk.send("TOP 1 1\r\n")
        .expect("+OK\r\nSubject: 0\r\n\r\n..body\r\n.\r\n");
    talk.send("DELE 1\r\nSTAT\r\nUIDL\r\n").expect(&format!(
        "+OK deleted at QUIT\r\n+OK 2 500\r\n+OK\r\n2 {:032x}\r\n3 {:032x}\r\n.\r\n",
        2, 3
    ));
    talk.send("RSET\r\nSTAT\r\n").expect("+OK 3 messages\r\n+OK 3 600\r\n");
    talk.send("DELE 3\r\nDELE 2\r\nQUIT\r\nNOOP\r\n")
        .expect("+OK deleted at QUIT\r\n+OK deleted at QUIT\r\n+OK\r\n(closed)");
    assert_eq!(talk.asked, ["login a b", "retrieve 1", "top 0 1", "commit [1, 2]"]);
}

#[test]
fn quit_without_deletes_asks_nothing() {
    let mut talk = Talk::logged_in();
    talk.send("QUIT\r\n").expect("+OK\r\n(closed)");
    assert_eq!(talk.asked, ["login a b"]);
    Talk::new(Tls::Available, false)
        .send("QUIT\r\n")
        .expect("+OK\r\n(closed)");
}

#[test]
fn capa_says_what_holds_now() {
    let common = "+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\n";
    Talk::new(Tls::Available, false)
        .send("CAPA\r\n")
        .expect(&format!("{common}STLS\r\n.\r\n"));
    Talk::new(Tls::Unavailable, true)
        .send("CAPA\r\n")
        .expect(&format!("{common}USER\r\nSASL PLAIN\r\n.\r\n"));
    Talk::logged_in()
        .send("CAPA\r\n")
        .expect(&format!("{common}USER\r\nSASL PLAIN\r\n.\r\n"));
}

#[test]
fn auth_plain_takes_its_response_now_or_later() {
    let welcome = "+OK 3 messages\r\n";
    Talk::new(Tls::Active, false)
        .send("AUTH PLAIN AGEAYg==\r\n")
        .expect(welcome);
    Talk::new(Tls::Active, false)
        .send("auth plain\r\n")
        .expect("+ \r\n")
        .send("YQBhAGI=\r\n")
        .expect(welcome);
    let mut talk = Talk::new(Tls::Active, false);
    talk.send("AUTH PLAIN\r\n*\r\n").expect("+ \r\n-ERR cancelled\r\n");
    for bad in ["=", "AGEA", "AGEAYg", "YgBhAGI=", "!!!!", "AGEAYgBj"] {
        talk.send(&format!("AUTH PLAIN {bad}\r\n"))
            .expect("-ERR [AUTH] malformed response\r\n");
    }
    talk.send("AUTH CRAM-MD5\r\nAUTH\r\n")
        .expect("-ERR unknown mechanism\r\n-ERR wrong arguments\r\n");
    assert!(talk.asked.is_empty());
}

#[test]
fn a_long_sasl_response_is_read_but_not_an_endless_one() {
    use base64::Engine;
    let encode =
        |length: usize| base64::engine::general_purpose::STANDARD.encode(format!("\0a\0{}", "p".repeat(length)));
    let mut talk = Talk::new(Tls::Active, false);
    talk.send("AUTH PLAIN\r\n")
        .send(&format!("{}\r\n", encode(4096)))
        .expect("+ \r\n+OK 3 messages\r\n");
    let mut talk = Talk::new(Tls::Active, false);
    talk.send("AUTH PLAIN\r\n").send(&format!("{}\r\n", encode(4097)));
    talk.expect("+ \r\n-ERR [AUTH] wrong name or password\r\n");
    assert!(talk.asked.is_empty(), "too long a password is not hashed");
    talk.send("AUTH PLAIN\r\n")
        .send(&"x".repeat(16 * 1024))
        .send("x\r\n")
        .expect("+ \r\n-ERR line too long\r\n");
    talk.send("USER a\r\n").expect("+OK\r\n");
}

#[test]
fn stls_forgets_what_was_said_in_clear() {
    let mut talk = Talk::new(Tls::Available, true);
    talk.send("USER a\r\n")
        .send("STLS\r\n")
        .expect("+OK\r\n+OK begin TLS\r\n");
    talk.send("PASS b\r\n").expect("-ERR USER first\r\n");
    talk.send("STLS\r\n").expect("-ERR no TLS to start\r\n");
    talk.send("USER a\r\nPASS b\r\nSTLS\r\n")
        .expect("+OK\r\n+OK 3 messages\r\n-ERR logged in already\r\n");
}

#[test]
fn octets_behind_stls_never_run() {
    let mut talk = Talk::new(Tls::Available, true);
    talk.send("STLS\r\nUSER a\r\nPASS b\r\n")
        .expect("-ERR octets behind STLS\r\n(closed)");
    assert!(talk.asked.is_empty());
}

#[test]
fn pop3_pass_before_user() {
    let mut talk = Talk::new(Tls::Active, false);
    talk.send("PASS x\r\n").expect("-ERR USER first\r\n");
    assert!(talk.asked.is_empty());
    talk.login = Verdict::Refused(Refusal::Credentials);
    talk.send("USER a\r\nPASS b\r\nPASS b\r\n");
    talk.expect("+OK\r\n-ERR [AUTH] wrong name or password\r\n-ERR USER first\r\n");
}

#[test]
fn pop3_user_clear() {
    let mut talk = Talk::new(Tls::Available, false);
    for line in ["USER a", "PASS b", "AUTH PLAIN AGEAYg==", "AUTH PLAIN"] {
        talk.send(&format!("{line}\r\n"))
            .expect("-ERR [SYS/PERM] TLS needed\r\n");
    }
    assert!(talk.asked.is_empty(), "the password is not checked");
}

#[test]
fn pop3_line_256() {
    for (length, reply) in [
        (254, "-ERR unknown"),
        (255, "-ERR unknown"),
        (256, "-ERR line too long"),
    ] {
        let mut talk = Talk::new(Tls::Active, false);
        talk.send(&format!("{}\r\n", "x".repeat(length - 2)));
        assert!(talk.sent.starts_with(reply), "{length}: {}", talk.sent);
        assert!(!talk.machine.is_closed());
    }
    for (length, closed) in [(4095, false), (4096, true)] {
        let mut talk = Talk::new(Tls::Active, false);
        (0..length).for_each(|_| _ = talk.send("x"));
        assert_eq!(talk.machine.is_closed(), closed, "{length}");
        assert!(talk.machine.lines.has_pending() || length > 255);
    }
}

#[test]
fn pop3_retr_deleted() {
    let mut talk = Talk::logged_in();
    talk.send("DELE 1\r\n").expect("+OK deleted at QUIT\r\n");
    for line in [
        "RETR 1",
        "DELE 1",
        "TOP 1 0",
        "LIST 1",
        "UIDL 1",
        "RETR 0",
        "RETR 4",
        "DELE 4294967295",
    ] {
        talk.send(&format!("{line}\r\n")).expect("-ERR no such message\r\n");
    }
}

#[test]
fn pop3_drop_before_quit() {
    for end in [Input::Disconnected, Input::Timeout] {
        let mut talk = Talk::logged_in();
        talk.send("DELE 1\r\n");
        talk.input(end);
        talk.send("QUIT\r\n");
        assert_eq!(talk.asked, ["login a b"], "nothing is deleted");
        assert!(talk.machine.is_closed());
    }
}

#[test]
fn pop3_quit_no_quorum() {
    let mut talk = Talk::logged_in();
    talk.commit = Verdict::Refused(Refusal::Temporary);
    talk.send("DELE 1\r\nQUIT\r\n");
    talk.expect("+OK deleted at QUIT\r\n-ERR [SYS/TEMP] not now, try again later\r\n(closed)");
}

#[test]
fn pop3_new_mail_in_session() {
    let mut talk = Talk::logged_in();
    talk.maildrop.push(Entry { size: 1, guid: guid(9) });
    talk.send("STAT\r\nRSET\r\nSTAT\r\n")
        .expect("+OK 3 600\r\n+OK 3 messages\r\n+OK 3 600\r\n");
}

#[test]
fn pop3_uidl_stable() {
    let guid = MessageGuid([7; 16]);
    let shown = uidl(guid);
    assert_eq!(shown, uidl(guid), "nothing but the GUID goes into it");
    assert!(
        shown.len() <= 70 && shown.bytes().all(|byte| byte.is_ascii_graphic()),
        "RFC 1939 7"
    );
    assert_ne!(shown, uidl(MessageGuid([8; 16])));
}

#[test]
fn pop3_auth_resp_codes() {
    for (refusal, reply) in [
        (Refusal::Credentials, "-ERR [AUTH] "),
        (Refusal::Temporary, "-ERR [SYS/TEMP] "),
        (Refusal::Permanent, "-ERR [SYS/PERM] "),
        (Refusal::InUse, "-ERR [IN-USE] "),
        (Refusal::TooManyLogins, "-ERR [LOGIN-DELAY] "),
    ] {
        let mut talk = Talk::new(Tls::Active, false);
        talk.login = Verdict::Refused(refusal);
        talk.send("USER a\r\n").expect("+OK\r\n").send("PASS b\r\n");
        assert!(talk.sent.starts_with(reply), "{}", talk.sent);
        assert_eq!(talk.machine.is_closed(), refusal == Refusal::TooManyLogins);
    }
}

#[test]
fn failed_logins_end_the_session() {
    for (count, closed) in [(4, false), (5, true)] {
        let mut talk = Talk::new(Tls::Active, false);
        talk.login = Verdict::Refused(Refusal::Credentials);
        (0..count).for_each(|_| _ = talk.send("USER a\r\nPASS b\r\n"));
        assert_eq!(talk.machine.is_closed(), closed, "{count}");
    }
}

#[test]
fn errors_end_the_session() {
    for (count, closed) in [(49, false), (50, true)] {
        let mut talk = Talk::logged_in();
        talk.send(&"junk\r\n".repeat(count));
        assert_eq!(talk.machine.is_closed(), closed, "{count}");
    }
}

#[test]
fn pop3_apop() {
    let mut talk = Talk::new(Tls::Active, false);
    talk.send("APOP user c4c9334bac560ecc979e58001b3e22fb\r\n")
        .expect("-ERR unknown command\r\n");
    assert!(talk.asked.is_empty());
}

#[test]
fn pop3_list_1m() {
    for command in ["LIST", "UIDL"] {
        let mut talk = Talk::new(Tls::Active, false);
        talk.maildrop = (0..1_000_000).map(|_| Entry { size: 1, guid: guid(1) }).collect();
        let mut lines = 0_usize;
        let mut steps = 0_usize;
        let mut actions = Vec::new();
        talk.send("USER a\r\nPASS b\r\n")
            .expect("+OK\r\n+OK 1000000 messages\r\n");
        talk.machine
            .handle(Input::Bytes(format!("{command}\r\nNOOP\r\n").as_bytes()), &mut actions);
        loop {
            let mut more = false;
            for action in actions.drain(..) {
                match action {
                    Action::Reply(bytes) => {
                        assert!(bytes.len() <= POP3_OUTPUT_STEP_BYTES + 100, "bounded: {}", bytes.len());
                        lines += bytes.iter().filter(|byte| **byte == b'\n').count();
                    }
                    Action::Resume => more = true,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(
                talk.machine.wants_input(),
                !more,
                "nothing is read while a listing is sent"
            );
            if !more {
                break;
            }
            steps += 1;
            talk.machine.handle(Input::Resume, &mut actions);
        }
        assert_eq!(lines, 1_000_000 + 3);
        assert!(steps > 400, "{steps}");
    }
}

#[test]
fn pop3_pipelining_burst() {
    let mut talk = Talk::logged_in();
    for _ in 0..100_000 / 1000 {
        if talk.machine.wants_input() {
            talk.send(&"NOOP\r\n".repeat(1000));
        }
    }
    let answers = talk.sent.matches("+OK\r\n").count();
    assert_eq!(answers, usize::try_from(POP3_JUNK_COMMANDS_MAX).unwrap() - 1);
    assert!(talk.sent.ends_with("-ERR [SYS/TEMP] too many commands\r\n(closed)"));
    assert!(talk.largest_reply <= POP3_OUTPUT_STEP_BYTES + 100);
    // Commands on messages are what a session is for: they may be as many as there are.
    let mut talk = Talk::logged_in();
    for _ in 0..20 {
        talk.send(&"NOOP\r\nLIST 1\r\n".repeat(1000));
    }
    assert!(!talk.machine.is_closed());
    assert_eq!(talk.sent.matches("+OK\r\n+OK 1 100\r\n").count(), 20_000);
    assert!(talk.largest_reply <= POP3_OUTPUT_STEP_BYTES + 100);
}

#[test]
fn a_message_that_cannot_be_sent_whole_is_not_ended() {
    let mut talk = Talk::logged_in();
    let mut actions = Vec::new();
    talk.machine.handle(Input::Bytes(b"RETR 1\r\n"), &mut actions);
    talk.machine.handle(Input::Verdict(Verdict::Accepted), &mut actions);
    assert!(matches!(actions.last(), Some(Action::SendMessage { index: 0, .. })));
    talk.machine
        .handle(Input::Verdict(Verdict::Refused(Refusal::Temporary)), &mut actions);
    assert!(matches!(actions.last(), Some(Action::Close)));
    let mut talk = Talk::logged_in();
    actions.clear();
    talk.machine.handle(Input::Bytes(b"RETR 1\r\nNOOP\r\n"), &mut actions);
    talk.machine
        .handle(Input::Verdict(Verdict::Refused(Refusal::Temporary)), &mut actions);
    assert!(talk.machine.wants_input(), "the session goes on");
}

#[test]
fn verdicts_without_a_question_are_ignored() {
    let mut talk = Talk::logged_in();
    for input in [
        Input::Verdict(Verdict::Accepted),
        Input::Verdict(Verdict::Sent),
        Input::Resume,
        Input::TlsDone,
        Input::Connected,
    ] {
        talk.input(input);
    }
    talk.expect("").send("NOOP\r\n").expect("+OK\r\n");
}

#[test]
fn passwords_do_not_show() {
    let mut talk = Talk::new(Tls::Active, false);
    let mut actions = Vec::new();
    talk.machine
        .handle(Input::Bytes(b"USER a\r\nPASS secret\r\n"), &mut actions);
    assert!(!format!("{actions:?}").contains("secret"));
}
