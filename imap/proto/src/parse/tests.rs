//! The grammar, production by production; `catalogue` holds the rows of the bad-input catalogue.

mod catalogue;

use core_types::limits::{
    IMAP_FETCH_ITEMS_MAX, IMAP_LIST_PATTERNS_MAX, IMAP_SEARCH_DEPTH_MAX, IMAP_TAG_BYTES_MAX, KEYWORD_BYTES_MAX,
    MIME_DEPTH_MAX,
};
use core_types::{Flags, Keyword, MailboxName};
use proptest::prelude::*;

use super::*;
use crate::command::{
    EnvelopeField, FetchItem, ListReturn, ListSelection, Partial, SearchKey, Section, SectionText, SpecialUse,
    StatusItem, StoreOp,
};
use crate::date::Date;

fn body(text: &str) -> CommandBody {
    match parse_command(format!("a {text}").as_bytes()) {
        Ok(command) => command.body,
        Err(error) => panic!("{text}: {error:?}"),
    }
}

fn key(text: &str) -> SearchKey {
    match body(&format!("SEARCH {text}")) {
        CommandBody::Search { key, .. } => key,
        other => panic!("{other:?}"),
    }
}

fn items(text: &str) -> Vec<FetchItem> {
    match body(&format!("FETCH 1 {text}")) {
        CommandBody::Fetch { items, .. } => items,
        other => panic!("{other:?}"),
    }
}

/// The status and code of the refusal.
fn refused(text: &str) -> (Status, Option<Code>) {
    match parse_command(format!("a {text}").as_bytes()) {
        Err(ParseError::Refused { status, code, .. }) => (status, code),
        other => panic!("{text}: {other:?}"),
    }
}

#[track_caller]
fn assert_bad(text: &str) {
    assert_eq!(refused(text), (Status::Bad, None), "{text:?}");
}

fn name(text: &str) -> MailboxName {
    MailboxName::parse(text).unwrap()
}

fn flags(system: u8, keywords: &[&str]) -> Flags {
    let mut flags = Flags::system(system);
    flags
        .keywords
        .extend(keywords.iter().filter_map(|keyword| Keyword::parse(keyword)));
    flags
}

#[test]
fn commands_without_arguments() {
    for (text, expected) in [
        ("CAPABILITY", CommandBody::Capability),
        ("noop", CommandBody::Noop),
        ("Logout", CommandBody::Logout),
        ("STARTTLS", CommandBody::StartTls),
        ("CHECK", CommandBody::Check),
        ("CLOSE", CommandBody::Close),
        ("UNSELECT", CommandBody::Unselect),
        ("EXPUNGE", CommandBody::Expunge),
        ("IDLE", CommandBody::Idle),
        ("NAMESPACE", CommandBody::Namespace),
    ] {
        assert_eq!(body(text), expected);
        assert_bad(&format!("{text} "));
        assert_bad(&format!("{text} x"));
    }
    for wrong in ["", " NOOP", "XYZZY", "UID", "UID NOOP", "APPEND INBOX", "NO\u{e9}P"] {
        assert_bad(wrong);
    }
}

#[test]
fn login_and_authenticate() {
    let login = |username: &str, password: &str| CommandBody::Login {
        username: username.as_bytes().to_vec(),
        password: Secret(password.as_bytes().to_vec()),
    };
    assert_eq!(body("LOGIN joe pass]word"), login("joe", "pass]word"));
    assert_eq!(body("LOGIN \"j\\\"o\\\\e\" \"\""), login("j\"o\\e", ""));
    assert_eq!(body("LOGIN {3}\r\njoe {4+}\r\np\u{e4}s"), login("joe", "p\u{e4}s"));
    for wrong in [
        "LOGIN joe",
        "LOGIN joe ",
        "LOGIN joe (x)",
        "LOGIN joe x y",
        "LOGIN {3}\r\njo",
    ] {
        assert!(parse_command(format!("a {wrong}").as_bytes()).is_err());
    }
    let auth = |initial: Option<&[u8]>| CommandBody::Authenticate {
        mechanism: "PLAIN".to_owned(),
        initial: initial.map(|initial| Secret(initial.to_vec())),
    };
    assert_eq!(body("AUTHENTICATE plain"), auth(None));
    assert_eq!(body("AUTHENTICATE PLAIN ="), auth(Some(b"")));
    assert_eq!(body("AUTHENTICATE PLAIN AGEAYg=="), auth(Some(b"\0a\0b")));
    assert_bad("AUTHENTICATE PLAIN AGEAYg");
    assert_bad("AUTHENTICATE ");
    assert_eq!(format!("{:?}", Secret(b"hunter2".to_vec())), "Secret(..)");
}

