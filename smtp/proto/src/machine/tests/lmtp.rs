//! LMTP (RFC 2033).

use super::*;

fn lmtp() -> Talk {
    let mut talk = Talk::new(config(Role::Lmtp));
    talk.send("LHLO c\r\n").expect("250 ");
    talk
}

const THREE: &str =
    "MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\nRCPT TO:<c@our.example>\r\nRCPT TO:<user@our.example>\r\n";

fn one_over_quota() -> Vec<Reply> {
    let stored = Reply::new(250, Enhanced(2, 0, 0), "stored");
    vec![stored.clone(), Reply::new(552, Enhanced(5, 2, 2), "quota"), stored]
}

#[test]
fn lmtp_reply_count() {
    for body in ["DATA\r\n", "BDAT 0 LAST\r\n"] {
        let mut talk = lmtp();
        talk.data_verdict = Some(one_over_quota());
        talk.send(THREE).expect_codes(&[250; 4]).send(body);
        if body.starts_with("DATA") {
            talk.expect("354 ").send("A: b\r\n.\r\n");
        }
        talk.expect_all(&["250 2.0.0", "552 5.2.2", "250 2.0.0"]);
    }
}

#[test]
fn a_refused_message_has_a_reply_for_each_recipient() {
    let mut talk = lmtp();
    talk.send(THREE).expect_codes(&[250; 4]).send("DATA\r\n").expect("354 ");
    talk.send("a\rb\r\n.\r\n").expect_all(&["550 5.5.2"; 3]);
    talk.send(THREE)
        .expect_codes(&[250; 4])
        .send("BDAT 2000000 LAST\r\n")
        .send(vec![b'x'; 2_000_000]);
    talk.expect_all(&["552 5.3.4"; 3]);
}

#[test]
fn the_same_recipient_twice_has_two_replies_and_one_delivery() {
    let mut talk = lmtp();
    talk.data_verdict = Some(one_over_quota());
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\nRCPT TO:<c@our.example>\r\nRCPT TO:<b@our.example>\r\n");
    talk.expect_codes(&[250; 4])
        .send("DATA\r\n")
        .expect("354 ")
        .send("A: b\r\n.\r\n");
    talk.expect_all(&["250 2.0.0", "552 5.2.2", "250 2.0.0"]);
    assert_eq!(talk.delivered[0].transaction.recipients.len(), 2);
    assert_eq!(talk.delivered[0].transaction.with, "LMTP");
    // Each RCPT has the reply of the recipient that it named.
    let mut replies = one_over_quota();
    replies.truncate(2);
    replies.reverse();
    talk.data_verdict = Some(replies);
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\nRCPT TO:<c@our.example>\r\nRCPT TO:<b@our.example>\r\n");
    talk.expect_codes(&[250; 4])
        .send("DATA\r\n")
        .expect("354 ")
        .send("A: b\r\n.\r\n");
    talk.expect_all(&["552 5.2.2", "250 2.0.0", "552 5.2.2"]);
}

#[test]
fn missing_verdicts_become_451() {
    let mut talk = lmtp();
    talk.data_verdict = Some(vec![Reply::new(250, Enhanced(2, 0, 0), "stored")]);
    talk.send(THREE)
        .expect_codes(&[250; 4])
        .send("DATA\r\n")
        .expect("354 ")
        .send("A: b\r\n.\r\n");
    talk.expect_all(&["250 2.0.0", "451 4.3.0", "451 4.3.0"]);
}

#[test]
fn lmtp_no_rcpt_data() {
    let mut talk = lmtp();
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<nobody@our.example>\r\nDATA\r\n");
    talk.expect_all(&["250 2.1.0", "550 5.1.1", "503 5.5.1"]);
}

#[test]
fn lmtp_helo() {
    let mut talk = Talk::new(config(Role::Lmtp));
    talk.send("HELO c\r\nEHLO c\r\n").expect_all(&["500 5.5.1"; 2]);
    talk.send("MAIL FROM:<a@x>\r\n").expect("503 5.5.1");
    Talk::new(config(Role::Relay)).send("LHLO c\r\n").expect("500 5.5.1");
}

#[test]
fn lmtp_empty_quoted() {
    lmtp()
        .send("MAIL FROM:<a@x>\r\nRCPT TO:<\"\">\r\n")
        .expect_all(&["250 2.1.0", "501 5.1.3"]);
}
