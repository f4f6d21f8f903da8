//! Order of commands, pipelining, TLS.

use super::*;

#[test]
fn a_message_goes_through_on_each_listener() {
    let mut talk = Talk::relay().in_data();
    talk.send("A: b\r\n\r\ntext\r\n.\r\n")
        .expect("250 2.0.0")
        .send("QUIT\r\n")
        .expect("221 2.0.0")
        .expect_closed();
    assert_eq!(talk.delivered_text(), "A: b\r\n\r\ntext\r\n");
    let mut talk = Talk::submission().in_data();
    talk.send("A: b\r\n\r\ntext\r\n.\r\n").expect("250 2.0.0");
    assert_eq!(talk.delivered[0].transaction.identity.as_deref(), Some("b"));
    assert_eq!(talk.delivered[0].transaction.with, "ESMTPA");
}

#[test]
fn ehlo_lists_what_the_listener_offers() {
    let mut talk = Talk::new(config(Role::Relay));
    talk.send("EHLO c\r\n");
    let expected = "250-mx.our.example\r\n250-PIPELINING\r\n250-SIZE 1048576\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                    250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 STARTTLS\r\n";
    assert_eq!(String::from_utf8(talk.replies.clone()).unwrap(), expected);
    let mut talk = Talk::new(Config {
        tls: Tls::Active,
        ..config(Role::Submission)
    });
    talk.send("EHLO c\r\n").expect("250 AUTH PLAIN LOGIN");
    let mut talk = Talk::new(config(Role::Relay));
    talk.send("HELO c\r\n").expect("250 mx.our.example");
    talk.send("EHLO\r\nEHLO a b\r\nEHLO \u{e9}\r\n")
        .expect_all(&["501 5.5.4"; 3]);
}

#[test]
fn the_small_commands_have_their_replies() {
    let mut talk = Talk::relay();
    talk.send("VRFY b\r\nEXPN x\r\nHELP\r\nNOOP x\r\nFOO\r\n\r\n");
    talk.expect_all(&[
        "252 2.5.0",
        "502 5.5.1",
        "214 2.0.0",
        "250 2.0.0",
        "500 5.5.1",
        "500 5.5.1",
    ]);
}

#[test]
fn smtp_bare_lf_command() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@b>\nRCPT TO:<c@d>\r\n").expect("500 5.5.2");
    assert!(talk.senders.is_empty());
    talk.send("NOOP\rNOOP\r\n").expect("500 5.5.2");
}

#[test]
fn smtp_early_talker() {
    for input in [Input::EarlyInput, Input::Bytes(b"EHLO c\r\n")] {
        let mut machine = Machine::new(config(Role::Relay));
        let mut actions = Vec::new();
        machine.handle(input, &mut actions);
        machine.handle(Input::Connected, &mut actions);
        let [Action::Reply(reply), Action::Close] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert!(reply.starts_with(b"554 5.5.0 "));
    }
}

#[test]
fn smtp_pipelined_after_quit() {
    let mut talk = Talk::relay();
    talk.send("QUIT\r\nMAIL FROM:<a@b>\r\n")
        .expect("221 2.0.0")
        .expect_closed();
    assert!(talk.senders.is_empty());
}

#[test]
fn smtp_pipeline_mixed_errors() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<nobody@our.example>\r\nRCPT TO:<b@our.example>\r\nDATA\r\n");
    talk.expect_all(&["250 2.1.0", "550 5.1.1", "250 2.1.5", "354 "])
        .send("A: b\r\n.\r\n")
        .expect("250 2.0.0");
    let recipients = &talk.delivered[0].transaction.recipients;
    assert_eq!(recipients.len(), 1);
    assert_eq!(recipients[0].as_sent, "b@our.example");
}

#[test]
fn smtp_data_no_rcpt() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<nobody@our.example>\r\nDATA\r\n");
    talk.expect_all(&["250 2.1.0", "550 5.1.1", "554 5.5.1"]);
    talk.send("RCPT TO:<b@our.example>\r\nDATA\r\n")
        .expect_codes(&[250, 354]);
}