#[test]
fn mailbox_commands() {
    assert_eq!(body("SELECT inbox"), CommandBody::Select(MailboxName::inbox()));
    assert_eq!(body("EXAMINE \"a b\""), CommandBody::Examine(name("a b")));
    assert_eq!(body("DELETE Entw&APw-rfe"), CommandBody::Delete(name("Entw\u{fc}rfe")));
    assert_eq!(body("SUBSCRIBE a"), CommandBody::Subscribe(name("a")));
    assert_eq!(body("UNSUBSCRIBE {1}\r\na"), CommandBody::Unsubscribe(name("a")));
    assert_eq!(
        body("RENAME a b/c"),
        CommandBody::Rename {
            from: name("a"),
            to: name("b/c")
        }
    );
    assert_eq!(
        body("CREATE a/"),
        CommandBody::Create {
            mailbox: name("a"),
            special_use: vec![]
        }
    );
    let special_use = vec![SpecialUse::Sent, SpecialUse::Archive];
    assert_eq!(
        body("CREATE a (USE (\\sent \\Archive))"),
        CommandBody::Create {
            mailbox: name("a"),
            special_use
        }
    );
    assert_eq!(refused("CREATE a (USE (\\Foo))"), (Status::No, Some(Code::UseAttr)));
    for wrong in [
        "SELECT",
        "SELECT ",
        "SELECT R&D",
        "SELECT a b",
        "CREATE a ()",
        "CREATE a (USE ())",
        "RENAME a",
    ] {
        assert_bad(wrong);
    }
}

#[test]
fn list_and_lsub() {
    let list = |text: &str| match body(text) {
        CommandBody::List(list) => list,
        other => panic!("{other:?}"),
    };
    let plain = list("LIST \"\" *");
    assert!(!plain.extended && plain.patterns[0].matches(&name("a/b")) && plain.patterns.len() == 1);
    assert!(list("LIST \"\" \"\"").patterns[0].is_separator_request());
    assert!(list("LIST a/ %").patterns[0].matches(&name("a/b")));
    let extended = list(
        "LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (\"a%\" b*) RETURN (CHILDREN STATUS (MESSAGES UNSEEN) SPECIAL-USE)",
    );
    assert!(extended.extended && extended.patterns.len() == 2);
    assert_eq!(
        extended.selection,
        ListSelection {
            subscribed: true,
            recursive_match: true,
            ..ListSelection::default()
        }
    );
    let status = vec![StatusItem::Messages, StatusItem::Unseen];
    assert_eq!(
        extended.returns,
        ListReturn {
            children: true,
            special_use: true,
            subscribed: false,
            status
        }
    );
    assert!(list("LIST (SPECIAL-USE) \"\" *").selection.special_use);
    assert!(list("LIST () \"\" * RETURN ()").extended);
    assert!(list("LIST (REMOTE) \"\" * RETURN (SUBSCRIBED)").returns.subscribed);
    assert!(matches!(body("LSUB \"\" \"#news.%\""), CommandBody::Lsub(_)));
    for wrong in [
        "LIST",
        "LIST \"\"",
        "LIST \"\" R&D",
        "LIST (RECURSIVEMATCH) \"\" *",
        "LIST (FOO) \"\" *",
        "LIST \"\" (a",
        "LIST \"\" ()",
        "LIST \"\" * RETURN",
        "LIST \"\" * RETURN (FOO)",
        "LIST \"\" * (CHILDREN)",
        "LSUB \"\" (a)",
        "LIST (SUBSCRIBED) \"\" * RETURN (CHILDREN",
    ] {
        assert_bad(wrong);
    }
    let patterns = |count: usize| format!("LIST \"\" ({})", vec!["a"; count].join(" "));
    assert_eq!(
        list(&patterns(IMAP_LIST_PATTERNS_MAX)).patterns.len(),
        IMAP_LIST_PATTERNS_MAX
    );
    assert_bad(&patterns(IMAP_LIST_PATTERNS_MAX + 1));
}

