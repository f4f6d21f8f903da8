//! A second opinion on MAIL, RCPT and BDAT: what both our parser and smtp-proto take, both understand in the same way, and
//! what is spelled by the RFC both take.
//!
//! smtp-proto takes more than we do (it is lenient towards what no program sends), so a refusal of ours is no difference
//! where the command is not well formed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use core_types::testing::Random;
use smtp_proto::{
    Action, BodyType, Config, ForwardPath, Input, Machine, Notify, Ret, ReversePath, Role, Tls, Transaction, Verdict,
};
use smtp_proto_oracle as oracle;

/// Commands at random.
struct Generator(Random);

impl Generator {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn word(&mut self, word: &str) -> String {
        match self.below(3) {
            0 => word.to_ascii_lowercase(),
            _ => word.to_owned(),
        }
    }

    fn address(&mut self) -> String {
        let local = self.one(&[
            "ann",
            "a.b",
            "x+y",
            "o'neil",
            "a_b-c",
            "postmaster",
            "A",
            "!#$%&'*+-/=?^_`{|}~",
        ]);
        let domain = self.one(&[
            "x.example",
            "our.example",
            "a-b.example",
            "EXAMPLE.com",
            "sub.sub.example",
        ]);
        format!("{local}@{domain}")
    }

    /// `MAIL` with its parameters, each at most once.
    fn mail(&mut self) -> String {
        let path = match self.below(4) {
            0 => String::new(),
            _ => self.address(),
        };
        let mut parameters = vec![
            format!("{}={}", self.word("SIZE"), self.below(100_000)),
            format!("{}={}", self.word("BODY"), self.one(&["7BIT", "8BITMIME", "8bitmime"])),
            format!("{}={}", self.word("RET"), self.one(&["FULL", "HDRS", "hdrs"])),
            format!(
                "{}={}",
                self.word("ENVID"),
                self.one(&["x", "QQ314159", "a+2Bb", "a+3Db+20c"])
            ),
            self.word("SMTPUTF8"),
        ];
        self.shuffle(&mut parameters);
        format!("{} FROM:<{path}>{}\r\n", self.word("MAIL"), joined(&parameters))
    }

    fn rcpt(&mut self) -> String {
        let mut parameters = vec![
            format!(
                "{}={}",
                self.word("NOTIFY"),
                self.one(&["NEVER", "SUCCESS", "FAILURE,DELAY", "success,failure,delay", "DELAY"])
            ),
            format!(
                "{}={}",
                self.word("ORCPT"),
                self.one(&["rfc822;ann@x.example", "rfc822;a+2Bb@x.example", "rfc822;x"])
            ),
        ];
        self.shuffle(&mut parameters);
        format!(
            "{} TO:<{}>{}\r\n",
            self.word("RCPT"),
            self.address(),
            joined(&parameters)
        )
    }

    /// Some of them in some order.
    fn shuffle(&mut self, parameters: &mut Vec<String>) {
        for at in 1..parameters.len() {
            let other = self.below(at + 1);
            parameters.swap(at, other);
        }
        parameters.truncate(self.below(parameters.len() + 1));
    }

    fn mutate(&mut self, line: &mut Vec<u8>) {
        const OCTETS: &[u8] = b" \t<>\"\\@.,;:=+-()[]\x00\x7f\xc3\xa4aA19\r";
        for _ in 0..=self.below(2) {
            let at = self.below(line.len() - 2);
            match self.below(4) {
                0 => line[at] = OCTETS[self.below(OCTETS.len())],
                1 if line.len() > 8 => drop(line.remove(at)),
                2 => line.insert(at, OCTETS[self.below(OCTETS.len())]),
                _ => {
                    let end = (at + self.below(8)).min(line.len() - 2);
                    let copy = line[at..end].to_vec();
                    line.splice(at..at, copy);
                }
            }
        }
    }
}

fn joined(parameters: &[String]) -> String {
    parameters.iter().map(|parameter| format!(" {parameter}")).collect()
}

/// The transaction that our machine makes of these two commands, if it takes both.
fn ours(mail: &[u8], rcpt: &[u8]) -> Option<Transaction> {
    let mut machine = Machine::new(Config {
        role: Role::Relay,
        hostname: "mx.example".to_owned(),
        tls: Tls::Active,
        plain_login: false,
        size_max: 1_000_000,
    });
    let mut transaction = None;
    let mut feed = |input: Input<'_>| {
        let mut actions = Vec::new();
        machine.handle(input, &mut actions);
        loop {
            let mut asked = false;
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::CheckSender { .. } | Action::CheckRecipient { .. } | Action::CheckRoom { .. } => {
                        asked = true;
                    }
                    Action::DataBegin(begun) => transaction = Some(*begun),
                    _ => {}
                }
            }
            if !asked {
                return;
            }
            machine.handle(Input::Verdict(Verdict::Accepted), &mut actions);
        }
    };
    feed(Input::Connected);
    for line in [b"EHLO c.example\r\n".as_slice(), mail, rcpt, b"DATA\r\n", b"x\r\n"] {
        feed(Input::Bytes(line));
    }
    transaction
}

