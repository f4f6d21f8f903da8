//! A seeded run of the fuzz target over mutated commands, so that every test run does some fuzzing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use core_types::testing::Random;
use imap_proto::fuzzing::fuzz_commands;

const CORPUS: [&str; 24] = [
    "a LOGIN joe secret\r\nb CAPABILITY\r\n",
    "a LOGIN {3}\r\njoe {6+}\r\nsecret\r\n",
    "a AUTHENTICATE PLAIN AGEAYg==\r\n",
    "a AUTHENTICATE PLAIN\r\nAGEAYg==\r\nb NOOP\r\n",
    "a SELECT \"Entw&APw-rfe\"\r\nb CLOSE\r\n",
    "a LIST (SUBSCRIBED) \"\" (\"%\" a/*) RETURN (CHILDREN STATUS (MESSAGES))\r\n",
    "a LSUB \"\" *\r\nb NAMESPACE\r\n",
    "a CREATE x/ (USE (\\Sent))\r\nb RENAME x y\r\n",
    "a STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN RECENT)\r\n",
    "a APPEND x (\\Seen $Junk) \"17-Jul-1996 02:44:25 -0700\" {11}\r\nSubject: x\r\n\r\n",
    "a APPEND {1+}\r\nx {5+}\r\nhello\r\nb NOOP\r\n",
    "a APPEND x {60000000+}\r\n",
    "a FETCH 1:*,3 (FLAGS UID BODY.PEEK[HEADER.FIELDS (From \"To\")]<0.100> BODY[1.2.MIME] RFC822.SIZE)\r\n",
    "a UID FETCH 9:2 FULL\r\nb FETCH * BODYSTRUCTURE\r\n",
    "a STORE 1 +FLAGS.SILENT (\\Deleted a)\r\nb EXPUNGE\r\nc UID EXPUNGE 1:5\r\n",
    "a COPY 1,2:4 x\r\nb UID MOVE 5 y\r\n",
    "a SEARCH CHARSET UTF-8 OR NOT (FROM {2+}\r\n\u{e4} SINCE 1-Feb-1994) (1:3 HEADER X \"y\") LARGER 5\r\n",
    "a UID SEARCH KEYWORD x UID 1:* SENTON \"01-Jan-2020\"\r\n",
    "a IDLE\r\nDONE\r\nb NOOP\r\n",
    "a IDLE\r\nb NOOP\r\n",
    "a ID (\"name\" \"x\" \"version\" NIL)\r\n",
    "GET / HTTP/1.1\r\n",
    "a LOGIN \"a\\\"b\\\\\" {0}\r\n\r\n",
    "* NOOP\r\n+ x\r\na LOGIN {104857600+}\r\n",
];

const PIECES: [&[u8]; 16] = [
    b"{5}\r\n",
    b"{5+}\r\n",
    b"{99999+}\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\"",
    b"\\",
    b"(",
    b")",
    b" ",
    b"\0",
    b"\xff",
    b"*",
    b"NOT ",
    b"BODY[1.1.",
];

#[test]
fn mutated_commands_break_no_invariant() {
    let mut random = Random::new(0x1_4a9);
    for round in 0..20_000 {
        let mut input = vec![
            u8::try_from(random.below(256)).unwrap(),
            u8::try_from(random.below(8)).unwrap(),
        ];
        let mut stream = CORPUS[round % CORPUS.len()].as_bytes().to_vec();
        for _ in 0..random.below(6) {
            random.mutate(&mut stream, &PIECES);
            if random.below(6) == 0 {
                let other = CORPUS[random.below(CORPUS.len())].as_bytes();
                let (at, from) = (random.below(stream.len() + 1), random.below(other.len()));
                stream.splice(at..at, other[from..].iter().copied());
            }
        }
        input.extend_from_slice(&stream);
        fuzz_commands(&input);
    }
}
