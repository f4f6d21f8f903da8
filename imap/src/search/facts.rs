//! What a search asks ([`Query`]) and what is known of a message ([`Facts`]): pure, three-valued. An answer of `None` means
//! that more has to be looked up.
//!
//! Strings are compared as substrings in lower case, after encoded words and charsets were decoded (RFC 3501 6.4.4).

use std::ops::Range;

use core_types::limits::IMAP_SEARCH_STRINGS_MAX;
use core_types::{Flags, Keyword};
use imap_proto::command::{EnvelopeField, SearchKey};
use imap_proto::date::Date;
use imap_proto::view::{NoSuchMessage, Shown};
use imap_proto::{Code, SessionView};
use state::rows::MessageRow;

use crate::errors::Answer;

/// A search, ready to be asked of many messages.
pub(super) struct Query {
    test: Test,
    strings: Strings,
}

/// What is looked for in a message's bytes, all in lower case.
#[derive(Default)]
struct Strings {
    /// In texts.
    needles: Vec<String>,
    /// In the header.
    fields: Vec<FieldKey>,
    /// How many there are, with those for the envelope.
    count: usize,
}

/// What is looked for in a header's fields.
struct FieldKey {
    /// The field; `None` for any, with its name.
    name: Option<String>,
    needle: String,
}

/// Why a search cannot be asked.
pub(super) enum QueryError {
    /// A sequence number denotes no message.
    NoSuchMessage,
    /// Over [`IMAP_SEARCH_STRINGS_MAX`].
    TooManyStrings,
}

/// One key. Needles are numbers of `Strings::needles`, fields of `Strings::fields`.
enum Test {
    All,
    And(Vec<Self>),
    Not(Box<Self>),
    Or(Box<Self>, Box<Self>),
    /// Ranges of sequence numbers, ascending.
    Numbers(Vec<Range<u32>>),
    System(u8),
    NotSystem(u8),
    Keyword(Option<Keyword>),
    Recent,
    Received(Days),
    Sent(Days),
    Larger(u64),
    Smaller(u64),
    Envelope(EnvelopeField, String),
    Field(usize),
    Body(usize),
}

/// Days since 1970, and on which side of them.
enum Days {
    Before(i64),
    On(i64),
    Since(i64),
}

/// What is known of a message.
pub(super) struct Facts<'a> {
    message: Shown<'a>,
    /// Size and day of arrival.
    row: Option<(u64, i64)>,
    envelope: Option<EnvelopeFacts>,
    /// For each of the query's fields whether the header has it.
    header: Option<Vec<bool>>,
    /// For each needle whether a text has it.
    texts: Option<Vec<bool>>,
}

#[derive(Default)]
struct EnvelopeFacts {
    sent_day: Option<i64>,
    subject: String,
    from: String,
    to: String,
    cc: String,
    bcc: String,
}

impl Query {
    /// # Errors
    /// [`QueryError`].
    pub(super) fn of(key: SearchKey, view: &SessionView) -> Result<Self, QueryError> {
        let mut strings = Strings::default();
        let test = compile(key, view, &mut strings)?;
        Ok(Self { test, strings })
    }

    pub(super) fn needles(&self) -> &[String] {
        &self.strings.needles
    }

    /// Begins to look through a header.
    pub(super) fn find_in_header<'a>(&'a self, header: &'a [u8]) -> HeaderFinder<'a> {
        let keys = &self.strings.fields;
        HeaderFinder {
            keys,
            found: vec![false; keys.len()],
            fields: mime::fields(header),
            current: None,
        }
    }

    pub(super) fn test(&self, facts: &Facts<'_>) -> Option<bool> {
        self.test.of(facts)
    }
}

impl Strings {
    fn count(&mut self) -> Result<(), QueryError> {
        self.count += 1;
        if self.count > IMAP_SEARCH_STRINGS_MAX {
            return Err(QueryError::TooManyStrings);
        }
        Ok(())
    }

    fn needle(&mut self, text: &str) -> Test {
        self.needles.push(text.to_lowercase());
        Test::Body(self.needles.len() - 1)
    }

