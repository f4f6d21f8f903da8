//! DATA: where it ends, and what it may hold.

use super::*;

const EVIL: &str = "MAIL FROM:<evil@x.example>\r\nRCPT TO:<c@our.example>\r\nDATA\r\n";

/// `around` stands between two halves of one message, with commands behind it, for each way of cutting the octets into
/// reads.
#[track_caller]
fn one_refused_message(near: &str) {
    let text = format!("A: b\r\n\r\ntext{near}{EVIL}A: c\r\n\r\nmore\r\n.\r\n");
    for read_bytes in [1, 2, 3, 7, 16 * 1024] {
        for mut talk in [Talk::relay(), Talk::submission()] {
            talk = talk.in_data();
            talk.read_bytes = read_bytes;
            talk.send(&text).expect("550 5.5.2");
            assert!(talk.delivered.is_empty());
            assert_eq!((talk.aborted, talk.senders.len(), talk.recipients.len()), (1, 1, 1));
            talk.send("NOOP\r\n").expect("250 2.0.0");
        }
    }
}

#[test]
fn smtp_eod_lf_dot_lf() {
    one_refused_message("\n.\n");
}

#[test]
fn smtp_eod_lf_dot_crlf() {
    one_refused_message("\n.\r\n");
}

#[test]
fn smtp_eod_lf_dot_cr() {
    one_refused_message("\n.\r");
}

#[test]
fn smtp_eod_crlf_dot_lf() {
    one_refused_message("\r\n.\n");
}

#[test]
fn smtp_eod_crlf_dot_cr() {
    one_refused_message("\r\n.\r");
    one_refused_message("\r\n.\rtext");
}

#[test]
fn smtp_eod_cr_dot_cr() {
    one_refused_message("\r.\r");
}

#[test]
fn smtp_eod_cr_dot_lf() {
    one_refused_message("\r.\n");
}

#[test]
fn smtp_eod_cr_dot_crlf() {
    one_refused_message("\r.\r\n");
}

#[test]
fn smtp_eod_double_cr() {
    one_refused_message("\r\n.\r\r\n");
}

#[test]
fn smtp_eod_split_reads() {
    let mut talk = Talk::relay().in_data();
    talk.send("A: b\r\n\r\ntext");
    for byte in ["\r", "\n", ".", "\r"] {
        talk.send(byte).expect_all(&[]);
    }
    talk.send("\n").expect("250 2.0.0");
    assert_eq!(talk.delivered_text(), "A: b\r\n\r\ntext\r\n");
}

