//! What a command means, as one text for both parsers.

use core_types::{Flags, Keyword, MailboxName};
use imap_codec::imap_types::command::{Command as TheirCommand, CommandBody as Their};
use imap_codec::imap_types::core::AString;
use imap_codec::imap_types::extensions::binary::LiteralOrLiteral8;
use imap_codec::imap_types::fetch::{
    MacroOrMessageDataItemNames, MessageDataItemName as TheirItem, Part, Section as TheirSection,
};
use imap_codec::imap_types::flag::{Flag as TheirFlag, StoreResponse, StoreType};
use imap_codec::imap_types::mailbox::{ListMailbox, Mailbox};
use imap_codec::imap_types::search::SearchKey as TheirKey;
use imap_codec::imap_types::sequence::{SeqOrUid, Sequence, SequenceSet as TheirSet};
use imap_codec::imap_types::status::StatusDataItemName;
use imap_proto::command::{
    Append, CommandBody, EnvelopeField, FetchItem, List, SearchKey, Section, SectionText, StatusItem, StoreOp,
};
use imap_proto::date::Date;
use imap_proto::mailbox_name::decode_utf7;
use imap_proto::{Command, ListPattern, SequenceSet};

/// What our parser must do with a command that imap-codec took.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Take it, and understand this.
    Means(String),
    /// Refuse it on purpose.
    Refused(#[expect(dead_code, reason = "shown")] &'static str),
}

type Meaning = Result<String, &'static str>;

pub(crate) fn of_theirs(command: &TheirCommand<'_>) -> Verdict {
    match their_body(&command.body) {
        Ok(body) => Verdict::Means(format!("{} {body}", command.tag.as_ref())),
        Err(why) => Verdict::Refused(why),
    }
}