    fn field(&mut self, name: Option<String>, text: &str) -> Test {
        let needle = text.to_lowercase();
        self.fields.push(FieldKey { name, needle });
        Test::Field(self.fields.len() - 1)
    }
}

impl From<NoSuchMessage> for QueryError {
    fn from(_: NoSuchMessage) -> Self {
        Self::NoSuchMessage
    }
}

impl From<QueryError> for Answer {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NoSuchMessage => Self::bad("There is no message of that number"),
            QueryError::TooManyStrings => Self::no(Code::Limit, "Too many strings in one SEARCH"),
        }
    }
}

/// Looks for a query's fields in a header, some at a time: a header may be of one field that is large, or of millions.
pub(super) struct HeaderFinder<'a> {
    keys: &'a [FieldKey],
    found: Vec<bool>,
    fields: mime::Fields<'a>,
    current: Option<CurrentField<'a>>,
}

/// A field that is looked at.
struct CurrentField<'a> {
    field: mime::Field<'a>,
    /// The next key.
    key: usize,
    /// See [`whole_field`]: made once, and only if a key looks at it.
    text: Option<(String, usize)>,
}

impl HeaderFinder<'_> {
    /// Goes on for a while; whether there is more to be done.
    pub(super) fn step(&mut self) -> bool {
        let mut work = 0_usize;
        while work < HEADER_STEP_WORK {
            let Some(current) = &mut self.current else {
                let next = self.fields.next().filter(|_| self.found.contains(&false));
                let Some(field) = next else { return false };
                work = work.saturating_add(field.raw.len()).saturating_add(HEADER_FIELD_WORK);
                let (key, text) = (0, None);
                self.current = Some(CurrentField { field, key, text });
                continue;
            };
            let (Some(key), Some(found)) = (self.keys.get(current.key), self.found.get_mut(current.key)) else {
                self.current = None;
                continue;
            };
            current.key += 1;
            let named = key.name.as_deref();
            let name = current.field.name;
            if *found || named.is_some_and(|named| !named.as_bytes().eq_ignore_ascii_case(name)) {
                work = work.saturating_add(1);
                continue;
            }
            let (line, value_at) = current.text.get_or_insert_with(|| whole_field(&current.field));
            let looked_at = if named.is_some() {
                line.get(*value_at..)
            } else {
                Some(line.as_str())
            };
            *found = looked_at.unwrap_or_default().contains(&key.needle);
            work = work.saturating_add(line.len());
        }
        true
    }

    pub(super) fn into_found(self) -> Vec<bool> {
        self.found
    }
}

/// A field as it is searched, and where its value begins in that.
fn whole_field(field: &mime::Field<'_>) -> (String, usize) {
    let mut line = String::from_utf8_lossy(field.name).to_lowercase();
    if !line.is_empty() {
        line.push_str(": ");
    }
    let value_at = line.len();
    line.push_str(&decoded(field.value));
    (line, value_at)
}

