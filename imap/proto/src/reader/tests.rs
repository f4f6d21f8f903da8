//! The reader's framing and limits. Each talk is fed whole and octet by octet, which must make no difference.

use super::*;
use crate::command::{Command, CommandBody};

/// One line for each event; data is joined.
fn talk_with(mut reader: CommandReader, input: &[u8], piece: usize) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for mut input in input.chunks(piece) {
        while let Some(event) = reader.poll(&mut input) {
            match event {
                Event::Command(command) => {
                    told.push(format!("{} {:?}", command.tag, command.body));
                    match command.body {
                        CommandBody::Idle => reader.begin_idle(command.tag),
                        CommandBody::Authenticate { .. } => reader.begin_authenticate(command.tag),
                        _ => {}
                    }
                }
                Event::Continue => told.push("+".to_owned()),
                Event::Refused(refusal) => {
                    let mut line = Vec::new();
                    crate::Encoder::new(&mut line).refusal(&refusal);
                    told.push(String::from_utf8(line).unwrap().trim_end().to_owned());
                }
                Event::AppendStart(append) => {
                    told.push(format!(
                        "{} APPEND {} {}",
                        append.tag,
                        append.size,
                        if append.sync { "+" } else { "" }
                    ));
                    reader.accept_append();
                }
                Event::AppendData(octets) => {
                    assert!(!octets.is_empty());
                    let text = octets.escape_ascii().to_string();
                    match told.last_mut() {
                        Some(last) if last.starts_with("data ") => *last += &text,
                        _ => told.push(format!("data {text}")),
                    }
                }
                Event::AppendEnd => told.push("end".to_owned()),
                Event::AuthenticateResponse(message) => told.push(format!("sasl {}", message.0.escape_ascii())),
                Event::IdleDone => told.push("done".to_owned()),
                Event::Fatal(fatal) => {
                    let mut line = Vec::new();
                    crate::Encoder::new(&mut line).fatal(&fatal);
                    told.push(String::from_utf8(line).unwrap().trim_end().to_owned());
                }
            }
        }
        assert!(input.is_empty());
    }
    told
}

fn reader() -> CommandReader {
    let mut reader = CommandReader::default();
    reader.set_logged_in();
    reader
}

#[track_caller]
fn assert_talk_with(make: impl Fn() -> CommandReader, input: &[u8], expected: &[&str]) {
    let whole = talk_with(make(), input, usize::MAX);
    assert_eq!(whole, expected);
    if input.len() < 4096 {
        assert_eq!(talk_with(make(), input, 1), whole);
        assert_eq!(talk_with(make(), input, 3), whole);
    }
}

#[track_caller]
fn assert_talk(input: impl AsRef<[u8]>, expected: &[&str]) {
    assert_talk_with(reader, input.as_ref(), expected);
}

#[track_caller]
fn assert_talk_before_login(input: impl AsRef<[u8]>, expected: &[&str]) {
    assert_talk_with(CommandReader::default, input.as_ref(), expected);
}

#[test]
fn commands_come_one_by_one() {
    assert_talk("a NOOP\r\nb CHECK\r\nc NO", &["a Noop", "b Check"]);
}

#[test]
fn a_command_is_seen_as_soon_as_its_line_ends() {
    let mut reader = CommandReader::default();
    let mut input: &[u8] = b"a STARTTLS\r\nb LOGIN x y\r\n";
    assert!(matches!(
        reader.poll(&mut input),
        Some(Event::Command(Command {
            body: CommandBody::StartTls,
            ..
        }))
    ));
    // imap-starttls-injection: the server sees that something is left, and closes.
    assert_eq!(input, b"b LOGIN x y\r\n");
    assert!(reader.is_between_commands());
}

