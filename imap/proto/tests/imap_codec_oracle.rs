//! A second opinion: what imap-codec takes, our parser takes with the same meaning; what our encoder writes, imap-codec
//! reads with the same meaning.
//!
//! The other way round does not hold: imap-codec refuses much that a complete server needs. Where the two differ on
//! purpose, [`meaning`] says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "imap_codec_oracle/generator.rs"]
mod generator;
#[path = "imap_codec_oracle/meaning.rs"]
mod meaning;
#[path = "imap_codec_oracle/responses.rs"]
mod responses;

use generator::Generator;
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_proto::command::Append;
use imap_proto::{Command, CommandReader, Event};
use meaning::Verdict;

/// What our reader makes of one command.
#[derive(Debug)]
enum Ours {
    Command(Command),
    Append(Append),
    Refused(#[expect(dead_code, reason = "shown")] String),
}

fn ours(input: &[u8]) -> Ours {
    let mut reader = CommandReader::default();
    reader.set_logged_in();
    let mut rest = input;
    while let Some(event) = reader.poll(&mut rest) {
        match event {
            Event::Command(command) => return Ours::Command(command),
            Event::AppendStart(append) => return Ours::Append(append),
            Event::Refused(refusal) => return Ours::Refused(format!("{:?} {}", refusal.status, refusal.text)),
            Event::Fatal(fatal) => return Ours::Refused(format!("{:?} {}", fatal.status, fatal.text)),
            Event::Continue => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("no event for {:?}", String::from_utf8_lossy(input))
}

/// Compares one command: whether imap-codec took it and it is one of ours, or in what the two differ.
fn agree(input: &[u8]) -> Result<bool, String> {
    let Ok((&[], theirs)) = CommandCodec::new().decode(input) else {
        return Ok(false);
    };
    let ours = ours(input);
    let (is_same, is_ours) = match (&meaning::of_theirs(&theirs), &ours) {
        (Verdict::Means(theirs), Ours::Command(command)) => (meaning::of_ours(command) == *theirs, true),
        (Verdict::Means(theirs), Ours::Append(append)) => (meaning::of_append(append) == *theirs, true),
        (Verdict::Refused(_), Ours::Refused(_)) => (true, false),
        _ => (false, false),
    };
    if is_same {
        Ok(is_ours)
    } else {
        let shown = String::from_utf8_lossy(input);
        Err(format!(
            "{shown:?}\n  theirs: {:?}\n  ours: {ours:?}",
            meaning::of_theirs(&theirs)
        ))
    }
}

/// Compares many commands; how many of them imap-codec took.
fn agree_on(commands: impl Iterator<Item = Vec<u8>>) -> usize {
    let (mut taken, mut different) = (0, Vec::new());
    for command in commands {
        match agree(&command) {
            Ok(is_taken) => taken += usize::from(is_taken),
            Err(difference) => different.push(difference),
        }
    }
    different.sort_by_key(String::len);
    let count = different.len();
    different.truncate(20);
    assert!(count == 0, "{count} differ:\n{}", different.join("\n"));
    taken
}

#[test]
fn generated_commands_mean_what_imap_codec_says() {
    let mut generator = Generator::new(1);
    let rounds = 6000;
    let taken = agree_on((0..rounds).map(|_| generator.command()));
    // Were most of them refused there, the comparison would say little.
    assert!(taken * 10 > rounds * 7, "{taken} of {rounds}");
}

#[test]
fn mutated_commands_mean_what_imap_codec_says() {
    let mut generator = Generator::new(2);
    let taken = agree_on((0..40_000).map(|_| {
        let mut command = generator.command();
        generator.mutate(&mut command);
        command
    }));
    assert!(taken > 2000, "{taken}");
}

#[test]
fn generated_responses_are_read_by_imap_codec() {
    let mut generator = Generator::new(3);
    for _ in 0..4000 {
        responses::check(&mut generator);
    }
}