/// The depth of a key is bounded by its parser.
fn compile(key: SearchKey, view: &SessionView, strings: &mut Strings) -> Result<Test, QueryError> {
    if let SearchKey::Envelope(..) | SearchKey::Header(..) | SearchKey::Body(_) | SearchKey::Text(_) = key {
        strings.count()?;
    }
    Ok(match key {
        SearchKey::All => Test::All,
        SearchKey::And(keys) => Test::And(
            keys.into_iter()
                .map(|key| compile(key, view, strings))
                .collect::<Result<_, _>>()?,
        ),
        SearchKey::Not(key) => Test::Not(Box::new(compile(*key, view, strings)?)),
        SearchKey::Or(one, other) => Test::Or(
            Box::new(compile(*one, view, strings)?),
            Box::new(compile(*other, view, strings)?),
        ),
        // RFC 3501 6.4.4 asks what matches: of no messages, none.
        SearchKey::Sequence(_) if view.exists() == 0 => Test::Numbers(Vec::new()),
        SearchKey::Sequence(set) => Test::Numbers(view.select(&set, false)?),
        SearchKey::Uid(set) => Test::Numbers(view.select(&set, true)?),
        SearchKey::Flag(bits) => Test::System(bits),
        SearchKey::NotFlag(bits) => Test::NotSystem(bits),
        SearchKey::Keyword(keyword) => Test::Keyword(keyword),
        SearchKey::NotKeyword(keyword) => Test::Not(Box::new(Test::Keyword(keyword))),
        SearchKey::Recent => Test::Recent,
        SearchKey::Old => Test::Not(Box::new(Test::Recent)),
        SearchKey::New => Test::And(vec![Test::Recent, Test::NotSystem(Flags::SEEN)]),
        SearchKey::Before(date) => Test::Received(Days::Before(date.days_since_epoch())),
        SearchKey::On(date) => Test::Received(Days::On(date.days_since_epoch())),
        SearchKey::Since(date) => Test::Received(Days::Since(date.days_since_epoch())),
        SearchKey::SentBefore(date) => Test::Sent(Days::Before(date.days_since_epoch())),
        SearchKey::SentOn(date) => Test::Sent(Days::On(date.days_since_epoch())),
        SearchKey::SentSince(date) => Test::Sent(Days::Since(date.days_since_epoch())),
        SearchKey::Larger(size) => Test::Larger(u64::from(size)),
        SearchKey::Smaller(size) => Test::Smaller(u64::from(size)),
        SearchKey::Envelope(field, text) => Test::Envelope(field, text.to_lowercase()),
        SearchKey::Header(name, text) => strings.field(Some(name), &text),
        SearchKey::Body(text) => strings.needle(&text),
        SearchKey::Text(text) => {
            let in_header = strings.field(None, &text);
            Test::Or(Box::new(in_header), Box::new(strings.needle(&text)))
        }
    })
}

impl Test {
    fn of(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::And(tests) => all(tests.iter().map(|test| test.of(facts))),
            Self::Not(test) => test.of(facts).map(|matches| !matches),
            Self::Or(one, other) => {
                let neither = [one, other]
                    .into_iter()
                    .map(|test| test.of(facts).map(|matches| !matches));
                all(neither).map(|neither| !neither)
            }
            Self::Numbers(ranges) => {
                let number = facts.message.sequence_number;
                let at = ranges.partition_point(|range| range.end <= number);
                Some(ranges.get(at).is_some_and(|range| range.contains(&number)))
            }
            Self::System(bits) => Some(facts.message.has(*bits)),
            Self::NotSystem(bits) => Some(!facts.message.has(*bits)),
            Self::Keyword(keyword) => Some(
                keyword
                    .as_ref()
                    .is_some_and(|keyword| facts.message.has_keyword(keyword)),
            ),
            Self::Recent => Some(facts.message.recent),
            Self::Received(days) => facts.row.map(|(_, day)| days.hold(day)),
            Self::Larger(size) => facts.row.map(|(octets, _)| octets > *size),
            Self::Smaller(size) => facts.row.map(|(octets, _)| octets < *size),
            Self::Sent(days) => {
                // Without a date that makes sense, the day of arrival is as good as it gets.
                let day = match facts.envelope.as_ref()?.sent_day {
                    Some(day) => day,
                    None => facts.row?.1,
                };
                Some(days.hold(day))
            }
            Self::Envelope(field, needle) => Some(facts.envelope.as_ref()?.field(*field).contains(needle)),
            Self::Field(field) => facts.header.as_ref()?.get(*field).copied(),
            Self::Body(needle) => facts.texts.as_ref()?.get(*needle).copied(),
        }
    }
}

/// Whether all are true, if that can be said.
fn all(answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(true);
    for answer in answers {
        match answer {
            Some(false) => return Some(false),
            None => known = None,
            Some(true) => {}
        }
    }
    known
}

impl Days {
    fn hold(&self, day: i64) -> bool {
        match self {
            Self::Before(bound) => day < *bound,
            Self::On(bound) => day == *bound,
            Self::Since(bound) => day >= *bound,
        }
    }
}

impl<'a> Facts<'a> {
    pub(super) fn of(message: Shown<'a>) -> Self {
        Self {
            message,
            row: None,
            envelope: None,
            header: None,
            texts: None,
        }
    }