#[test]
fn literals_wait_for_a_continuation_or_not() {
    let select = "a Select(MailboxName(\"x{3}\"))";
    assert_talk("a SELECT {4}\r\nx{3}\r\n", &["+", select]);
    assert_talk("a SELECT {4+}\r\nx{3}\r\nb NOOP\r\n", &[select, "b Noop"]);
    assert_talk(
        "a RENAME {1}\r\nx {1+}\r\ny\r\n",
        &["+", "a Rename { from: MailboxName(\"x\"), to: MailboxName(\"y\") }"],
    );
    assert_talk(
        "a LOGIN {0}\r\n {0+}\r\n\r\n",
        &["+", "a Login { username: [], password: Secret(..) }"],
    );
}

#[test]
fn octets_of_a_literal_are_never_a_header() {
    assert_talk(
        "a SELECT {2}\r\n{5}\r\nb NOOP\r\n",
        &["+", "a BAD Unexpected text after the command", "b Noop"],
    );
    let long = "x".repeat(IMAP_LINE_BYTES_MAX - 20);
    let text = format!("a SEARCH TEXT {{2+}}\r\n{{5 {long}{long}+}}\r\nb NOOP\r\n");
    assert_talk(text, &["a BAD [TOOBIG] Command line over the limit", "b Noop"]);
}

#[test]
fn a_literal_header_within_quotes_is_text() {
    assert_talk(
        "a LOGIN \"x {5}\r\nb NOOP\r\n",
        &["a BAD Quoted string without its end", "b Noop"],
    );
    let select = "a Select(MailboxName(\"\\\\{5}\"))";
    assert_talk("a SELECT \"\\\\{5}\"\r\n", &[select]);
}

#[test]
fn imap_quoted_unclosed() {
    assert_talk(
        "a LOGIN \"abc\r\nb NOOP\r\n",
        &["a BAD Quoted string without its end", "b Noop"],
    );
}

#[test]
fn imap_literal_neg() {
    for length in ["-1", "1e3", "", "0x10"] {
        let told = talk_with(
            reader(),
            format!("a LOGIN {{{length}}}\r\nb NOOP\r\n").as_bytes(),
            usize::MAX,
        );
        assert!(
            told.len() == 2 && told[0].starts_with("a BAD") && told[1] == "b Noop",
            "{told:?}"
        );
    }
    assert_talk(
        "a LOGIN {99999999999999999999}\r\nb NOOP\r\n",
        &["a BAD [TOOBIG] Literals over the limit", "b Noop"],
    );
    assert_talk(
        "a LOGIN {99999999999999999999+}\r\nb NOOP\r\n",
        &["* BYE [ALERT] Literal over the limit"],
    );
}

#[test]
fn imap_literal_nonsync_huge() {
    for make in [reader, CommandReader::default] {
        assert_talk_with(
            make,
            b"a LOGIN {104857600+}\r\nb NOOP\r\n",
            &["* BYE [ALERT] Literal over the limit"],
        );
    }
}

#[test]
fn imap_literal_minus() {
    let make = || {
        let mut reader = CommandReader::new(true);
        reader.set_logged_in();
        reader
    };
    let select = |length: u64| format!("a SEARCH TEXT {{{length}+}}\r\n{}\r\n", "x".repeat(length as usize));
    for length in [IMAP_LITERAL_MINUS_BYTES_MAX - 1, IMAP_LITERAL_MINUS_BYTES_MAX] {
        assert!(talk_with(make(), select(length).as_bytes(), usize::MAX)[0].starts_with("a Search"));
    }
    for length in [IMAP_LITERAL_MINUS_BYTES_MAX + 1, 5000] {
        assert_talk_with(
            make,
            select(length).as_bytes(),
            &["* BAD [TOOBIG] Non-synchronizing literal over 4096 octets"],
        );
    }
    assert_talk_with(
        make,
        b"a APPEND x {5000+}\r\n",
        &["* BAD [TOOBIG] Non-synchronizing literal over 4096 octets"],
    );
}