#[test]
fn status_items() {
    let CommandBody::Status { mailbox, items } = body("STATUS a (MESSAGES recent UIDNEXT UIDVALIDITY UNSEEN UNSEEN)")
    else {
        panic!("no STATUS")
    };
    assert_eq!((mailbox, items.as_slice()), (name("a"), StatusItem::ALL.as_slice()));
    for wrong in [
        "STATUS a",
        "STATUS a ()",
        "STATUS a MESSAGES",
        "STATUS a (FOO)",
        "STATUS a (MESSAGES",
        "STATUS a (MESSAGES )",
    ] {
        assert_bad(wrong);
    }
}

#[test]
fn fetch_items_and_macros() {
    use FetchItem::{
        Body, BodyStructure, Envelope, Flags, InternalDate, Rfc822, Rfc822Header, Rfc822Size, Rfc822Text, Uid,
    };
    assert_eq!(items("ALL"), [Flags, InternalDate, Rfc822Size, Envelope]);
    assert_eq!(items("fast"), [Flags, InternalDate, Rfc822Size]);
    assert_eq!(items("FULL"), [Flags, InternalDate, Rfc822Size, Envelope, Body]);
    assert_eq!(items("BODY"), [Body]);
    assert_eq!(
        items("(UID FLAGS INTERNALDATE ENVELOPE BODYSTRUCTURE RFC822 RFC822.HEADER RFC822.SIZE RFC822.TEXT BODY UID)"),
        [
            Uid,
            Flags,
            InternalDate,
            Envelope,
            BodyStructure,
            Rfc822,
            Rfc822Header,
            Rfc822Size,
            Rfc822Text,
            Body
        ]
    );
    assert!(matches!(body("UID FETCH 1 FLAGS"), CommandBody::Fetch { uid: true, items, .. } if items == [Uid, Flags]));
    assert!(
        matches!(body("UID FETCH 1 (FLAGS UID)"), CommandBody::Fetch { uid: true, items, .. } if items == [Flags, Uid])
    );
    for wrong in [
        "(ALL)",
        "()",
        "(FLAGS  UID)",
        "FOO",
        "BODY.PEEK",
        "(FLAGS) x",
        "MODSEQ",
        "FLAGS UID",
        "( FLAGS)",
    ] {
        assert_bad(&format!("FETCH 1 {wrong}"));
    }
}

#[test]
fn fetch_sections() {
    let section = |text: &str| match items(text).remove(0) {
        FetchItem::BodySection { peek, section, partial } => (peek, section, partial),
        other => panic!("{other:?}"),
    };
    let spec = |part: &[u32], text| Section {
        part: part.to_vec(),
        text,
    };
    let fields = |not, names: &[&str]| SectionText::HeaderFields {
        not,
        names: names.iter().map(|&n| n.to_owned()).collect(),
    };
    assert_eq!(section("BODY[]"), (false, Section::default(), None));
    assert_eq!(
        section("BODY.PEEK[]<0.100>"),
        (true, Section::default(), Some(Partial { offset: 0, count: 100 }))
    );
    assert_eq!(section("BODY[HEADER]").1, spec(&[], SectionText::Header));
    assert_eq!(section("BODY[TEXT]").1, spec(&[], SectionText::Text));
    assert_eq!(section("BODY[1]").1, spec(&[1], SectionText::All));
    assert_eq!(section("BODY[4.1.MIME]").1, spec(&[4, 1], SectionText::Mime));
    assert_eq!(section("body.peek[3.header]").1, spec(&[3], SectionText::Header));
    assert_eq!(section("BODY[2.TEXT]").1, spec(&[2], SectionText::Text));
    assert_eq!(
        section("BODY[HEADER.FIELDS (From \"To\")]").1,
        spec(&[], fields(false, &["From", "To"]))
    );
    assert_eq!(
        section("BODY[1.HEADER.FIELDS.NOT ({4}\r\nDate)]").1,
        spec(&[1], fields(true, &["Date"]))
    );
    for wrong in [
        "BODY[",
        "BODY[MIME]",
        "BODY[0]",
        "BODY[1.]",
        "BODY[1.0]",
        "BODY[FOO]",
        "BODY[1 ]",
        "BODY[]<0.0>",
        "BODY[]<1>",
        "BODY[]<0.1",
        "BODY[HEADER.FIELDS]",
        "BODY[HEADER.FIELDS ()]",
        "BODY[HEADER.FIELDS (\"\")]",
        "BODY[.TEXT]",
        "BODY[HEADER.FIELDS ({2}\r\na\n)]",
        "BODY[4294967296]",
        "BODY[]<4294967296.1>",
    ] {
        assert_bad(&format!("FETCH 1 {wrong}"));
    }
}