    pub(super) fn set_row(&mut self, row: &MessageRow) {
        self.row = Some((row.size, day_of(row.internal_date.0, 0)));
    }

    pub(super) fn set_envelope(&mut self, envelope: Option<&mime::Envelope>) {
        self.envelope = Some(envelope.map(EnvelopeFacts::of).unwrap_or_default());
    }

    pub(super) fn set_header(&mut self, found: Vec<bool>) {
        self.header = Some(found);
    }

    pub(super) fn set_texts(&mut self, found: Vec<bool>) {
        self.texts = Some(found);
    }
}

impl EnvelopeFacts {
    fn of(envelope: &mime::Envelope) -> Self {
        let date = envelope.date.as_deref().unwrap_or_default();
        let text = |addresses: &[mime::Address]| {
            addresses
                .iter()
                .map(address_text)
                .collect::<Vec<_>>()
                .join(", ")
                .to_lowercase()
        };
        Self {
            // RFC 3501 6.4.4: the day as it was written, without regard to the zone.
            sent_day: envelope.sent_at.map(|sent| day_of(sent.0, zone_minutes(date))),
            subject: envelope.subject.as_deref().map(decoded).unwrap_or_default(),
            from: text(&envelope.from),
            to: text(&envelope.to),
            cc: text(&envelope.cc),
            bcc: text(&envelope.bcc),
        }
    }

    fn field(&self, field: EnvelopeField) -> &str {
        match field {
            EnvelopeField::Bcc => &self.bcc,
            EnvelopeField::Cc => &self.cc,
            EnvelopeField::From => &self.from,
            EnvelopeField::Subject => &self.subject,
            EnvelopeField::To => &self.to,
        }
    }
}

fn decoded(value: &[u8]) -> String {
    mime::decode_header_text(value).to_lowercase()
}

fn address_text(address: &mime::Address) -> String {
    match address {
        mime::Address::Mailbox { name, mailbox, host } => {
            let (mailbox, host) = (String::from_utf8_lossy(mailbox), String::from_utf8_lossy(host));
            match name {
                Some(name) => format!("{} <{mailbox}@{host}>", mime::decode_header_text(name)),
                None => format!("{mailbox}@{host}"),
            }
        }
        mime::Address::GroupStart(name) => mime::decode_header_text(name),
        mime::Address::GroupEnd => String::new(),
    }
}

/// What is looked at of a header before others run, in octets.
const HEADER_STEP_WORK: usize = 256 * 1024;
/// What a field costs besides its octets.
const HEADER_FIELD_WORK: usize = 64;

/// The day of a moment in a zone, in days since 1970.
fn day_of(millis: u64, zone_minutes: i64) -> i64 {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX / 2);
    Date::of_unix_seconds(seconds.saturating_add(zone_minutes * 60)).days_since_epoch()
}

