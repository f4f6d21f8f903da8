//! Clients that are no mail programs, and those that make too many mistakes.

use super::*;

#[test]
fn smtp_many_errors() {
    let mut talk = Talk::relay();
    for count in 1..20 {
        talk.send("FOO\r\n").expect("500 5.5.1");
        assert_eq!(talk.delays.len(), usize::max(count, 9) - 9, "{count}");
    }
    assert!(talk.delays.windows(2).all(|pair| pair[0] < pair[1]));
    talk.send("FOO\r\n").expect("421 4.7.0").expect_closed();
}

#[test]
fn a_delivered_message_makes_the_slate_clean() {
    let mut talk = Talk::relay();
    for _ in 0..5 {
        talk.send("FOO\r\n".repeat(15)).expect_all(&["500 5.5.1"; 15]);
        talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\nBDAT 0 LAST\r\n")
            .expect_codes(&[250; 3]);
    }
}

#[test]
fn smtp_junk_commands() {
    let mut talk = Talk::relay();
    let replies = [
        ("NOOP\r\n", "250 "),
        ("RSET\r\n", "250 "),
        ("VRFY b\r\n", "252 "),
        ("HELP\r\n", "214 "),
    ];
    for count in 1..120 {
        let (command, reply) = replies[count % 4];
        talk.send(command).expect(reply);
        assert_eq!(talk.delays.len(), usize::max(count, 109) - 109, "{count}");
    }
    talk.send("NOOP\r\n").expect("421 4.7.0").expect_closed();
}

#[test]
fn smtp_http_get() {
    let mut talk = Talk::new(config(Role::Relay));
    talk.send("GET / HTTP/1.1\r\nHost: x\r\n\r\nEHLO c\r\nMAIL FROM:<a@b>\r\n")
        .expect("421 4.5.0")
        .expect_closed();
    assert!(talk.senders.is_empty());
    Talk::new(config(Role::Submission))
        .send("POST / HTTP/1.1\r\n")
        .expect("421 4.5.0")
        .expect_closed();
}

#[test]
fn smtp_tls_on_plain() {
    let mut talk = Talk::new(config(Role::Relay));
    talk.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\nEHLO c\r\n")
        .expect("500 5.5.2")
        .expect_closed();
}

#[test]
fn smtp_proxy_header_spoof() {
    for line in [
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n",
        "XCLIENT ADDR=127.0.0.1\r\n",
        "XFORWARD NAME=x\r\n",
    ] {
        Talk::new(config(Role::Relay))
            .send(line)
            .expect("500 5.5.1")
            .expect_closed();
    }
}

#[test]
fn smtp_line_2048() {
    for (length, reply) in [(2047, "250 "), (2048, "250 "), (2049, "500 5.5.2")] {
        Talk::relay()
            .send(format!("NOOP {}\r\n", "x".repeat(length - 5)))
            .expect(reply);
    }
    let mut talk = Talk::relay();
    talk.send("x".repeat(2049))
        .expect("500 5.5.2")
        .send("x\nRSET\n".repeat(100))
        .expect_all(&[]);
    assert_eq!(talk.machine.buffered_bytes(), 0);
    talk.send("\r\nNOOP\r\n").expect("250 2.0.0");
    talk.send("x".repeat(64 * 1024))
        .expect("500 5.5.2")
        .send("x")
        .expect_closed();
}

#[test]
fn smtp_rcpt_unknown_30() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<>\r\n").expect("250 2.1.0");
    for count in 1..=20 {
        talk.send(format!("RCPT TO:<nobody{count}@our.example>\r\n"))
            .expect("550 5.1.1");
    }
    assert_eq!(talk.delays.len(), 19);
    assert!(talk.delays.windows(2).all(|pair| pair[0] < pair[1]));
    talk.send("RCPT TO:<nobody21@our.example>\r\n")
        .expect("421 4.7.0")
        .expect_closed();
}

#[test]
fn twenty_thousand_mutated_sessions_keep_the_invariants() {
    let seeds: [&[u8]; 6] = [
        b"\x00EHLO c\r\nMAIL FROM:<a@x> SIZE=9\r\nRCPT TO:<b@y>\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\nQUIT\r\n",
        b"\x11EHLO c\r\nAUTH PLAIN AGIAc2VjcmV0\r\nMAIL FROM:<>\r\nRCPT TO:<b@y>\r\nBDAT 9\r\nA: b\r\n\r\nxBDAT 1 LAST\r\ny",
        b"\x22LHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y> NOTIFY=NEVER\r\nRCPT TO:<c@y>\r\nDATA\r\nx\ny\n.\n\r\n.\r\nRSET\r\n",
        b"\x33EHLO c\r\nSTARTTLS\r\nEHLO c\r\nAUTH LOGIN\r\nYg==\r\nc2VjcmV0\r\nAUTH LOGIN\r\n*\r\nNOOP\r\nVRFY x\r\n",
        b"\x40HELO c\r\nMAIL FROM:<\"a b\"@x>\r\nRCPT TO:<@r:postmaster>\r\nDATA\r\n.\r\r\n\r\n.\r\nRCPT TO:<b@y>\r\nQUIT\r\n",
        b"\x55EHLO c\r\nMAIL FROM:<a@x> RET=FULL ENVID=a+2B SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<b@y> ORCPT=rfc822;a@b\r\nBDAT 4 LAST\r\n.\r\n\r",
    ];
    let pieces: [&[u8]; 8] = [b"\r", b"\n", b".", b" ", b"<", b">", b"\0", b"\xff"];
    let mut random = core_types::testing::Random::new(1);
    for round in 0..20_000 {
        let mut data = seeds[round % seeds.len()].to_vec();
        for _ in 0..random.below(6) {
            random.mutate(&mut data, &pieces);
        }
        crate::fuzzing::fuzz_session(&data);
    }
}
