//! BDAT.

use core_types::limits::{SMTP_CHUNK_TINY_BYTES, SMTP_CHUNKS_TINY_MAX};

use super::*;

const START: &str = "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@our.example>\r\n";

fn started() -> Talk {
    let mut talk = Talk::relay();
    talk.send(START).expect_codes(&[250, 250]);
    talk
}

#[test]
fn smtp_dot_stuffing_bdat() {
    let message = ".\r\n..\r\n.x\r\n\r\n.\r\n";
    for read_bytes in [1, 3, 16 * 1024] {
        let mut talk = started();
        talk.read_bytes = read_bytes;
        talk.send(format!(
            "BDAT 4\r\n{}BDAT {} LAST\r\n{}",
            &message[..4],
            message.len() - 4,
            &message[4..]
        ));
        talk.expect_all(&["250 2.0.0 4 octets", "250 2.0.0 stored"]);
        assert_eq!(talk.delivered_text(), message);
    }
}

#[test]
fn a_line_end_may_be_cut_between_chunks() {
    let mut talk = started();
    talk.send("BDAT 2\r\nx\rBDAT 3\r\n\ny\nBDAT 0 LAST\r\n")
        .expect_codes(&[250, 250, 250]);
    assert_eq!(talk.delivered_text(), "x\r\ny\r\n");
    let mut talk = started();
    talk.send("BDAT 2 LAST\r\nx\r").expect("550 5.5.2");
    let mut talk = started();
    talk.send("BDAT 2\r\nx\rBDAT 1\r\ny")
        .expect_all(&["250 2.0.0", "550 5.5.2"]);
    talk.send("BDAT 1 LAST\r\nz").expect("503 5.5.1");
    assert!(talk.delivered.is_empty());
    assert_eq!(talk.aborted, 1);
}

#[test]
fn bdat_on_submission_is_strict_too() {
    let mut talk = Talk::submission();
    talk.send(START)
        .expect_codes(&[250, 250])
        .send("BDAT 7 LAST\r\nA: b\nx\n")
        .expect("550 5.5.2");
}

#[test]
fn smtp_data_after_bdat_error() {
    let mut talk = started();
    talk.send("BDAT 3\r\na\rb")
        .expect("550 5.5.2")
        .send("DATA\r\n")
        .expect("503 5.5.1");
    talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
    let mut talk = started();
    talk.send("BDAT x\r\n")
        .expect("501 5.5.4")
        .send("DATA\r\n")
        .expect("503 5.5.1");
}

#[test]
fn between_chunks_only_bdat_goes_on() {
    let mut talk = started();
    talk.send("BDAT 1\r\nx").expect("250 2.0.0");
    for command in ["DATA\r\n", "RCPT TO:<c@our.example>\r\n", "MAIL FROM:<>\r\n"] {
        talk.send(command).expect("503 5.5.1");
    }
    talk.send("NOOP\r\nBDAT 1 LAST\r\ny").expect_codes(&[250, 250]);
    assert_eq!(talk.delivered_text(), "xy");
}

#[test]
fn smtp_bdat_nonnumeric() {
    for argument in ["abc", "-5", "1 LASTX", "", "1 LAST x", "+1", "1x"] {
        let mut talk = started();
        talk.send(format!("BDAT {argument}\r\nNOOP\r\n"))
            .expect_all(&["501 5.5.4", "250 2.0.0"]);
    }
}

#[test]
fn smtp_bdat_overflow() {
    for size in ["9223372036854775808", "99999999999999999999999", "2097153"] {
        let mut talk = started();
        talk.send(format!("BDAT {size}\r\nNOOP\r\n"))
            .expect("552 5.3.4")
            .expect_closed();
    }
}

#[test]
fn smtp_bdat_oversize_drain() {
    let octets = "MAIL FROM:<evil@x>\r\n".repeat(70_000);
    for last in ["", " LAST"] {
        let mut talk = started();
        talk.send(format!("BDAT {}{last}\r\n{}NOOP\r\n", octets.len(), octets))
            .expect_all(&["552 5.3.4", "250 2.0.0"]);
        assert_eq!((talk.senders.len(), talk.delivered.len(), talk.aborted), (1, 0, 1));
    }
    // The limit counts all chunks together.
    let mut talk = started();
    let half = "x".repeat(600_000);
    talk.send(format!("BDAT 600000\r\n{half}BDAT 600000 LAST\r\n{half}"))
        .expect_codes(&[250, 552]);
}

#[test]
fn octets_without_a_transaction_are_drained() {
    let mut talk = Talk::relay();
    talk.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        .expect_all(&["503 5.5.1", "250 2.0.0"]);
    talk.send("MAIL FROM:<>\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n")
        .expect_all(&["250 2.1.0", "554 5.5.1", "250 2.0.0"]);
    talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
}

#[test]
fn smtp_bdat_last_zero() {
    let mut talk = started();
    talk.send("BDAT 0 LAST\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered_text(), "");
    let mut talk = Talk::submission();
    talk.send(START)
        .expect_codes(&[250, 250])
        .send("BDAT 0 LAST\r\n")
        .expect("554 5.6.0");
}

#[test]
fn smtp_bdat_tiny_1m() {
    let mut talk = started();
    let mut sent = 0;
    while !talk.closed && sent < 1_000_000 {
        talk.send("BDAT 1\r\nx");
        sent += 1;
    }
    assert_eq!(sent, 1001);
    assert!(
        String::from_utf8(talk.replies.clone())
            .unwrap()
            .ends_with("421 4.7.0 Too many tiny chunks\r\n")
    );
    assert_eq!((talk.delivered.len(), talk.aborted), (0, 1));
}

#[test]
fn smtp_rset_everywhere() {
    for before in ["", "MAIL FROM:<a@x>\r\n", START, &format!("{START}BDAT 1\r\nx")] {
        let mut talk = Talk::submission();
        talk.send(before);
        talk.expect_codes(&[250, 250, 250][..before.matches("\r\n").count()]);
        talk.send("RSET\r\n")
            .expect("250 2.0.0")
            .send("RCPT TO:<b@our.example>\r\n")
            .expect("503 5.5.1");
        talk.send("BDAT 1 LAST\r\nx").expect("503 5.5.1");
        talk.send("AUTH PLAIN AGIAc2VjcmV0\r\n").expect("503 5.5.1");
        talk.send(START)
            .expect_codes(&[250, 250])
            .send("BDAT 6 LAST\r\nA: b\r\n")
            .expect("250 2.0.0");
        assert_eq!(talk.delivered_text(), "A: b\r\n");
    }
}

#[test]
fn a_chunk_of_the_least_usual_size_is_not_tiny() {
    let size = usize::try_from(SMTP_CHUNK_TINY_BYTES).unwrap();
    for (size, closes) in [(size, false), (size - 1, true)] {
        let mut talk = Talk::new(Config {
            size_max: 1 << 30,
            ..config(Role::Relay)
        });
        talk.send("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\n");
        let text = [b"A: b\r\n\r\n".to_vec(), vec![b'x'; size - 8]].concat();
        for _ in 0..=SMTP_CHUNKS_TINY_MAX {
            talk.send(format!("BDAT {size}\r\n")).send(&text);
        }
        assert_eq!(talk.closed, closes, "{size}");
    }
}