fn their_body(body: &Their<'_>) -> Meaning {
    Ok(match body {
        Their::Capability => "CAPABILITY".to_owned(),
        Their::Noop => "NOOP".to_owned(),
        Their::Logout => "LOGOUT".to_owned(),
        Their::Check => "CHECK".to_owned(),
        Their::Close => "CLOSE".to_owned(),
        Their::Expunge => "EXPUNGE".to_owned(),
        Their::Unselect => "UNSELECT".to_owned(),
        Their::Namespace => "NAMESPACE".to_owned(),
        Their::Idle => "IDLE".to_owned(),
        Their::ExpungeUid { sequence_set } => format!("UID EXPUNGE {}", their_set(sequence_set)),
        Their::Authenticate {
            mechanism,
            initial_response,
        } => {
            let mechanism = mechanism.to_string().to_ascii_uppercase();
            // RFC 4422 3.1 has fewer characters than an atom; a few more are taken, and then known as no mechanism.
            let is_name = mechanism
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
            if !is_name || mechanism.len() > 20 {
                return Err("not the name of a SASL mechanism");
            }
            let initial = initial_response.as_ref().map(|response| response.declassify().to_vec());
            format!("AUTHENTICATE {mechanism} {initial:?}")
        }
        Their::Login { username, password } => {
            format!("LOGIN {:?} {:?}", octets(username), octets(password.declassify()))
        }
        Their::Select { mailbox } => format!("SELECT {}", their_mailbox(mailbox)?),
        Their::Examine { mailbox } => format!("EXAMINE {}", their_mailbox(mailbox)?),
        Their::Create { mailbox } => format!("CREATE {}", created_mailbox(mailbox)?),
        Their::Delete { mailbox } => format!("DELETE {}", their_mailbox(mailbox)?),
        Their::Rename { from, to } => format!("RENAME {} {}", their_mailbox(from)?, their_mailbox(to)?),
        Their::Subscribe { mailbox } => format!("SUBSCRIBE {}", their_mailbox(mailbox)?),
        Their::Unsubscribe { mailbox } => format!("UNSUBSCRIBE {}", their_mailbox(mailbox)?),
        Their::List {
            reference,
            mailbox_wildcard,
        } => format!("LIST {}", their_pattern(reference, mailbox_wildcard)?),
        Their::Lsub {
            reference,
            mailbox_wildcard,
        } => format!("LSUB {}", their_pattern(reference, mailbox_wildcard)?),
        Their::Status { mailbox, item_names } => {
            // Asked twice is asked once.
            let mut items: Vec<&str> = Vec::new();
            for item in item_names.iter() {
                let item = their_status_item(item)?;
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            format!("STATUS {} {items:?}", their_mailbox(mailbox)?)
        }
        Their::Append {
            message: LiteralOrLiteral8::Literal8(_),
            ..
        } => return Err("BINARY is not offered"),
        Their::Append {
            mailbox, flags, date, ..
        } => format!(
            "APPEND {} {} {:?}",
            their_mailbox(mailbox)?,
            their_flags(flags)?,
            date.as_ref().map(|date| date.as_ref().timestamp())
        ),
        Their::Id { parameters } => {
            let pairs: Vec<(Vec<u8>, Option<Vec<u8>>)> = parameters
                .iter()
                .flatten()
                .map(|(field, value)| {
                    (
                        field.as_ref().to_vec(),
                        value.0.as_ref().map(|value| value.as_ref().to_vec()),
                    )
                })
                .collect();
            format!("ID {pairs:?}")
        }
        _ => their_message_command(body)?,
    })
}

/// Commands about messages of the selected mailbox.
fn their_message_command(body: &Their<'_>) -> Meaning {
    Ok(match body {
        Their::Search { charset, criteria, uid } => {
            let charset = charset.as_ref().map(|charset| charset.as_ref().to_ascii_uppercase());
            if charset.is_some_and(|charset| charset != "UTF-8" && charset != "US-ASCII") {
                return Err("BADCHARSET");
            }
            let keys: Result<Vec<String>, _> = criteria.as_ref().iter().map(their_key).collect();
            format!("{}SEARCH {}", prefix(*uid), keys?.join(" "))
        }
        Their::Fetch {
            sequence_set,
            macro_or_item_names,
            uid,
        } => {
            format!(
                "{}FETCH {} {}",
                prefix(*uid),
                their_set(sequence_set),
                their_items(macro_or_item_names, *uid)?
            )
        }
        Their::Store {
            sequence_set,
            kind,
            response,
            flags,
            uid,
        } => {
            let kind = match kind {
                StoreType::Replace => StoreOp::Replace,
                StoreType::Add => StoreOp::Add,
                StoreType::Remove => StoreOp::Remove,
            };
            let silent = matches!(response, StoreResponse::Silent);
            format!(
                "{}STORE {} {kind:?} {silent} {}",
                prefix(*uid),
                their_set(sequence_set),
                their_flags(flags)?
            )
        }
        Their::Copy {
            sequence_set,
            mailbox,
            uid,
        } => {
            format!(
                "{}COPY {} {}",
                prefix(*uid),
                their_set(sequence_set),
                their_mailbox(mailbox)?
            )
        }
        Their::Move {
            sequence_set,
            mailbox,
            uid,
        } => {
            format!(
                "{}MOVE {} {}",
                prefix(*uid),
                their_set(sequence_set),
                their_mailbox(mailbox)?
            )
        }
        _ => return Err("an extension that is not offered"),
    })
}

pub(crate) fn of_ours(command: &Command) -> String {
    let body = match &command.body {
        CommandBody::Capability => "CAPABILITY".to_owned(),
        CommandBody::Noop => "NOOP".to_owned(),
        CommandBody::Logout => "LOGOUT".to_owned(),
        CommandBody::StartTls => "STARTTLS".to_owned(),
        CommandBody::Check => "CHECK".to_owned(),
        CommandBody::Close => "CLOSE".to_owned(),
        CommandBody::Expunge => "EXPUNGE".to_owned(),
        CommandBody::Unselect => "UNSELECT".to_owned(),
        CommandBody::Namespace => "NAMESPACE".to_owned(),
        CommandBody::Idle => "IDLE".to_owned(),
        CommandBody::UidExpunge(set) => format!("UID EXPUNGE {}", our_set(set)),
        CommandBody::Authenticate { mechanism, initial } => {
            format!(
                "AUTHENTICATE {mechanism} {:?}",
                initial.as_ref().map(|secret| secret.0.clone())
            )
        }
        CommandBody::Login { username, password } => format!("LOGIN {username:?} {:?}", password.0),
        CommandBody::Select(mailbox) => format!("SELECT {mailbox}"),
        CommandBody::Examine(mailbox) => format!("EXAMINE {mailbox}"),
        CommandBody::Create { mailbox, special_use } => {
            assert!(special_use.is_empty());
            format!("CREATE {mailbox}")
        }
        CommandBody::Delete(mailbox) => format!("DELETE {mailbox}"),
        CommandBody::Rename { from, to } => format!("RENAME {from} {to}"),
        CommandBody::Subscribe(mailbox) => format!("SUBSCRIBE {mailbox}"),
        CommandBody::Unsubscribe(mailbox) => format!("UNSUBSCRIBE {mailbox}"),
        CommandBody::List(list) => {
            let plain = List {
                patterns: list.patterns.clone(),
                ..List::default()
            };
            assert_eq!(*list, plain, "an extension that imap-codec does not know");
            assert_eq!(list.patterns.len(), 1);
            format!("LIST {:?}", list.patterns[0])
        }
        CommandBody::Lsub(pattern) => format!("LSUB {pattern:?}"),
        CommandBody::Status { mailbox, items } => {
            let items: Vec<&str> = items.iter().map(|item| item.as_str()).collect();
            format!("STATUS {mailbox} {items:?}")
        }
        CommandBody::Search { uid, key } => format!("{}SEARCH {}", prefix(*uid), our_keys(key)),
        CommandBody::Fetch { uid, set, items } => {
            let items: Vec<String> = items.iter().map(our_item).collect();
            format!("{}FETCH {} {}", prefix(*uid), our_set(set), items_of(items, *uid))
        }
        CommandBody::Store {
            uid,
            set,
            op,
            silent,
            flags,
        } => {
            format!(
                "{}STORE {} {op:?} {silent} {}",
                prefix(*uid),
                our_set(set),
                our_flags(flags)
            )
        }
        CommandBody::Copy { uid, set, mailbox } => format!("{}COPY {} {mailbox}", prefix(*uid), our_set(set)),
        CommandBody::Move { uid, set, mailbox } => format!("{}MOVE {} {mailbox}", prefix(*uid), our_set(set)),
        CommandBody::Id(pairs) => format!("ID {pairs:?}"),
    };
    format!("{} {body}", command.tag)
}

pub(crate) fn of_append(append: &Append) -> String {
    let date = append.date.map(imap_proto::date::DateTime::unix_seconds);
    format!(
        "{} APPEND {} {} {date:?}",
        append.tag,
        append.mailbox,
        our_flags(&append.flags)
    )
}

fn prefix(uid: bool) -> &'static str {
    if uid { "UID " } else { "" }
}