#[test]
fn smtp_rcpt_before_mail() {
    Talk::relay()
        .send("RCPT TO:<b@our.example>\r\nDATA\r\n")
        .expect_all(&["503 5.5.1"; 2]);
    Talk::new(config(Role::Relay))
        .send("MAIL FROM:<a@x>\r\n")
        .expect("503 5.5.1");
}

#[test]
fn smtp_mail_twice() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x>\r\nMAIL FROM:<z@x>\r\nRCPT TO:<b@our.example>\r\nBDAT 0 LAST\r\n");
    talk.expect_codes(&[250, 503, 250, 250]);
    assert_eq!(talk.delivered[0].transaction.reverse_path.to_string(), "a@x");
}

#[test]
fn ehlo_in_a_transaction_ends_it() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x>\r\nEHLO c\r\nRCPT TO:<b@our.example>\r\n")
        .expect_codes(&[250, 250, 503]);
}

#[test]
fn smtp_starttls_twice() {
    let mut talk = Talk::relay();
    talk.send("STARTTLS\r\n").expect("220 2.0.0");
    assert!(talk.tls_started && !talk.machine.wants_input());
    talk.input(Input::TlsDone)
        .send("EHLO c\r\n")
        .expect("250 DSN")
        .send("STARTTLS\r\n")
        .expect("503 5.5.1");
    let mut talk = Talk::new(Config {
        tls: Tls::None,
        ..config(Role::Relay)
    });
    talk.send("STARTTLS\r\n").expect("502 5.5.1");
}

#[test]
fn smtp_starttls_state() {
    let mut talk = Talk::submission();
    talk.send("MAIL FROM:<b@our.example>\r\nSTARTTLS\r\n")
        .expect_codes(&[250, 220])
        .input(Input::TlsDone);
    talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
    talk.send("MAIL FROM:<b@our.example>\r\n").expect("503 5.5.1");
    talk.send("EHLO c\r\n")
        .expect("250 ")
        .send("MAIL FROM:<b@our.example>\r\n")
        .expect("530 5.7.0");
    assert_eq!(talk.machine.identity(), None);
}

#[test]
fn nothing_sent_in_clear_behind_starttls_is_run() {
    let mut talk = Talk::relay();
    talk.send("STARTTLS\r\nEHLO evil\r\nMAIL FROM:<evil@x>\r\n")
        .expect("554 5.5.0")
        .expect_closed();
    assert!(!talk.tls_started);
    let mut talk = Talk::relay();
    talk.send("STARTTLS\r\n")
        .expect("220 2.0.0")
        .send("MAIL FROM:<evil@x>\r\n")
        .expect_all(&[]);
    assert!(talk.closed && talk.senders.is_empty());
}

#[test]
fn smtp_relay_open() {
    for sender in ["a@x.example", "b@our.example"] {
        let mut talk = Talk::relay();
        talk.send(format!(
            "MAIL FROM:<{sender}>\r\nRCPT TO:<a@foreign.example>\r\nDATA\r\n"
        ));
        talk.expect_all(&["250 2.1.0", "550 5.7.1", "554 5.5.1"]);
    }
    let mut talk = Talk::new(config(Role::Submission));
    talk.send("EHLO c\r\nMAIL FROM:<b@our.example>\r\n")
        .expect_codes(&[250, 530]);
    talk.send("RCPT TO:<a@foreign.example>\r\n").expect("503 5.5.1");
}