#[test]
fn smtp_eod_first_line() {
    let mut talk = Talk::relay().in_data();
    talk.send(".\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered_text(), "");
    talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
    let mut talk = Talk::submission().in_data();
    talk.send(".\r\n").expect("554 5.6.0");
    assert!(talk.delivered.is_empty());
    talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
    one_refused_message_at_once(".\n");
    one_refused_message_at_once(".\rx");
}

#[track_caller]
fn one_refused_message_at_once(first: &str) {
    let mut talk = Talk::relay().in_data();
    talk.send(format!("{first}{EVIL}\r\n.\r\n")).expect("550 5.5.2");
    assert_eq!(talk.senders.len(), 1);
}

#[test]
fn smtp_bare_lf_body() {
    for read_bytes in [1, 16 * 1024] {
        let mut talk = Talk::relay().in_data();
        talk.read_bytes = read_bytes;
        talk.send("A: b\n\r\nx\ny\n.z\n\r\n.\r\n").expect("250 2.0.0");
        assert_eq!(talk.delivered_text(), "A: b\r\n\r\nx\r\ny\r\n.z\r\n\r\n");
    }
}

#[test]
fn the_size_is_that_of_the_stored_form() {
    for (count, reply) in [(500, "250 2.0.0"), (501, "552 5.3.4")] {
        let mut talk = Talk::new(Config {
            size_max: 1000,
            ..config(Role::Relay)
        });
        talk.send("EHLO c\r\n").expect("250 ");
        talk = talk.in_data();
        let text = "\n".repeat(count - 1);
        talk.send(format!("{text}\r\n.\r\n")).expect(reply);
    }
}

#[test]
fn smtp_bare_lf_submission() {
    let mut talk = Talk::submission().in_data();
    talk.send("A: b\r\n\r\nx\ny\r\n.\r\n").expect("550 5.5.2");
    assert!(talk.delivered.is_empty());
}

#[test]
fn smtp_bare_cr_body() {
    for text in ["a\rb\r\n.\r\n", "\r\r\n.\r\n", "A: b\r\n\r\n\rx\r\n.\r\n"] {
        for mut talk in [Talk::relay(), Talk::submission()] {
            talk = talk.in_data();
            talk.send(text).expect("550 5.5.2");
            assert!(talk.delivered.is_empty());
        }
    }
}

#[test]
fn smtp_dot_stuffing() {
    let message = "A: b\r\n\r\n.\r\n..\r\n...\r\n.x\r\n..x\r\nx.\r\n";
    for read_bytes in [1, 2, 3, 5, 16 * 1024] {
        for mut talk in [Talk::relay(), Talk::submission()] {
            talk = talk.in_data();
            talk.read_bytes = read_bytes;
            talk.send(crate::dot::stuff(message.as_bytes())).expect("250 2.0.0");
            assert_eq!(talk.delivered_text(), message);
        }
    }
}

#[test]
fn smtp_data_line_998() {
    let message = format!("A: b\r\n\r\n{}\r\n", "x".repeat(100_000));
    let mut talk = Talk::relay().in_data();
    talk.send(format!("{message}.\r\n")).expect("250 2.0.0");
    assert_eq!(talk.delivered_text(), message);
}

#[test]
fn smtp_8bit_no_mime() {
    let mut talk = Talk::relay().in_data();
    talk.send(b"A: b\r\n\r\n\xff\xe9\x00\x80\r\n.\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered[0].bytes, b"A: b\r\n\r\n\xff\xe9\x00\x80\r\n");
    assert_eq!(talk.delivered[0].transaction.body, crate::BodyType::SevenBit);
}

#[test]
fn smtp_size_lie() {
    let mut talk = Talk::new(Config {
        size_max: 10_000,
        ..config(Role::Relay)
    });
    let start = "MAIL FROM:<a@x.example> SIZE=10\r\nRCPT TO:<b@our.example>\r\nDATA\r\n";
    talk.send("EHLO c\r\n")
        .expect("250 ")
        .send(start)
        .expect_codes(&[250, 250, 354]);
    let line = format!("{}\r\n", "x".repeat(998));
    talk.send(line.repeat(15)).expect_all(&[]);
    assert_eq!(talk.aborted, 1);
    talk.send(".\r\n").expect("552 5.3.4");
    talk.send(start).expect_codes(&[250, 250, 354]);
    talk.read_bytes = 1000;
    talk.send(line.repeat(20))
        .expect_all(&[])
        .send("x")
        .expect("552 5.3.4")
        .expect_closed();
    assert!(talk.delivered.is_empty());
}

#[test]
fn smtp_header_block_12m() {
    let mut talk = Talk::new(Config {
        size_max: 50 << 20,
        ..config(Role::Relay)
    });
    talk.send("EHLO c\r\n").expect("250 ");
    talk = talk.in_data();
    let line = format!("X: {}\r\n", "x".repeat(1019));
    talk.send(line.repeat(12 * 1024))
        .expect_all(&[])
        .send("\r\ntext\r\n.\r\n")
        .expect("552 5.3.4");
    assert!(talk.delivered.is_empty());
}

#[test]
fn smtp_header_line_100k() {
    let message = format!("A: {}\r\n\r\n", "x".repeat(150 * 1024));
    let mut talk = Talk::relay().in_data();
    talk.send(format!("{message}.\r\n")).expect("250 2.0.0");
    assert_eq!(talk.delivered_text(), message);
}

#[test]
fn smtp_header_no_colon() {
    let mut talk = Talk::relay().in_data();
    talk.send("hello\r\n.\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered_text(), "hello\r\n");
    let mut talk = Talk::submission().in_data();
    talk.send("hello\r\nMAIL FROM:<evil@x>\r\n.\r\n").expect("554 5.6.0");
    assert!(talk.delivered.is_empty());
    assert_eq!(talk.senders.len(), 1);
}

#[test]
fn smtp_received_51() {
    for (count, reply) in [(49, "250 2.0.0"), (50, "250 2.0.0"), (51, "554 5.4.6")] {
        let mut talk = Talk::relay().in_data();
        talk.send(format!(
            "{}\r\nReceived: body\r\n.\r\n",
            "Received: x\r\n".repeat(count)
        ))
        .expect(reply);
    }
}

#[test]
fn smtp_pipelined_data_body() {
    let mut talk = Talk::relay();
    talk.send(format!("MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\nDATA\r\n{EVIL}"))
        .expect_codes(&[250, 250, 554]);
    talk.expect_closed();
    assert_eq!(talk.senders.len(), 1);
    let mut talk = Talk::relay();
    talk.send("DATA\r\nMAIL FROM:<evil@x>\r\n")
        .expect("554 5.5.0")
        .expect_closed();
}

#[test]
fn smtp_rcpt_after_rejected_data() {
    for (text, reply) in [("A: b\r\n\r\n.\r\n", "550 5.7.1"), ("a\rb\r\n.\r\n", "550 5.5.2")] {
        let mut talk = Talk::relay().in_data();
        talk.data_verdict = Some(vec![Reply::new(550, Enhanced(5, 7, 1), "spam")]);
        talk.send(text).expect(reply);
        talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
        talk.send("DATA\r\n").expect("503 5.5.1");
    }
}

#[test]
fn a_verdict_that_does_not_fit_never_becomes_250() {
    for verdict in [
        vec![],
        vec![Reply::new(354, Enhanced(3, 0, 0), "x")],
        vec![Reply::new(0, Enhanced(2, 0, 0), "x")],
    ] {
        let mut talk = Talk::relay().in_data();
        talk.data_verdict = Some(verdict);
        talk.send("A: b\r\n.\r\n").expect("451 4.3.0");
    }
}

/// Messages made of the octets around which smuggling turns: the machine's end is the first CRLF.CRLF and no other.
#[test]
fn no_inner_line_is_ever_a_command() {
    let pieces = [
        "\r",
        "\n",
        ".",
        "\r\n",
        "..",
        "x",
        "MAIL FROM:<evil@x.example>\r\n",
        "QUIT\r\n",
        "A: b\r\n",
    ];
    let mut random = core_types::testing::Random::new(7);
    for _ in 0..3000 {
        let body: String = (0..random.below(12))
            .map(|_| pieces[random.below(pieces.len())])
            .collect();
        let wire = format!("{body}\r\n.\r\n");
        // The CRLF of the command counts for the first line.
        if format!("\r\n{wire}").find("\r\n.\r\n") != Some(wire.len() - 3) {
            continue;
        }
        let mut talk = Talk::relay().in_data();
        talk.read_bytes = 1 + random.below(8);
        talk.send(&wire);
        assert_eq!(talk.senders.len(), 1, "{wire:?}");
        let code = talk.next_reply();
        assert!(
            code.starts_with("250 2.0.0 stored") || code.starts_with("550 5.5.2"),
            "{wire:?}: {code}"
        );
        talk.expect_all(&[]).send("NOOP\r\n").expect("250 2.0.0 Ok");
        for message in &talk.delivered {
            let text = String::from_utf8(message.bytes.clone()).unwrap();
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{wire:?}: {text:?}");
        }
    }
}

#[test]
fn room_is_asked_for_when_a_message_begins_and_once_only() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x.example> SIZE=1234\r\nRCPT TO:<b@our.example>\r\nDATA\r\nA: b\r\n.\r\n")
        .expect_codes(&[250, 250, 554]);
    let mut talk = Talk::relay();
    for begin in ["DATA\r\n", "BDAT 2000\r\n"] {
        talk.send("MAIL FROM:<a@x.example> SIZE=1234\r\nRCPT TO:<b@our.example>\r\n")
            .expect_codes(&[250, 250]);
        talk.room_verdict = Verdict::Refused(Reply::new(452, Enhanced(4, 3, 1), "full"));
        talk.send(begin);
        if begin.starts_with('B') {
            // Drained to its last octet, whatever it is.
            talk.expect_all(&[]);
            talk.send("RSET\r\n".repeat(333)).send("QU");
        }
        talk.expect("452 4.3.1").send("DATA\r\n").expect("503 5.5.1");
        talk.room_verdict = Verdict::Accepted;
    }
    talk.send("MAIL FROM:<a@x.example>\r\nRCPT TO:<b@our.example>\r\n")
        .expect_codes(&[250, 250]);
    talk.send("BDAT 2\r\nA:BDAT 4 LAST\r\n b\r\n").expect_codes(&[250, 250]);
    assert_eq!(talk.rooms, [1234, 2000, 2]);
    assert!(talk.delivered.len() == 1 && talk.aborted == 0);
}