fn octets(string: &AString<'_>) -> Vec<u8> {
    string.as_ref().to_vec()
}

/// A set as the numbers it holds at three sizes of mailbox, which is all that it means.
fn our_set(set: &SequenceSet) -> String {
    LARGEST
        .map(|largest| format!("{:?}", set.resolve(Some(largest))))
        .join(" ")
}

fn their_set(set: &TheirSet) -> String {
    let shown = |largest: u32| {
        let value = |end: &SeqOrUid| match end {
            SeqOrUid::Value(number) => number.get(),
            SeqOrUid::Asterisk => largest,
        };
        let mut ranges: Vec<(u32, u32)> = set
            .0
            .as_ref()
            .iter()
            .map(|sequence| match sequence {
                Sequence::Single(one) => (value(one), value(one)),
                Sequence::Range(from, to) => (value(from).min(value(to)), value(from).max(value(to))),
            })
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let merged: Vec<_> = merged.into_iter().map(|(first, last)| first..=last).collect();
        format!("{merged:?}")
    };
    LARGEST.map(shown).join(" ")
}

/// Sizes of mailboxes.
const LARGEST: [u32; 3] = [1, 17, u32::MAX - 5];

fn name_of(encoded: &[u8]) -> Meaning {
    // RFC 3501 5.1.3 leaves the encoding to the server; a name is refused as a whole when it is not canonical or not allowed.
    let decoded = decode_utf7(encoded).ok_or("not modified UTF-7")?;
    MailboxName::parse(&decoded)
        .map(|name| name.to_string())
        .map_err(|_| "not a name of ours")
}