#[test]
fn imap_literal_1000() {
    // Every literal is a field name of length 1.
    let fetch = |count: usize, plus: &str| {
        let names: Vec<String> = (0..count).map(|_| format!("{{1{plus}}}\r\na")).collect();
        format!("a FETCH 1 BODY[HEADER.FIELDS ({})]\r\nb NOOP\r\n", names.join(" "))
    };
    for count in [IMAP_LITERALS_MAX - 1, IMAP_LITERALS_MAX] {
        let told = talk_with(reader(), fetch(count, "+").as_bytes(), usize::MAX);
        assert!(told[0].starts_with("a Fetch") && told.len() == 2);
    }
    let count = IMAP_LITERALS_MAX + 1;
    assert_talk(fetch(count, "+"), &["a BAD [TOOBIG] Literals over the limit", "b Noop"]);
    // A client that waits never sends what follows the refusal.
    let told = talk_with(reader(), fetch(count, "").as_bytes(), usize::MAX);
    assert_eq!(told.iter().filter(|line| *line == "+").count(), IMAP_LITERALS_MAX);
    assert_eq!(told[IMAP_LITERALS_MAX], "a BAD [TOOBIG] Literals over the limit");
}

#[test]
fn literal_limits_are_exact() {
    let search = |length: u64| {
        format!(
            "a SEARCH TEXT {{{length}+}}\r\n{}\r\nb NOOP\r\n",
            "x".repeat(length as usize)
        )
    };
    for length in [IMAP_LITERAL_BYTES_MAX - 1, IMAP_LITERAL_BYTES_MAX] {
        assert!(talk_with(reader(), search(length).as_bytes(), usize::MAX)[0].starts_with("a Search"));
    }
    assert_talk(
        search(IMAP_LITERAL_BYTES_MAX + 1),
        &["a BAD [TOOBIG] Literals over the limit", "b Noop"],
    );
    // Eleven of them are over what one command may hold.
    let length = IMAP_LITERAL_BYTES_MAX as usize;
    let one = format!(" TEXT {{{length}+}}\r\n{}", "x".repeat(length));
    assert!(talk_with(reader(), format!("a SEARCH{}\r\n", one.repeat(10)).as_bytes(), 5000)[0].starts_with("a Search"));
    assert_talk(
        format!("a SEARCH{}\r\nb NOOP\r\n", one.repeat(11)),
        &["a BAD [TOOBIG] Literals over the limit", "b Noop"],
    );
}

#[test]
fn line_limits_are_exact() {
    let line = |length: usize| format!("a LOGIN x {}\r\nb NOOP\r\n", "y".repeat(length - 10));
    for length in [IMAP_LINE_BYTES_MAX - 1, IMAP_LINE_BYTES_MAX] {
        for piece in [1000, usize::MAX] {
            assert!(talk_with(reader(), line(length).as_bytes(), piece)[0].starts_with("a Login"));
        }
    }
    for length in [IMAP_LINE_BYTES_MAX + 1, IMAP_LINE_BYTES_MAX + 2, 200_000] {
        for piece in [1, 1000, usize::MAX] {
            let told = talk_with(reader(), line(length).as_bytes(), piece);
            assert_eq!(
                told,
                ["a BAD [TOOBIG] Command line over the limit", "b Noop"],
                "{length} {piece}"
            );
        }
    }
    // Without an end it is not read for ever.
    assert_talk("x".repeat(3 << 20), &["* BYE [TOOBIG] Command line over the limit"]);
    // Its literals are skipped with it.
    let text = format!(
        "a LOGIN x {} {{5+}}\r\nc NOO P\r\nb NOOP\r\n",
        "y".repeat(IMAP_LINE_BYTES_MAX)
    );
    assert_talk(text, &["a BAD [TOOBIG] Command line over the limit", "b Noop"]);
}

