//! AUTH.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

fn submission() -> Talk {
    let mut talk = Talk::new(config(Role::Submission));
    talk.send("EHLO c\r\n").expect("250 AUTH PLAIN LOGIN");
    talk
}

fn plain(fields: &[u8]) -> String {
    format!("AUTH PLAIN {}\r\n", STANDARD.encode(fields))
}

#[test]
fn plain_and_login_with_and_without_initial_response() {
    for wire in [
        "AUTH PLAIN AGIAc2VjcmV0\r\n",
        "AUTH plain\r\nAGIAc2VjcmV0\r\n",
        "AUTH LOGIN Yg==\r\nc2VjcmV0\r\n",
        "AUTH LOGIN\r\nYg==\r\nc2VjcmV0\r\n",
    ] {
        let mut talk = submission();
        talk.send(wire);
        let replies = String::from_utf8(talk.replies.clone()).unwrap();
        assert!(
            replies.ends_with("235 2.7.0 Authentication successful\r\n"),
            "{wire}: {replies}"
        );
        assert_eq!(
            (talk.logins.as_slice(), talk.machine.identity()),
            (["b".to_owned()].as_slice(), Some("b"))
        );
    }
    let mut talk = submission();
    talk.send("AUTH LOGIN\r\n")
        .expect("334 VXNlcm5hbWU6")
        .send("Yg==\r\n")
        .expect("334 UGFzc3dvcmQ6");
    talk.send("AUTH PLAIN\r\n")
        .expect("501 5.5.2")
        .send("AUTH PLAIN\r\n")
        .expect("334 ");
}

#[test]
fn mail_on_submission_needs_auth() {
    let mut talk = submission();
    talk.send("MAIL FROM:<b@our.example>\r\n").expect("530 5.7.0");
    talk.send(plain(b"\0b\0wrong"))
        .expect("535 5.7.8")
        .send("MAIL FROM:<b@our.example>\r\n")
        .expect("530 5.7.0");
    talk.send(plain(b"\0b\0secret"))
        .expect("235 2.7.0")
        .send("MAIL FROM:<b@our.example>\r\n")
        .expect("250 2.1.0");
}

#[test]
fn auth_is_not_offered_to_relays() {
    Talk::relay().send("AUTH PLAIN AGIAc2VjcmV0\r\n").expect("502 5.5.1");
}

#[test]
fn smtp_auth_plain_clear() {
    let mut talk = Talk::new(Config {
        plain_login: false,
        ..config(Role::Submission)
    });
    talk.send("EHLO c\r\n").expect("250 STARTTLS");
    talk.send("AUTH PLAIN AGIAc2VjcmV0\r\n").expect("538 5.7.11");
    assert!(talk.logins.is_empty());
    talk.send("STARTTLS\r\n").expect("220 2.0.0").input(Input::TlsDone);
    talk.send("EHLO c\r\n").expect("250 AUTH PLAIN LOGIN");
    talk.send("AUTH PLAIN AGIAc2VjcmV0\r\n").expect("235 2.7.0");
}

#[test]
fn smtp_auth_bad_base64() {
    let mut talk = submission();
    for wire in [
        "AUTH PLAIN !!!!\r\n",
        "AUTH PLAIN AGIAc2VjcmV0=\r\n",
        "AUTH LOGIN \u{e9}\r\n",
        "AUTH PLAIN Yg==\r\n",
    ] {
        talk.send(wire).expect("501 5.5.2");
    }
    assert!(talk.logins.is_empty());
    talk.send(plain(b"\0b\0secret")).expect("235 2.7.0");
}

#[test]
fn smtp_auth_cancel() {
    let mut talk = submission();
    for _ in 0..19 {
        talk.send("AUTH LOGIN\r\n*\r\n").expect_all(&["334 ", "501 5.7.0"]);
        assert_eq!(talk.machine.buffered_bytes(), 0);
    }
    talk.send("AUTH LOGIN\r\nYg==\r\n*\r\n")
        .expect_all(&["334 ", "334 ", "421 4.7.0"])
        .expect_closed();
}