fn their_mailbox(mailbox: &Mailbox<'_>) -> Meaning {
    match mailbox {
        Mailbox::Inbox => Ok("INBOX".to_owned()),
        Mailbox::Other(other) => name_of(other.as_ref()),
    }
}

/// RFC 3501 6.3.3: the separator at the end of a name only says that there will be names below it.
fn created_mailbox(mailbox: &Mailbox<'_>) -> Meaning {
    match mailbox {
        Mailbox::Inbox => Ok("INBOX".to_owned()),
        Mailbox::Other(other) => name_of(other.as_ref().strip_suffix(b"/").unwrap_or_else(|| other.as_ref())),
    }
}

fn their_pattern(reference: &Mailbox<'_>, pattern: &ListMailbox<'_>) -> Meaning {
    let reference = match reference {
        // As it was written is not kept, and INBOX matches in any case.
        Mailbox::Inbox => b"INBOX".as_slice(),
        Mailbox::Other(other) => other.as_ref(),
    };
    let pattern = match pattern {
        ListMailbox::Token(token) => token.as_ref(),
        ListMailbox::String(string) => string.as_ref(),
    };
    let pattern = ListPattern::parse(reference, pattern).ok_or("not modified UTF-7")?;
    Ok(format!("{pattern:?}"))
}

fn their_status_item(item: &StatusDataItemName) -> Result<&'static str, &'static str> {
    Ok(match item {
        StatusDataItemName::Messages => StatusItem::Messages,
        StatusDataItemName::Recent => StatusItem::Recent,
        StatusDataItemName::UidNext => StatusItem::UidNext,
        StatusDataItemName::UidValidity => StatusItem::UidValidity,
        StatusDataItemName::Unseen => StatusItem::Unseen,
        _ => return Err("a status item that is not offered"),
    }
    .as_str())
}