#[test]
fn before_login_little_is_held() {
    let login = |length: usize| format!("a LOGIN x {{{length}+}}\r\n{}\r\n", "y".repeat(length));
    let header = "a LOGIN x {65000+}\r\n".len();
    for length in [IMAP_PREAUTH_BYTES_MAX - header - 1, IMAP_PREAUTH_BYTES_MAX - header] {
        assert!(talk_with(CommandReader::default(), login(length).as_bytes(), 1000)[0].starts_with("a Login"));
    }
    let refused = "a BAD [TOOBIG] Literals over the limit";
    assert_talk_before_login(login(IMAP_PREAUTH_BYTES_MAX - header + 1), &[refused]);
    assert_talk_before_login("a LOGIN x {65537}\r\nb NOOP\r\n", &[refused, "b Noop"]);
    assert_talk_before_login(
        "a LOGIN x {65537+}\r\nb NOOP\r\n",
        &["* BYE [ALERT] Literal over the limit"],
    );
    let line = "y".repeat(30_000);
    let text = format!("a LOGIN {{40000+}}\r\n{line}{}{line}\r\nb NOOP\r\n", &line[..10_000]);
    assert_talk_before_login(text, &["a BAD [TOOBIG] Command line over the limit", "b Noop"]);
    assert_talk_before_login("a APPEND x {5}\r\nb NOOP\r\n", &["a BAD Log in first", "b Noop"]);
    assert_talk_before_login(
        "a APPEND x {5+}\r\nhello\r\nb NOOP\r\n",
        &["a BAD Log in first", "b Noop"],
    );
}

#[test]
fn an_appended_message_is_streamed() {
    let text = "a APPEND x (\\Seen) {5}\r\nhello\r\nb NOOP\r\n";
    assert_talk(text, &["a APPEND 5 +", "data hello", "end", "b Noop"]);
    assert_talk("a APPEND {1+}\r\nx {0+}\r\n\r\n", &["a APPEND 0 ", "end"]);
    let mut reader = reader();
    let mut input: &[u8] = b"a APPEND x {50000000}\r\n";
    assert!(matches!(reader.poll(&mut input), Some(Event::AppendStart(_))));
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..40 {
        let mut input = chunk.as_slice();
        assert!(matches!(reader.poll(&mut input), Some(Event::AppendData(data)) if data.as_ptr() == chunk.as_ptr()));
    }
    assert!(reader.buffered_bytes() < 2048 && !reader.is_between_commands());
}

#[test]
fn a_broken_append_is_refused_and_read_past() {
    let tail = "a BAD Unexpected text after the message";
    assert_talk(
        "a APPEND x {1+}\r\nh y\r\nb NOOP\r\n",
        &["a APPEND 1 ", "data h", tail, "b Noop"],
    );
    assert_talk(
        "a APPEND x {1+}\r\nh\rb NOOP\r\nb NOOP\r\n",
        &["a APPEND 1 ", "data h", tail, "b Noop"],
    );
    // RFC 3502 is not offered.
    assert_talk(
        "a APPEND x {1+}\r\nh {3+}\r\n\r\nc\r\nb NOOP\r\n",
        &["a APPEND 1 ", "data h", tail, "b Noop"],
    );
    assert_talk(
        "a APPEND x {1}\r\nh {3}\r\nb NOOP\r\n",
        &["a APPEND 1 +", "data h", tail, "b Noop"],
    );
    assert_talk(
        "a APPEND x (\\Foo) {3}\r\nb NOOP\r\n",
        &["a BAD Unknown system flag", "b Noop"],
    );
    assert_talk(
        "a APPEND x (\\Foo) {3+}\r\nfoo\r\nb NOOP\r\n",
        &["a BAD Unknown system flag", "b Noop"],
    );
    assert_talk(
        "a APPEND ../x {3}\r\nb NOOP\r\n",
        &[
            "a NO [CANNOT] A level of a mailbox name must not be \".\" or \"..\"",
            "b Noop",
        ],
    );
}

