//! One fuzzed session, with what must hold for each: for cargo-fuzz and for the seeded test.
//!
//! The first octet picks TLS and how the rest is cut into reads; the server's verdicts come from a small generator, so
//! that one input is always one session. A broken invariant panics.

use core_types::MessageGuid;
use core_types::limits::{POP3_OUTPUT_STEP_BYTES, POP3_READ_BYTES_MAX};
use core_types::testing::Random;

use super::{Action, Config, Entry, Input, Machine, Refusal, Tls, Verdict};

/// Octets of answers that one input may cause: a step, the longest answer, and what the read before left.
const OUTPUT_MAX: usize = POP3_OUTPUT_STEP_BYTES + 1024;

/// Runs the octets as one session.
///
/// # Panics
/// When an invariant of the machine does not hold.
pub fn fuzz_session(data: &[u8]) {
    let Some((&control, input)) = data.split_first() else {
        return;
    };
    let tls = if control & 1 == 0 { Tls::Available } else { Tls::Active };
    let config = Config {
        host: "mail.example".to_owned(),
        plain_login: control & 2 == 0,
    };
    let mut random = Random::new(u64::from(control));
    let mut machine = Machine::new(config, tls);
    let mut actions = Vec::new();
    machine.handle(Input::Connected, &mut actions);
    let step = usize::from(control >> 2).saturating_add(1).min(POP3_READ_BYTES_MAX);
    settle(&mut machine, actions, &mut random);
    for chunk in input.chunks(step) {
        if machine.is_closed() {
            break;
        }
        assert!(machine.wants_input(), "nothing is open and nothing is wanted");
        let mut actions = Vec::new();
        machine.handle(Input::Bytes(chunk), &mut actions);
        settle(&mut machine, actions, &mut random);
    }
    let mut actions = Vec::new();
    machine.handle(Input::Disconnected, &mut actions);
    assert!(
        actions.is_empty() && machine.is_closed(),
        "a client that is gone gets nothing and deletes nothing"
    );
}

/// Carries the actions out until the machine wants input or is closed.
fn settle(machine: &mut Machine, mut actions: Vec<Action>, random: &mut Random) {
    loop {
        check(machine, &actions);
        let Some(input) = actions.last().and_then(|action| answer(action, random)) else {
            return;
        };
        actions = Vec::new();
        machine.handle(input, &mut actions);
    }
}

fn check(machine: &Machine, actions: &[Action]) {
    let mut sent = 0_usize;
    let mut questions = 0_usize;
    for (place, action) in actions.iter().enumerate() {
        let is_last = place.saturating_add(1) == actions.len();
        match action {
            Action::Reply(bytes) => {
                sent = sent.saturating_add(bytes.len());
                assert!(bytes.ends_with(b"\r\n"), "an answer is cut");
                let first = bytes.first().copied().unwrap_or(0);
                assert!(b"+-.0123456789".contains(&first), "no answer: {bytes:?}");
            }
            Action::Commit { deleted } => {
                assert!(!deleted.is_empty() && deleted.is_sorted(), "deletes");
                questions = questions.saturating_add(1);
            }
            Action::Close => assert!(is_last && machine.is_closed(), "something comes after the end"),
            _ => questions = questions.saturating_add(1),
        }
        assert!(questions == 0 || is_last, "something comes after a question");
    }
    assert!(sent <= OUTPUT_MAX, "{sent} octets at once");
    assert_eq!(
        machine.wants_input(),
        questions == 0 && !machine.is_closed(),
        "input while a question is open"
    );
}

fn answer(action: &Action, random: &mut Random) -> Option<Input<'static>> {
    let refusals = [
        Refusal::Credentials,
        Refusal::InUse,
        Refusal::Temporary,
        Refusal::Permanent,
    ];
    let refused = refusals
        .get(random.below(16))
        .map(|refusal| Input::Verdict(Verdict::Refused(*refusal)));
    let accepted = match action {
        Action::Reply(_) | Action::Close => return None,
        Action::StartTls => return Some(Input::TlsDone),
        Action::Resume => return Some(Input::Resume),
        Action::Authenticate { password, .. } => {
            assert!(!password.expose().is_empty(), "an empty password is none");
            Verdict::Accepted
        }
        Action::OpenMaildrop => {
            let count = if random.below(4) == 0 { 5000 } else { random.below(4) };
            let entry = |number: usize| Entry {
                size: number as u64,
                guid: MessageGuid((number as u128).to_be_bytes()),
            };
            Verdict::Maildrop((0..count).map(entry).collect())
        }
        Action::Retrieve { .. } | Action::Top { .. } | Action::Commit { .. } => Verdict::Accepted,
        Action::SendMessage { .. } => Verdict::Sent,
    };
    Some(refused.unwrap_or(Input::Verdict(accepted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&[u8]; 32] = [
        b"USER a\r\n",
        b"PASS b\r\n",
        b"USER a\r\nPASS b\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"AUTH PLAIN\r\n",
        b"AGEAYg==\r\n",
        b"*\r\n",
        b"AUTH PLAIN =\r\n",
        b"STLS\r\n",
        b"CAPA\r\n",
        b"STAT\r\n",
        b"LIST\r\n",
        b"UIDL\r\n",
        b"LIST 1\r\n",
        b"UIDL 2\r\n",
        b"RETR 1\r\n",
        b"TOP 1 0\r\n",
        b"DELE 1\r\n",
        b"DELE 2\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"APOP a b\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        b"RETR 99999999999\r\n",
        b"TOP 1\r\n",
        b"\xff",
    ];

    #[test]
    fn seeded_sessions_break_no_promise() {
        let mut random = Random::new(7);
        for _ in 0..3000 {
            let mut data = vec![u8::try_from(random.below(256)).unwrap()];
            if random.below(2) == 0 {
                data.extend_from_slice(b"USER a\r\nPASS b\r\n");
            }
            for _ in 0..random.below(60) {
                data.extend_from_slice(WORDS[random.below(WORDS.len())]);
            }
            for _ in 0..random.below(3) {
                random.mutate(&mut data, &WORDS);
            }
            fuzz_session(&data);
        }
    }
}