#[test]
fn pipelined_octets_wait_for_the_verdict_in_a_bounded_buffer() {
    let mut machine = Machine::new(config(Role::Relay));
    let mut actions = Vec::new();
    machine.handle(Input::Connected, &mut actions);
    machine.handle(
        Input::Bytes(b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\n"),
        &mut actions,
    );
    assert!(matches!(actions.last(), Some(Action::CheckSender { .. })));
    actions.clear();
    let mut taken = 0;
    while machine.wants_input() {
        machine.handle(Input::Bytes(&b"NOOP\r\n".repeat(100)), &mut actions);
        taken += 100;
    }
    assert!(actions.is_empty());
    assert!(machine.buffered_bytes() < SMTP_PENDING_BYTES_MAX + 700);
    machine.handle(Input::Verdict(Verdict::Accepted), &mut actions);
    assert!(
        matches!(actions.as_slice(), [Action::Reply(_), Action::CheckRecipient { .. }]),
        "{actions:?}"
    );
    actions.clear();
    machine.handle(Input::Verdict(Verdict::Accepted), &mut actions);
    let noops: usize = actions
        .iter()
        .map(|action| match action {
            Action::Reply(bytes) => bytes.windows(12).filter(|window| window == b"250 2.0.0 Ok").count(),
            _ => 0,
        })
        .sum();
    assert!(noops >= 100 && noops <= taken);
    assert_eq!(machine.buffered_bytes(), 0);
}

#[test]
fn a_client_that_ignores_back_pressure_is_dropped() {
    let mut machine = Machine::new(config(Role::Relay));
    let mut actions = Vec::new();
    machine.handle(Input::Connected, &mut actions);
    machine.handle(Input::Bytes(b"EHLO c\r\nMAIL FROM:<a@x>\r\n"), &mut actions);
    for _ in 0..3 {
        machine.handle(Input::Bytes(&vec![b'x'; SMTP_READ_BYTES_MAX]), &mut actions);
    }
    assert_eq!(actions.last(), Some(&Action::Close));
    assert_eq!(machine.buffered_bytes(), 0);
}

#[test]
fn timeouts_and_shutdown_say_so_and_drop_the_message() {
    for (input, reply) in [(Input::Timeout, "421 4.4.2"), (Input::Shutdown, "421 4.3.2")] {
        let mut talk = Talk::relay().in_data();
        talk.send("A: b\r\n").input(input).expect(reply).expect_closed();
        assert_eq!((talk.aborted, talk.delivered.len()), (1, 0));
    }
    let mut talk = Talk::relay().in_data();
    talk.send("A: b\r\n")
        .input(Input::Disconnected)
        .expect_all(&[])
        .expect_closed();
    assert_eq!(talk.aborted, 1);
}

#[test]
fn a_verdict_nobody_asked_for_changes_nothing() {
    let mut talk = Talk::relay();
    talk.input(Input::Verdict(Verdict::Accepted))
        .input(Input::TlsDone)
        .expect_all(&[]);
    talk.send("RCPT TO:<b@our.example>\r\n").expect("503 5.5.1");
}

#[test]
fn starttls_between_chunks_throws_them_away() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\nBDAT 4\r\nA: b")
        .expect_codes(&[250; 3]);
    talk.send("STARTTLS\r\n").expect("220 2.0.0");
    assert_eq!((talk.aborted, talk.under_way.is_none()), (1, true));
    talk.input(Input::TlsDone)
        .send("EHLO c\r\n")
        .expect("250 DSN")
        .send("BDAT 0 LAST\r\n")
        .expect("503 5.5.1");
    assert!(talk.delivered.is_empty());
}

#[test]
fn data_has_no_argument() {
    let mut talk = Talk::relay();
    talk.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@our.example>\r\n")
        .expect_codes(&[250, 250]);
    talk.send("DATA x\r\n").expect("501 5.5.4");
    // The transaction stands.
    talk.send("DATA\r\n")
        .expect("354 ")
        .send("A: b\r\n.\r\n")
        .expect("250 2.0.0");
}

#[test]
fn a_verdict_that_is_no_refusal_is_no_consent() {
    let ok = Reply::new(250, Enhanced(2, 0, 0), "ok");
    for verdict in [Verdict::Refused(ok.clone()), Verdict::Data(vec![ok])] {
        let mut machine = Machine::new(config(Role::Relay));
        let mut actions = Vec::new();
        machine.handle(Input::Connected, &mut actions);
        machine.handle(Input::Bytes(b"EHLO c\r\nMAIL FROM:<a@x>\r\n"), &mut actions);
        assert!(matches!(actions.last(), Some(Action::CheckSender { .. })));
        actions.clear();
        machine.handle(Input::Verdict(verdict), &mut actions);
        let [Action::Reply(reply)] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert!(reply.starts_with(b"451 4.3.0"));
    }
}