#[test]
fn imap_literal_nul() {
    let unknown = "a NO [UNKNOWN-CTE] NUL in a message without BINARY";
    assert_talk(
        "a APPEND x {3+}\r\n1\x002\r\nb NOOP\r\n",
        &["a APPEND 3 ", "data 1\\x002", unknown, "b Noop"],
    );
    assert_talk(
        "a SELECT {3+}\r\n1\x002\r\nb NOOP\r\n",
        &["a BAD NUL in a literal", "b Noop"],
    );
    assert_talk("a APPEND x ~{3}\r\n", &["a NO [UNKNOWN-CTE] literal8 is not offered"]);
}

#[test]
fn imap_append_too_big() {
    let over = "a NO [TOOBIG] Message over the limit";
    assert_talk("a APPEND x {60000000}\r\nb NOOP\r\n", &[over, "b Noop"]);
    assert_talk(
        "a APPEND x {60000000+}\r\nb NOOP\r\n",
        &["* BYE [TOOBIG] Message over the limit"],
    );
    for length in [MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX] {
        assert_talk(
            format!("a APPEND x {{{length}}}\r\n"),
            &[&format!("a APPEND {length} +")],
        );
    }
    assert_talk(format!("a APPEND x {{{}}}\r\n", MESSAGE_BYTES_MAX + 1), &[over]);
}

#[test]
fn imap_literal_cut() {
    // What was announced never ends early: no end is told for a message that was cut off.
    assert_talk("a APPEND x {10}\r\nhello", &["a APPEND 10 +", "data hello"]);
}

#[test]
fn the_server_may_refuse_an_append_at_any_time() {
    let refusal = |tag: &Tag| Refusal {
        tag: Some(tag.clone()),
        status: Status::No,
        code: Some(Code::TryCreate),
        text: "x",
    };
    for (header, data_first, octets) in [
        ("{5}", false, "b NOOP\r\n"),
        ("{5+}", false, "hello\r\nb NOOP\r\n"),
        ("{5}", true, "hello\r\nb NOOP\r\n"),
    ] {
        let mut reader = reader();
        let text = format!("a APPEND x {header}\r\n{octets}");
        let mut input = text.as_bytes();
        let Some(Event::AppendStart(append)) = reader.poll(&mut input) else {
            panic!()
        };
        if data_first {
            reader.accept_append();
        }
        reader.refuse_append(refusal(&append.tag));
        assert_eq!(
            reader.poll(&mut input),
            Some(Event::Refused(refusal(&append.tag))),
            "{header}"
        );
        assert!(matches!(
            reader.poll(&mut input),
            Some(Event::Command(Command {
                body: CommandBody::Noop,
                ..
            }))
        ));
    }
    // In the middle of the data.
    let mut reader = reader();
    let mut input: &[u8] = b"a APPEND x {5}\r\nhe";
    let Some(Event::AppendStart(append)) = reader.poll(&mut input) else {
        panic!()
    };
    assert_eq!(reader.poll(&mut input), Some(Event::AppendData(b"he")));
    reader.refuse_append(refusal(&append.tag));
    let mut input: &[u8] = b"llo\r\n";
    assert_eq!(reader.poll(&mut input), Some(Event::Refused(refusal(&append.tag))));
}

#[test]
fn imap_tag_star() {
    for line in ["* NOOP", "+ NOOP", "( NOOP", " NOOP", "", "NOOP"] {
        let told = talk_with(reader(), format!("{line}\r\nb NOOP\r\n").as_bytes(), usize::MAX);
        assert!(told.len() == 2 && told[1] == "b Noop", "{told:?}");
        assert!(line == "NOOP" || told[0].starts_with("* BAD"), "{told:?}");
    }
}

#[test]
fn imap_tag_10k() {
    assert_talk(format!("{} NOOP\r\n", "t".repeat(10_000)), &["* BAD Invalid tag"]);
}