#[test]
fn smtp_auth_8bit_user() {
    let mut talk = submission();
    talk.send(plain(b"\0\xff\xfe\0secret")).expect("535 5.7.8");
    talk.send(format!("AUTH LOGIN {}\r\n", STANDARD.encode(b"\xc3")))
        .expect("535 5.7.8");
    assert!(talk.logins.is_empty());
}

#[test]
fn smtp_auth_percent_user() {
    let mut talk = submission();
    for name in ["%{env:HOME}", "a' OR 1=1"] {
        talk.send(plain(format!("\0{name}\0wrong").as_bytes()))
            .expect("535 5.7.8");
        assert_eq!(talk.logins.last().unwrap(), name);
    }
}

#[test]
fn smtp_auth_long_password() {
    for (length, asked) in [(4095, 1), (4096, 1), (4097, 0)] {
        let mut talk = submission();
        talk.send(plain(format!("\0b\0{}", "x".repeat(length)).as_bytes()))
            .expect("535 5.7.8");
        assert_eq!(talk.logins.len(), asked, "{length}");
    }
    let megabyte = STANDARD.encode(vec![b'x'; 1 << 20]);
    let mut talk = submission();
    talk.send(format!("AUTH PLAIN {megabyte}\r\n"))
        .expect("535 5.7.8")
        .expect_closed();
    let mut talk = submission();
    talk.send("AUTH PLAIN\r\n")
        .expect("334 ")
        .send(format!("{megabyte}\r\n"))
        .expect("535 5.7.8")
        .expect_closed();
    assert!(talk.logins.is_empty());
}

#[test]
fn an_exchange_has_a_size_limit() {
    for (length, reply) in [(16 * 1024, "535 5.7.8"), (16 * 1024 + 4, "535 5.7.8")] {
        let mut talk = submission();
        talk.send("AUTH PLAIN\r\n").expect("334 ");
        talk.send(format!("{}\r\n", "A".repeat(length)))
            .expect(reply)
            .send("NOOP\r\n")
            .expect("250 2.0.0");
        assert!(talk.logins.is_empty());
    }
}

#[test]
fn nobody_acts_for_another() {
    let mut talk = submission();
    talk.send(plain(b"c\0b\0secret")).expect("535 5.7.8");
    for fields in [
        b"\0\0secret".as_slice(),
        b"\0b\r\nX: y\0secret",
        b"\0b\0",
        b"\0b\0secret\0x",
    ] {
        talk.send(plain(fields)).expect("535 5.7.8");
    }
    assert!(talk.logins.is_empty());
    talk.send(plain(b"b\0b\0secret")).expect("235 2.7.0");
}

#[test]
fn smtp_auth_in_transaction() {
    let mut talk = Talk::submission();
    talk.send("AUTH PLAIN AGIAc2VjcmV0\r\n").expect("503 5.5.1");
    talk.send("MAIL FROM:<b@our.example>\r\nAUTH LOGIN\r\n")
        .expect_all(&["250 2.1.0", "503 5.5.1"]);
    Talk::new(config(Role::Submission))
        .send("AUTH PLAIN AGIAc2VjcmV0\r\n")
        .expect("503 5.5.1");
}

#[test]
fn unknown_mechanisms_are_refused() {
    submission()
        .send("AUTH XOAUTH2 dXNlcg==\r\nAUTH\r\n")
        .expect_all(&["504 5.5.4", "501 5.5.4"]);
}

#[test]
fn passwords_do_not_show() {
    assert_eq!(format!("{:?}", Password("secret".into())), "Password(..)");
}

#[test]
fn after_421_nothing_of_what_was_sent_ahead_is_run() {
    let mut talk = submission();
    let again = [plain(b"\0b\0once too often"), plain(b"\0b\0secret")].concat();
    talk.send(again).expect("421 4.7.0").expect_closed();
    assert_eq!((talk.logins.len(), talk.machine.identity()), (1, None));
}

#[test]
fn an_equals_sign_is_an_empty_initial_response() {
    // RFC 4954 4. An empty name is nobody's, but that is said when the exchange is over.
    let mut talk = submission();
    talk.send("AUTH LOGIN =\r\n")
        .expect("334 UGFzc3dvcmQ6")
        .send("c2VjcmV0\r\n")
        .expect("535 5.7.8");
    assert!(talk.logins.is_empty());
}