fn their_flags(flags: &[TheirFlag<'_>]) -> Meaning {
    let mut ours = Flags::default();
    for flag in flags {
        match flag {
            TheirFlag::Answered => ours.system |= Flags::ANSWERED,
            TheirFlag::Deleted => ours.system |= Flags::DELETED,
            TheirFlag::Draft => ours.system |= Flags::DRAFT,
            TheirFlag::Flagged => ours.system |= Flags::FLAGGED,
            TheirFlag::Seen => ours.system |= Flags::SEEN,
            TheirFlag::Extension(_) if flag.to_string().eq_ignore_ascii_case("\\Recent") => {}
            TheirFlag::Extension(_) => return Err("a system flag that RFC 3501 does not have"),
            TheirFlag::Keyword(keyword) => {
                ours.keywords
                    .insert(Keyword::parse(keyword.as_ref()).ok_or("not a keyword of ours")?);
            }
        }
    }
    Ok(our_flags(&ours))
}

fn our_flags(flags: &Flags) -> String {
    let keywords: Vec<&str> = flags.keywords.iter().map(Keyword::as_str).collect();
    format!("{} {keywords:?}", flags.system)
}

fn items_of(mut items: Vec<String>, uid: bool) -> String {
    // RFC 3501 6.4.8: the answer to UID FETCH holds the UID in any case.
    if uid {
        items.push("Uid".to_owned());
    }
    items.sort();
    items.dedup();
    items.join(" ")
}

fn our_item(item: &FetchItem) -> String {
    match item {
        FetchItem::BodySection { peek, section, partial } => {
            let partial = partial.map(|partial| (partial.offset, partial.count));
            format!("BODY {peek} {} {partial:?}", our_section(section))
        }
        other => format!("{other:?}"),
    }
}

fn our_section(section: &Section) -> String {
    let text = match &section.text {
        SectionText::All => "All".to_owned(),
        SectionText::Header => "Header".to_owned(),
        SectionText::Text => "Text".to_owned(),
        SectionText::Mime => "Mime".to_owned(),
        SectionText::HeaderFields { not, names } => format!("Fields {not} {names:?}"),
    };
    format!("{:?} {text}", section.part)
}

fn their_items(items: &MacroOrMessageDataItemNames<'_>, uid: bool) -> Meaning {
    let items = match items {
        MacroOrMessageDataItemNames::Macro(other) => other.expand(),
        MacroOrMessageDataItemNames::MessageDataItemNames(items) => items.clone(),
    };
    let items: Result<Vec<String>, _> = items.iter().map(their_item).collect();
    Ok(items_of(items?, uid))
}

fn their_item(item: &TheirItem<'_>) -> Meaning {
    Ok(match item {
        TheirItem::BodyExt { section, partial, peek } => {
            let section = section
                .as_ref()
                .map_or_else(|| Ok("[] All".to_owned()), their_section)?;
            let partial = partial.map(|(offset, count)| (offset, count.get()));
            format!("BODY {peek} {section} {partial:?}")
        }
        TheirItem::Binary { .. } | TheirItem::BinarySize { .. } => return Err("BINARY is not offered"),
        other => format!("{other:?}"),
    })
}

fn their_section(section: &TheirSection<'_>) -> Meaning {
    let numbers = |part: &Part| -> Vec<u32> { part.0.as_ref().iter().map(|number| number.get()).collect() };
    let maybe = |part: &Option<Part>| part.as_ref().map(numbers).unwrap_or_default();
    let fields = |not: bool, names: &[AString<'_>]| -> Meaning {
        let names: Result<Vec<String>, _> = names
            .iter()
            .map(|name| {
                // RFC 5322 2.2: at least one printable character.
                let is_name =
                    |text: &String| !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                String::from_utf8(octets(name))
                    .ok()
                    .filter(is_name)
                    .ok_or("not a field's name")
            })
            .collect();
        Ok(format!("Fields {not} {:?}", names?))
    };
    Ok(match section {
        TheirSection::Part(part) => format!("{:?} All", numbers(part)),
        TheirSection::Header(part) => format!("{:?} Header", maybe(part)),
        TheirSection::HeaderFields(part, names) => format!("{:?} {}", maybe(part), fields(false, names.as_ref())?),
        TheirSection::HeaderFieldsNot(part, names) => format!("{:?} {}", maybe(part), fields(true, names.as_ref())?),
        TheirSection::Text(part) => format!("{:?} Text", maybe(part)),
        TheirSection::Mime(part) => format!("{:?} Mime", numbers(part)),
    })
}

/// The keys that must all hold: nested conjunctions are as good as one.
fn our_keys(key: &SearchKey) -> String {
    match key {
        SearchKey::And(keys) => keys.iter().map(our_keys).collect::<Vec<_>>().join(" "),
        other => our_key(other),
    }
}

fn our_key(key: &SearchKey) -> String {
    match key {
        SearchKey::And(_) => our_keys(key),
        SearchKey::Not(inner) => format!("NOT ({})", our_keys(inner)),
        SearchKey::Or(left, right) => format!("OR ({}) ({})", our_keys(left), our_keys(right)),
        SearchKey::Sequence(set) => format!("SET {}", our_set(set)),
        SearchKey::Uid(set) => format!("UID {}", our_set(set)),
        SearchKey::Before(date) => format!("BEFORE {}", our_date(*date)),
        SearchKey::On(date) => format!("ON {}", our_date(*date)),
        SearchKey::Since(date) => format!("SINCE {}", our_date(*date)),
        SearchKey::SentBefore(date) => format!("SENTBEFORE {}", our_date(*date)),
        SearchKey::SentOn(date) => format!("SENTON {}", our_date(*date)),
        SearchKey::SentSince(date) => format!("SENTSINCE {}", our_date(*date)),
        other => format!("{other:?}"),
    }
}

fn our_date(date: Date) -> String {
    let (year, month, day) = date.parts();
    format!("{year:04}-{month:02}-{day:02}")
}

fn text(string: &AString<'_>) -> Meaning {
    String::from_utf8(octets(string)).map_err(|_| "not UTF-8")
}

fn their_key(key: &TheirKey<'_>) -> Meaning {
    let envelope = |field: EnvelopeField, value: &AString<'_>| -> Meaning {
        Ok(our_key(&SearchKey::Envelope(field, text(value)?)))
    };
    let system = |bits: u8| our_key(&SearchKey::Flag(bits));
    let not_system = |bits: u8| our_key(&SearchKey::NotFlag(bits));
    Ok(match key {
        TheirKey::And(keys) => {
            let keys: Result<Vec<String>, _> = keys.as_ref().iter().map(their_key).collect();
            keys?.join(" ")
        }
        TheirKey::Not(inner) => format!("NOT ({})", their_key(inner)?),
        TheirKey::Or(left, right) => format!("OR ({}) ({})", their_key(left)?, their_key(right)?),
        TheirKey::SequenceSet(set) => format!("SET {}", their_set(set)),
        TheirKey::Uid(set) => format!("UID {}", their_set(set)),
        TheirKey::All => our_key(&SearchKey::All),
        TheirKey::Answered => system(Flags::ANSWERED),
        TheirKey::Deleted => system(Flags::DELETED),
        TheirKey::Draft => system(Flags::DRAFT),
        TheirKey::Flagged => system(Flags::FLAGGED),
        TheirKey::Seen => system(Flags::SEEN),
        TheirKey::Unanswered => not_system(Flags::ANSWERED),
        TheirKey::Undeleted => not_system(Flags::DELETED),
        TheirKey::Undraft => not_system(Flags::DRAFT),
        TheirKey::Unflagged => not_system(Flags::FLAGGED),
        TheirKey::Unseen => not_system(Flags::SEEN),
        TheirKey::New => our_key(&SearchKey::New),
        TheirKey::Old => our_key(&SearchKey::Old),
        TheirKey::Recent => our_key(&SearchKey::Recent),
        TheirKey::Bcc(value) => envelope(EnvelopeField::Bcc, value)?,
        TheirKey::Cc(value) => envelope(EnvelopeField::Cc, value)?,
        TheirKey::From(value) => envelope(EnvelopeField::From, value)?,
        TheirKey::Subject(value) => envelope(EnvelopeField::Subject, value)?,
        TheirKey::To(value) => envelope(EnvelopeField::To, value)?,
        TheirKey::Body(value) => our_key(&SearchKey::Body(text(value)?)),
        TheirKey::Text(value) => our_key(&SearchKey::Text(text(value)?)),
        TheirKey::Header(name, value) => our_key(&SearchKey::Header(text(name)?, text(value)?)),
        TheirKey::Keyword(word) => our_key(&SearchKey::Keyword(Keyword::parse(word.as_ref()))),
        TheirKey::Unkeyword(word) => our_key(&SearchKey::NotKeyword(Keyword::parse(word.as_ref()))),
        TheirKey::Larger(size) => our_key(&SearchKey::Larger(*size)),
        TheirKey::Smaller(size) => our_key(&SearchKey::Smaller(*size)),
        TheirKey::Before(date) => format!("BEFORE {:?}", date.as_ref()),
        TheirKey::On(date) => format!("ON {:?}", date.as_ref()),
        TheirKey::Since(date) => format!("SINCE {:?}", date.as_ref()),
        TheirKey::SentBefore(date) => format!("SENTBEFORE {:?}", date.as_ref()),
        TheirKey::SentOn(date) => format!("SENTON {:?}", date.as_ref()),
        TheirKey::SentSince(date) => format!("SENTSINCE {:?}", date.as_ref()),
    })
}