#[test]
fn imap_http_first() {
    assert_talk_before_login("GET / HTTP/1.1\r\nb LOGIN x y\r\n", &["* BYE This is an IMAP server"]);
    assert_talk_before_login("POST /x HTTP/2\r\n", &["* BYE This is an IMAP server"]);
    assert_talk_before_login("GET NOOP\r\n", &["GET Noop"]);
    assert_talk_before_login("\x16\x03\x01\x02\x00", &["* BYE TLS on a port without it"]);
}

#[test]
fn a_line_without_cr_is_refused() {
    assert_talk("a NOOP\nb NOOP\r\n", &["a BAD Lines end with CRLF", "b Noop"]);
    let told = talk_with(reader(), b"a NO\rOP\r\n", 1);
    assert!(told[0].starts_with("a BAD"));
}

#[test]
fn imap_idle_other() {
    let idle = "a Idle";
    assert_talk("a IDLE\r\ndone\r\nb NOOP\r\n", &[idle, "done", "b Noop"]);
    assert_talk(
        "a IDLE\r\nb NOOP\r\nc NOOP\r\n",
        &[idle, "a BAD Expected DONE", "c Noop"],
    );
    assert_talk(
        "a IDLE\r\nDONE\nc NOOP\r\n",
        &[idle, "a BAD Lines end with CRLF", "c Noop"],
    );
    assert_talk(
        "a IDLE\r\nx {5+}\r\nc NOOP\r\n",
        &[idle, "a BAD Expected DONE", "c Noop"],
    );
}

#[test]
fn imap_auth_bad_base64() {
    let auth = "a Authenticate { mechanism: \"PLAIN\", initial: None }";
    let talk = |line: &str| format!("a AUTHENTICATE PLAIN\r\n{line}\r\nb NOOP\r\n");
    assert_talk_before_login(talk("AGEAYg=="), &[auth, "sasl \\x00a\\x00b", "b Noop"]);
    assert_talk_before_login(talk(""), &[auth, "sasl ", "b Noop"]);
    assert_talk_before_login(talk("===="), &[auth, "a BAD Invalid base64", "b Noop"]);
    assert_talk_before_login(talk("*"), &[auth, "a BAD AUTHENTICATE cancelled", "b Noop"]);
    assert_talk_before_login(talk("{5+}"), &[auth, "a BAD Invalid base64", "b Noop"]);
    assert_talk_before_login(
        talk(&"A".repeat(1 << 20)),
        &[auth, "* BYE [TOOBIG] Command line over the limit"],
    );
    // 16 KiB are 21,846 octets of base64, with one for padding.
    let told = |line: String| talk_with(CommandReader::default(), talk(&line).as_bytes(), usize::MAX)[1].clone();
    assert!(told(format!("{}AA==", "A".repeat(21_844))).starts_with("sasl"));
    assert!(told("A".repeat(21_848)).starts_with("a BAD"));
    assert!(told("A".repeat(30_000)).starts_with("a BAD [TOOBIG]"));
    assert_eq!(SASL_BYTES_MAX, 16 * 1024);
}

#[test]
fn nothing_is_read_after_a_fatal_error() {
    let mut reader = CommandReader::default();
    let mut input: &[u8] = b"GET / HTTP/1.1\r\na NOOP\r\n";
    assert!(matches!(reader.poll(&mut input), Some(Event::Fatal(_))));
    assert_eq!(reader.poll(&mut input), None);
    assert!(input.is_empty());
}

#[test]
fn an_idle_connection_keeps_no_buffer() {
    let mut reader = reader();
    let text = format!("a LOGIN x {}\r\n", "y".repeat(50_000));
    let mut input = text.as_bytes();
    assert!(reader.poll(&mut input).is_some());
    assert!(reader.buffered_bytes() <= COMMAND_BYTES_KEPT);
}