#[test]
fn fetch_items_are_counted() {
    let list = |count: usize| {
        let items: Vec<String> = (1..=count).map(|part| format!("BODY[{part}]")).collect();
        format!("FETCH 1 ({})", items.join(" "))
    };
    body(&list(IMAP_FETCH_ITEMS_MAX - 1));
    body(&list(IMAP_FETCH_ITEMS_MAX));
    assert_bad(&list(IMAP_FETCH_ITEMS_MAX + 1));
}

#[test]
fn store() {
    let store = |text: &str| match body(text) {
        CommandBody::Store {
            uid, op, silent, flags, ..
        } => (uid, op, silent, flags),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        store("STORE 1 FLAGS ()"),
        (false, StoreOp::Replace, false, Flags::default())
    );
    assert_eq!(
        store("STORE 1 +FLAGS (\\Seen $Junk)"),
        (false, StoreOp::Add, false, flags(Flags::SEEN, &["$junk"]))
    );
    assert_eq!(
        store("UID STORE 1 -flags.silent \\Draft a"),
        (true, StoreOp::Remove, true, flags(Flags::DRAFT, &["a"]))
    );
    let all = Flags::SEEN | Flags::ANSWERED | Flags::FLAGGED | Flags::DELETED | Flags::DRAFT;
    assert_eq!(
        store("STORE 1 FLAGS.SILENT (\\seen \\Answered \\Flagged \\Deleted \\Draft \\Recent)").3,
        flags(all, &[])
    );
    for wrong in [
        "STORE 1 FLAGS",
        "STORE 1 FLAGS (\\Foo)",
        "STORE 1 FLAGS (\\*)",
        "STORE 1 *FLAGS (a)",
        "STORE 1 FLAGS (a]b)",
        "STORE 1 FLAGS (\\)",
    ] {
        assert_bad(wrong);
    }
    body(&format!("STORE 1 FLAGS ({})", "k".repeat(KEYWORD_BYTES_MAX)));
    assert_eq!(
        refused(&format!("STORE 1 FLAGS ({})", "k".repeat(KEYWORD_BYTES_MAX + 1))),
        (Status::No, Some(Code::Limit))
    );
}

#[test]
fn copy_move_and_uid_expunge() {
    let set = SequenceSet::from_numbers([1, 2, 4]);
    let mailbox = name("a");
    assert_eq!(
        body("COPY 1:2,4 a"),
        CommandBody::Copy {
            uid: false,
            set: set.clone(),
            mailbox: mailbox.clone()
        }
    );
    assert_eq!(
        body("UID MOVE 4,2:1 a"),
        CommandBody::Move {
            uid: true,
            set: set.clone(),
            mailbox
        }
    );
    assert_eq!(body("UID EXPUNGE 1:2,4"), CommandBody::UidExpunge(set));
    assert_bad("UID EXPUNGE");
    assert_bad("COPY 1");
}

#[test]
fn sequence_sets() {
    for wrong in [
        "0",
        "1:0",
        "",
        ",1",
        "1,",
        "1::2",
        "1:2:3",
        "4294967296",
        "-1",
        "a",
        "1;2",
        "$",
    ] {
        assert_bad(&format!("UID EXPUNGE {wrong}"));
    }
    assert!(matches!(body("UID EXPUNGE 1:*,*,*:*"), CommandBody::UidExpunge(set) if set.has_star()));
}