type Theirs = oracle::Request<String>;

fn theirs(line: &[u8]) -> Option<Theirs> {
    // White space at the end of a line is read past (RFC 5321 4.1.1), which smtp-proto does for spaces only.
    let text = line.strip_suffix(b"\r\n")?.trim_ascii_end();
    let line = [text, b"\r\n"].concat();
    let mut octets = line.iter();
    let request = oracle::Request::parse(&mut octets).ok()?;
    octets.as_slice().is_empty().then(|| request.into_owned())
}

/// An address as we compare it: the domain's case does not count, nor does a dot at its end, which we read past.
fn folded(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.trim_end_matches('.').to_ascii_lowercase()),
        None => address.to_ascii_lowercase(),
    }
}

/// What MAIL meant.
fn our_mail(transaction: &Transaction) -> String {
    let path = match &transaction.reverse_path {
        ReversePath::Null => String::new(),
        ReversePath::Mailbox(address) => folded(&address.to_string()),
    };
    let eight = transaction.body == BodyType::EightBitMime;
    let (size, envid) = (transaction.size.unwrap_or(0), &transaction.envid);
    format!(
        "{path:?} {size} {eight} {:?} {envid:?} {}",
        transaction.ret, transaction.smtputf8
    )
}

fn their_mail(from: &oracle::MailFrom<String>) -> String {
    let has = |flag| from.flags & flag != 0;
    let ret = if has(oracle::MAIL_RET_FULL) {
        Some(Ret::Full)
    } else {
        has(oracle::MAIL_RET_HDRS).then_some(Ret::Hdrs)
    };
    let envid = &from.env_id;
    format!(
        "{:?} {} {} {ret:?} {envid:?} {}",
        folded(&from.address),
        from.size,
        has(oracle::MAIL_BODY_8BITMIME),
        has(oracle::MAIL_SMTPUTF8)
    )
}

/// What RCPT meant.
fn our_rcpt(transaction: &Transaction) -> String {
    let recipient = &transaction.recipients[0];
    let path = match &recipient.forward_path {
        ForwardPath::Postmaster => "postmaster".to_owned(),
        ForwardPath::Mailbox(address) => folded(&address.to_string()),
    };
    let original = recipient
        .original_recipient
        .as_ref()
        .map(|original| original.address.clone());
    format!("{path:?} {:?} {original:?}", recipient.notify)
}

fn their_rcpt(to: &oracle::RcptTo<String>) -> String {
    let has = |flag| to.flags & flag != 0;
    let notify = if has(oracle::RCPT_NOTIFY_NEVER) {
        Some(Notify::Never)
    } else {
        let on = Notify::On {
            success: has(oracle::RCPT_NOTIFY_SUCCESS),
            failure: has(oracle::RCPT_NOTIFY_FAILURE),
            delay: has(oracle::RCPT_NOTIFY_DELAY),
        };
        let is_said = has(oracle::RCPT_NOTIFY_SUCCESS | oracle::RCPT_NOTIFY_FAILURE | oracle::RCPT_NOTIFY_DELAY);
        is_said.then_some(on)
    };
    format!("{:?} {notify:?} {:?}", folded(&to.address), to.orcpt)
}

/// Whether both take both commands; what they differ in.
fn compare(mail: &[u8], rcpt: &[u8]) -> Result<bool, String> {
    let (Some(ours), Some(oracle::Request::Mail { from }), Some(oracle::Request::Rcpt { to })) =
        (ours(mail, rcpt), theirs(mail), theirs(rcpt))
    else {
        return Ok(false);
    };
    let ours = (our_mail(&ours), our_rcpt(&ours));
    let theirs = (their_mail(&from), their_rcpt(&to));
    if ours == theirs {
        return Ok(true);
    }
    let shown = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    Err(format!(
        "{:?} {:?}\n  ours: {ours:?}\n  theirs: {theirs:?}",
        shown(mail),
        shown(rcpt)
    ))
}

#[test]
fn well_formed_commands_are_taken_and_mean_what_smtp_proto_says() {
    let mut random = Generator(Random::new(1));
    for _ in 0..5000 {
        let (mail, rcpt) = (random.mail(), random.rcpt());
        assert_eq!(compare(mail.as_bytes(), rcpt.as_bytes()), Ok(true), "{mail} {rcpt}");
    }
}

#[test]
fn mutated_commands_are_refused_or_mean_what_smtp_proto_says() {
    let mut random = Generator(Random::new(2));
    let (mut taken, mut different) = (0, Vec::new());
    for _ in 0..30_000 {
        let (mut mail, mut rcpt) = (random.mail().into_bytes(), random.rcpt().into_bytes());
        if random.below(2) == 0 {
            random.mutate(&mut mail);
        } else {
            random.mutate(&mut rcpt);
        }
        match compare(&mail, &rcpt) {
            Ok(both) => taken += usize::from(both),
            Err(difference) => different.push(difference),
        }
    }
    different.sort_by_key(String::len);
    assert!(
        different.is_empty(),
        "{}:\n{}",
        different.len(),
        different[..different.len().min(25)].join("\n")
    );
    assert!(taken > 2000, "{taken}");
}
