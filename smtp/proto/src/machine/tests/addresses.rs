//! MAIL and RCPT: paths and parameters.

use super::*;
use crate::path::ForwardPath;

#[track_caller]
fn mail(argument: impl AsRef<[u8]>, reply: &str) -> Talk {
    let mut talk = Talk::relay();
    talk.send([b"MAIL FROM:", argument.as_ref(), b"\r\n"].concat())
        .expect(reply);
    talk
}

#[track_caller]
fn rcpt(argument: impl AsRef<[u8]>, reply: &str) -> Talk {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<>\r\n").expect("250 2.1.0");
    talk.send([b"RCPT TO:", argument.as_ref(), b"\r\n"].concat())
        .expect(reply);
    talk
}

#[test]
fn smtp_addr_nul() {
    assert!(mail(b"<a\0b@c>", "501 5.1.7").senders.is_empty());
}

#[test]
fn smtp_addr_localpart_65() {
    assert!(
        rcpt(format!("<{}@our.example>", "a".repeat(65)), "501 5.1.3")
            .recipients
            .is_empty()
    );
    rcpt(format!("<{}@our.example>", "a".repeat(64)), "550 5.1.1");
}

#[test]
fn smtp_addr_empty_quoted() {
    rcpt("<\"\"@our.example>", "550 5.1.1");
}

#[test]
fn smtp_addr_source_route() {
    let talk = rcpt("<@a,@b:c@our.example>", "250 2.1.5");
    assert_eq!(talk.recipients[0].to_string(), "c@our.example");
    rcpt("<@our.example:c@elsewhere.example>", "550 5.7.1");
}

#[test]
fn smtp_addr_bang() {
    let talk = rcpt("<remote!victim@our.example>", "550 5.1.1");
    assert_eq!(talk.recipients[0].to_string(), "remote!victim@our.example");
}

#[test]
fn smtp_addr_8bit_no_smtputf8() {
    mail("<\u{e9}@x.example>", "553 5.6.7");
    rcpt("<\u{e9}@our.example>", "550 5.6.7");
    mail("<\u{e9}@x.example> SMTPUTF8", "250 2.1.0");
}

#[test]
fn smtp_addr_bad_utf8() {
    for bytes in [
        b"<\xc3@our.example>".as_slice(),
        b"<\xc0\xaf@our.example>",
        b"<\xed\xa0\x80@our.example>",
    ] {
        assert!(rcpt(bytes, "501 5.1.3").recipients.is_empty());
        mail(bytes, "501 5.1.7");
    }
}

#[test]
fn smtp_addr_homoglyph_nfc() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<e\u{301}@our.example>\r\n")
        .expect_codes(&[250, 250]);
    talk.send("BDAT 0 LAST\r\n").expect("250 2.0.0");
    let transaction = &talk.delivered[0].transaction;
    assert_eq!(transaction.recipients[0].forward_path.to_string(), "\u{e9}@our.example");
    assert_eq!(transaction.recipients[0].as_sent, "e\u{301}@our.example");
    assert_eq!(transaction.with, "UTF8SMTP");
}

#[test]
fn smtp_addr_case() {
    let talk = rcpt("<PostMaster@OUR.example>", "250 2.1.5");
    assert_eq!(talk.recipients[0].to_string(), "PostMaster@our.example");
    let talk = rcpt("<POSTmaster>", "250 2.1.5");
    assert_eq!(talk.recipients, [ForwardPath::Postmaster]);
}

#[test]
fn smtp_addr_angle_missing() {
    mail(" a@b", "250 2.1.0");
    rcpt("c@d>", "501 5.5.4");
    let mut talk = Talk::submission();
    talk.send("MAIL FROM: a@b\r\n").expect("501 5.5.4");
    talk.send("MAIL FROM: <a@b>\r\nRCPT TO:c@d>\r\n")
        .expect_all(&["250 2.1.0", "501 5.5.4"]);
}

#[test]
fn smtp_addr_trailing_garbage() {
    rcpt("<b@our.example> NOTIFY=NEVER,SUCCESS", "501 5.5.4");
    rcpt("<b@our.example> NOTIFY=NEVER FOO=1", "555 5.5.4");
    rcpt("<b@our.example>x", "501 5.5.4");
    rcpt("<b@our.example> NOTIFY=NEVER,SUCCESS FOO=1", "501 5.5.4");
}

#[test]
fn smtp_size_overflow() {
    mail("<a@x> SIZE=18446744073709551616", "501 5.5.4");
    mail("<a@x> SIZE=18446744073709551615", "552 5.3.4");
    mail("<a@x> SIZE=1048577", "552 5.3.4");
    mail("<a@x> SIZE=1048576", "250 2.1.0");
}

#[test]
fn empty_and_missing_paths_are_refused() {
    rcpt("<>", "501 5.1.3");
    rcpt("", "501 5.5.4");
    mail("", "501 5.5.4");
    let mut talk = Talk::relay();
    talk.send("MAIL\r\nMAIL TO:<a@b>\r\nMAIL FROM <a@b>\r\n")
        .expect_all(&["501 5.5.4"; 3]);
}

#[test]
fn smtp_null_sender_multi_rcpt() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<>\r\n").expect("250 2.1.0");
    for index in 0..50 {
        talk.send(format!("RCPT TO:<user{index}@our.example>\r\n"))
            .expect("250 2.1.5");
    }
    talk.send("DATA\r\n").expect("354").send(".\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered[0].transaction.reverse_path, ReversePath::Null);
    assert_eq!(talk.delivered[0].transaction.recipients.len(), 50);
}

#[test]
fn smtp_rcpt_1001() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<>\r\n").expect("250 2.1.0");
    for index in 0..1030 {
        let reply = if index < 1000 { "250 2.1.5" } else { "452 4.5.3" };
        talk.send(format!("RCPT TO:<user{index}@our.example>\r\n"))
            .expect(reply);
    }
    talk.send("DATA\r\n").expect("354").send(".\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered[0].transaction.recipients.len(), 1000);
}

#[test]
fn smtp_rcpt_dup() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<>\r\n").expect("250 2.1.0");
    for _ in 0..500 {
        talk.send("RCPT TO:<b@our.example>\r\n").expect("250 2.1.5");
    }
    talk.send("DATA\r\n").expect("354").send(".\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered[0].transaction.recipients.len(), 1);
}

#[test]
fn parameters_reach_the_transaction() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x> SIZE=3 BODY=8BITMIME RET=HDRS ENVID=Q+3D1 AUTH=<>\r\n")
        .expect("250 2.1.0");
    talk.send("RCPT TO:<b@our.example> NOTIFY=FAILURE ORCPT=rfc822;z@y\r\nBDAT 0 LAST\r\n")
        .expect_codes(&[250, 250]);
    let transaction = &talk.delivered[0].transaction;
    assert_eq!((transaction.size, transaction.ret), (Some(3), Some(crate::Ret::Hdrs)));
    assert_eq!(transaction.envid.as_deref(), Some("Q=1"));
    assert_eq!(transaction.body, crate::BodyType::EightBitMime);
    assert_eq!(
        (transaction.hello.as_str(), transaction.with),
        ("client.example", "ESMTP")
    );
    let recipient = &transaction.recipients[0];
    assert_eq!(
        recipient.notify,
        Some(crate::Notify::On {
            success: false,
            failure: true,
            delay: false
        })
    );
    assert_eq!(recipient.original_recipient.as_ref().unwrap().address, "z@y");
}