#[test]
fn search_keys() {
    let date = Date::new(1994, 2, 1).unwrap();
    let (text, set) = (|| "x".to_owned(), SequenceSet::from_numbers([1, 2]));
    for (wire, expected) in [
        ("ALL", SearchKey::All),
        ("ANSWERED", SearchKey::Flag(Flags::ANSWERED)),
        ("deleted", SearchKey::Flag(Flags::DELETED)),
        ("DRAFT", SearchKey::Flag(Flags::DRAFT)),
        ("FLAGGED", SearchKey::Flag(Flags::FLAGGED)),
        ("SEEN", SearchKey::Flag(Flags::SEEN)),
        ("UNANSWERED", SearchKey::NotFlag(Flags::ANSWERED)),
        ("UNDELETED", SearchKey::NotFlag(Flags::DELETED)),
        ("UNDRAFT", SearchKey::NotFlag(Flags::DRAFT)),
        ("UNFLAGGED", SearchKey::NotFlag(Flags::FLAGGED)),
        ("UNSEEN", SearchKey::NotFlag(Flags::SEEN)),
        ("RECENT", SearchKey::Recent),
        ("OLD", SearchKey::Old),
        ("NEW", SearchKey::New),
        ("KEYWORD $Junk", SearchKey::Keyword(Keyword::parse("$Junk"))),
        ("UNKEYWORD a", SearchKey::NotKeyword(Keyword::parse("a"))),
        ("BEFORE 1-Feb-1994", SearchKey::Before(date)),
        ("ON \"01-feb-1994\"", SearchKey::On(date)),
        ("SINCE 1-Feb-1994", SearchKey::Since(date)),
        ("SENTBEFORE 1-Feb-1994", SearchKey::SentBefore(date)),
        ("SENTON 1-Feb-1994", SearchKey::SentOn(date)),
        ("SENTSINCE 1-Feb-1994", SearchKey::SentSince(date)),
        ("LARGER 10", SearchKey::Larger(10)),
        ("SMALLER 0", SearchKey::Smaller(0)),
        ("BCC x", SearchKey::Envelope(EnvelopeField::Bcc, text())),
        ("CC \"x\"", SearchKey::Envelope(EnvelopeField::Cc, text())),
        ("FROM {1}\r\nx", SearchKey::Envelope(EnvelopeField::From, text())),
        ("SUBJECT x", SearchKey::Envelope(EnvelopeField::Subject, text())),
        ("TO x", SearchKey::Envelope(EnvelopeField::To, text())),
        ("BODY x", SearchKey::Body(text())),
        ("TEXT x", SearchKey::Text(text())),
        (
            "HEADER X-Foo \"\"",
            SearchKey::Header("X-Foo".to_owned(), String::new()),
        ),
        ("UID 1:2", SearchKey::Uid(set.clone())),
        ("1:2", SearchKey::Sequence(set)),
        ("NOT ALL", SearchKey::Not(Box::new(SearchKey::All))),
        (
            "OR ALL OLD",
            SearchKey::Or(Box::new(SearchKey::All), Box::new(SearchKey::Old)),
        ),
        ("(ALL)", SearchKey::All),
        ("ALL OLD", SearchKey::And(vec![SearchKey::All, SearchKey::Old])),
    ] {
        assert_eq!(key(wire), expected, "{wire}");
    }
    assert!(matches!(body("UID SEARCH ALL"), CommandBody::Search { uid: true, .. }));
    for wrong in [
        "",
        "FOO",
        "()",
        "NOT",
        "OR ALL",
        "ALL  OLD",
        "ON 30-Feb-2026",
        "ON 1-Foo-2026",
        "LARGER x",
        "HEADER a",
        "RETURN (ALL) ALL",
        "( ALL)",
        "ALL (",
        "KEYWORD \\Seen",
        "ON \"1-Feb-1994",
        "ON 1-Feb-94",
        "OR (ALL OLD)",
    ] {
        assert_bad(&format!("SEARCH {wrong}"));
    }
}

