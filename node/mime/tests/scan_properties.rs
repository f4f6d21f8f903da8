//! What must hold for every message: seeded random octets, every split, and generated trees that are found exactly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use mime::{Kind, Scanner, Structure, fuzzing};
use proptest::prelude::*;

fn scan(message: &[u8], cuts: &[usize]) -> Structure {
    let mut scanner = Scanner::new();
    let mut rest = message;
    for cut in cuts {
        let (now, later) = rest.split_at(cut % (rest.len() + 1));
        scanner.feed(now);
        rest = later;
    }
    scanner.feed(rest);
    scanner.finish()
}

/// Pieces that mail is made of, so that random messages get somewhere.
const WORDS: [&[u8]; 30] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"--",
    b"--b",
    b"--b--",
    b"--bb",
    b"Content-Type: multipart/mixed; boundary=b",
    b"Content-Type: multipart/digest; boundary=\"bb\"",
    b"Content-Type: message/rfc822",
    b"Content-Type: text/html",
    b"Content-Transfer-Encoding: base64",
    b"Subject: =?utf-8?q?=C3=B6?=",
    b"From: a <b@c>, g:(x)\"d\"@e;",
    b"To: ",
    b"Date: Fri, 21 Nov 1997 09:55:06 -0600",
    b"References: <a@b>",
    b"; name*0*=x''%41; name*1=b",
    b"\0",
    b"\xff",
    b"=",
    b"(",
    b")",
    b"\"",
    b"\\",
    b":",
    b"<p>a&amp;",
    b"aGVsbG8=",
];

fn mail_like() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..WORDS.len(), 0..60)
        .prop_map(|words| words.into_iter().flat_map(|word| WORDS[word].to_vec()).collect())
}

/// A tree to be written as a message and found again.
#[derive(Clone, Debug)]
enum Tree {
    Leaf(Vec<u8>),
    Multipart(Vec<Self>),
    Message(Box<Self>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop::collection::vec(prop::sample::select(b"ab-\r\n: ".to_vec()), 0..40).prop_map(Tree::Leaf);
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Tree::Multipart),
            inner.prop_map(|tree| Tree::Message(Box::new(tree))),
        ]
    })
}

/// Writes a tree; notes kind and body range of each part in the order of the arena.
fn write(tree: &Tree, out: &mut Vec<u8>, found: &mut Vec<(Kind, usize, usize)>, next: &mut u32) {
    let place = found.len();
    match tree {
        Tree::Leaf(body) => {
            out.extend_from_slice(b"Content-Type: application/x\r\n\r\n");
            found.push((Kind::Leaf, out.len(), 0));
            out.extend_from_slice(body);
        }
        Tree::Multipart(children) => {
            *next += 1;
            let boundary = format!("=_{next}_");
            out.extend_from_slice(format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n").as_bytes());
            found.push((Kind::Multipart, out.len(), 0));
            for (number, child) in children.iter().enumerate() {
                // The first delimiter may stand directly behind the header.
                let line_end = if number == 0 { "" } else { "\r\n" };
                out.extend_from_slice(format!("{line_end}--{boundary}\r\n").as_bytes());
                write(child, out, found, next);
            }
            out.extend_from_slice(format!("\r\n--{boundary}--").as_bytes());
        }
        Tree::Message(child) => {
            out.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\n");
            found.push((Kind::Message, out.len(), 0));
            write(child, out, found, next);
        }
    }
    found[place].2 = out.len();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_structure(message in mail_like(), cuts in prop::collection::vec(0_usize..50, 0..40)) {
        let whole = scan(&message, &[]);
        fuzzing::check(&whole, message.len() as u64);
        prop_assert_eq!(whole, scan(&message, &cuts));
    }

    #[test]
    fn random_octets_break_no_promise(message in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzzing::run(&message);
    }

    #[test]
    fn mail_like_octets_break_no_promise(message in mail_like()) {
        fuzzing::run(&message);
    }

    #[test]
    fn a_generated_tree_is_found_exactly(tree in tree()) {
        let (mut message, mut expected) = (Vec::new(), Vec::new());
        write(&tree, &mut message, &mut expected, &mut 0);
        let found: Vec<_> = scan(&message, &[]).parts.iter()
            .map(|part| (part.kind, part.body_start as usize, part.end as usize)).collect();
        prop_assert_eq!(found, expected);
    }
}

/// The same inputs on every run, for where no fuzzer runs.
#[test]
fn seeded_inputs_break_no_promise() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..2000 {
        let length = draw() % 40;
        let message: Vec<u8> = (0..length)
            .flat_map(|_| WORDS[(draw() % WORDS.len() as u64) as usize].to_vec())
            .collect();
        fuzzing::run(&message);
    }
}