/// The zone that a Date field ends with: `+HHMM`, before a comment perhaps. Names of zones count as UTC.
fn zone_minutes(date: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(date);
    let Some(zone) = text
        .split_ascii_whitespace()
        .rfind(|word| word.starts_with(['+', '-']) && word.len() == 5)
    else {
        return 0;
    };
    let digits = |range| zone.get(range).and_then(|digits: &str| digits.parse::<i64>().ok());
    match (digits(1..3), digits(3..5)) {
        (Some(hours), Some(minutes)) if zone.starts_with('-') => -(hours * 60 + minutes),
        (Some(hours), Some(minutes)) => hours * 60 + minutes,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use core_types::{MessageGuid, ModSeq, Uid};
    use imap_proto::view::Message;

    use super::*;

    fn view() -> SessionView {
        let message = |uid: u8, system| Message {
            uid: Uid(u32::from(uid)),
            guid: MessageGuid([uid; 16]),
            flags: Flags::system(system),
            modseq: ModSeq(1),
        };
        SessionView::new([message(3, Flags::SEEN), message(7, 0)], Uid(7)).unwrap()
    }

    fn ask(key: SearchKey, number: u32, prepare: impl FnOnce(&mut Facts<'_>)) -> Option<bool> {
        let view = view();
        let query = Query::of(key, &view).ok().unwrap();
        let mut facts = Facts::of(view.by_sequence_number(number).unwrap());
        prepare(&mut facts);
        query.test(&facts)
    }

    #[test]
    fn what_the_view_knows_needs_no_row() {
        assert_eq!(ask(SearchKey::Flag(Flags::SEEN), 1, |_| ()), Some(true));
        assert_eq!(ask(SearchKey::New, 2, |_| ()), Some(true));
        assert_eq!(ask(SearchKey::Old, 2, |_| ()), Some(false));
        assert_eq!(ask(SearchKey::Larger(1), 1, |_| ()), None);
        let decided = SearchKey::And(vec![SearchKey::Larger(1), SearchKey::NotFlag(Flags::SEEN)]);
        assert_eq!(ask(decided, 1, |_| ()), Some(false));
        let decided = SearchKey::Or(Box::new(SearchKey::Larger(1)), Box::new(SearchKey::All));
        assert_eq!(ask(decided, 1, |_| ()), Some(true));
    }

    #[test]
    fn header_fields_are_found_decoded_and_in_any_case() {
        let header = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Empty:\r\n\r\n";
        let ask = |name: &str, text: &str| ask_header(SearchKey::Header(name.to_owned(), text.to_owned()), header).0;
        let text = |text: &str| ask_header(SearchKey::Text(text.to_owned()), header).0;
        assert_eq!(text("subject: GRÜ"), Some(true));
        assert_eq!(text("x-none"), None, "the texts may have it");
        assert_eq!(ask("SUBJECT", "GRÜ"), Some(true));
        assert_eq!(ask("X-Empty", ""), Some(true));
        assert_eq!(ask("X-None", ""), Some(false));
    }

    fn ask_header(key: SearchKey, header: &[u8]) -> (Option<bool>, usize) {
        let view = view();
        let query = Query::of(key, &view).ok().unwrap();
        let mut finder = query.find_in_header(header);
        let mut steps = 1;
        while finder.step() {
            steps += 1;
        }
        let found = finder.into_found();
        let mut facts = Facts::of(view.by_sequence_number(1).unwrap());
        facts.set_header(found);
        (query.test(&facts), steps)
    }

    #[test]
    fn a_large_header_is_searched_in_steps() {
        let header = [b"a:\n".repeat(100_000).as_slice(), b"Last: needle\n\n"].concat();
        let (found, steps) = ask_header(SearchKey::Header("last".to_owned(), "Needle".to_owned()), &header);
        assert_eq!(found, Some(true));
        assert!(steps > 10, "{steps}");
    }

    #[test]
    fn a_search_looks_for_few_strings() {
        let keys = |count: usize| {
            let one = |at| SearchKey::Header("x".to_owned(), format!("{at}"));
            SearchKey::And((0..count).map(one).collect())
        };
        assert!(Query::of(keys(IMAP_SEARCH_STRINGS_MAX), &view()).is_ok());
        let refused = Query::of(keys(IMAP_SEARCH_STRINGS_MAX + 1), &view());
        assert!(matches!(refused, Err(QueryError::TooManyStrings)));
    }

    #[test]
    fn the_day_that_was_sent_is_the_writers() {
        assert_eq!(zone_minutes(b"Tue, 1 Jul 2025 23:30:00 -0700 (PDT)"), -420);
        assert_eq!(zone_minutes(b"Tue, 1 Jul 2025 23:30:00 +0530"), 330);
        assert_eq!(zone_minutes(b"Tue, 1 Jul 2025 23:30:00 GMT"), 0);
        let envelope = mime::Envelope {
            date: Some(b"Thu, 1 Jan 1970 23:30:00 -0100".to_vec()),
            sent_at: Some(core_types::UnixMillis(24 * 3_600_000 + 1_800_000)),
            ..mime::Envelope::default()
        };
        let on = |day| SearchKey::SentOn(Date::new(1970, 1, day).unwrap());
        assert_eq!(ask(on(1), 1, |facts| facts.set_envelope(Some(&envelope))), Some(true));
        assert_eq!(ask(on(2), 1, |facts| facts.set_envelope(Some(&envelope))), Some(false));
    }
}