#[test]
fn search_keys_nest() {
    let (all, old, new) = (SearchKey::All, SearchKey::Old, SearchKey::New);
    assert_eq!(
        key("OR NOT (ALL OLD) (NEW) NOT OR ALL NEW"),
        SearchKey::And(vec![
            SearchKey::Or(
                Box::new(SearchKey::Not(Box::new(SearchKey::And(vec![all.clone(), old])))),
                Box::new(new.clone())
            ),
            SearchKey::Not(Box::new(SearchKey::Or(Box::new(all), Box::new(new)))),
        ])
    );
}

#[test]
fn append_up_to_its_message() {
    let append = parse_append(b"a APPEND x (\\Seen $Junk \\Recent) \"17-Jul-1996 02:44:25 +0000\" {310}\r\n").unwrap();
    assert_eq!(
        (append.mailbox, append.flags),
        (name("x"), flags(Flags::SEEN, &["$Junk"]))
    );
    assert_eq!(append.date.map(crate::date::DateTime::unix_seconds), Some(837_571_465));
    assert_eq!(
        parse_append(b"a APPEND {3}\r\nfoo {5}\r\n").unwrap().mailbox,
        name("foo")
    );
    assert_eq!(parse_append(b"a APPEND {3}\r\n"), Err(ParseError::Incomplete));
    assert!(matches!(
        parse_append(b"a APPEND x ~{3}\r\n"),
        Err(ParseError::Refused {
            code: Some(Code::UnknownCte),
            ..
        })
    ));
    for wrong in [
        "APPEND x () () {5}",
        "APPEND x \"a\" {5}",
        "APPEND {5}\r\nab",
        "APPEND x (\\Foo) {5}",
    ] {
        assert!(parse_append(format!("a {wrong}").as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn extensions_that_are_not_offered_are_bad() {
    for text in [
        "STORE 1 (UNCHANGEDSINCE 18446744073709551615) FLAGS (a)",
        "FETCH 1 FLAGS (CHANGEDSINCE 1)",
        "SELECT a (CONDSTORE)",
        "ENABLE CONDSTORE",
        "COMPRESS DEFLATE",
    ] {
        assert_bad(text);
    }
}

fn search_key() -> impl Strategy<Value = (String, SearchKey)> {
    let leaf = prop_oneof![
        Just(("ALL".to_owned(), SearchKey::All)),
        Just(("UNSEEN".to_owned(), SearchKey::NotFlag(Flags::SEEN))),
        "[a-z \\PC]{0,6}".prop_map(|text| (format!("BODY {{{}}}\r\n{text}", text.len()), SearchKey::Body(text))),
        (1u32..9).prop_map(|n| (format!("UID {n}"), SearchKey::Uid(SequenceSet::from_numbers([n])))),
    ];
    leaf.prop_recursive(8, 40, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|(wire, key)| (format!("NOT {wire}"), SearchKey::Not(Box::new(key)))),
            (inner.clone(), inner.clone()).prop_map(|((wire_a, a), (wire_b, b))| {
                (format!("OR {wire_a} {wire_b}"), SearchKey::Or(Box::new(a), Box::new(b)))
            }),
            prop::collection::vec(inner, 2..4).prop_map(|keys| {
                let (wires, keys): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
                (format!("({})", wires.join(" ")), SearchKey::And(keys))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_search_program_is_read_as_it_was_written((wire, expected) in search_key()) {
        prop_assume!(!wire.contains('\0'));
        prop_assert_eq!(key(&wire), expected);
    }

    #[test]
    fn a_string_is_read_as_the_encoder_writes_it(text in prop::collection::vec(1u8.., 0..40)) {
        let mut wire = b"a LOGIN x ".to_vec();
        crate::encode::string(&mut wire, &text);
        let command = parse_command(&wire).unwrap();
        let read = matches!(command.body, CommandBody::Login { password, .. } if password.0 == text);
        prop_assert!(read);
    }

    #[test]
    fn no_input_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse_command(&bytes);
        let _ = parse_append(&bytes);
    }
}
