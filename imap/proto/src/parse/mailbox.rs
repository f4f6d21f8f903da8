//! Commands about mailboxes: names, LIST, LSUB, CREATE, STATUS, and APPEND up to its message.

use core_types::limits::IMAP_LIST_PATTERNS_MAX;
use core_types::mailbox::MailboxNameError;
use core_types::{Flags, Keyword, MailboxName};

use super::{Parsed, Parser, bad, no};
use crate::command::{Append, CommandBody, List, ListReturn, ListSelection, SpecialUse, StatusItem};
use crate::date::{Date, DateTime, month_of};
use crate::encode::Code;
use crate::list_pattern::ListPattern;
use crate::mailbox_name::decode_utf7;

/// RFC 3501 `append` up to its message: `line` ends with the header of a literal. `Incomplete` when that literal is the
/// mailbox's name. `size` and `sync` of the answer are the reader's to fill in.
pub(crate) fn parse_append(line: &[u8]) -> Parsed<Append> {
    let mut parser = Parser::new(line);
    let tag = parser.parse_tag()?;
    parser.space()?;
    if parser.word() != "APPEND" {
        return bad("Expected APPEND");
    }
    let mailbox = parser.space_mailbox()?;
    parser.space()?;
    let mut flags = Flags::default();
    if parser.peek() == Some(b'(') {
        flags = parser.parse_flag_list()?;
        parser.space()?;
    }
    let mut date = None;
    if parser.peek() == Some(b'"') {
        date = Some(parser.parse_date_time()?);
        parser.space()?;
    }
    match parser.peek() {
        Some(b'{') => Ok(Append {
            tag,
            mailbox,
            flags,
            date,
            size: 0,
            sync: false,
        }),
        Some(b'~') => no(Code::UnknownCte, "literal8 is not offered"),
        _ => bad("APPEND needs a message as a literal"),
    }
}

impl Parser<'_> {
    /// A space and RFC 3501 `mailbox`.
    pub(super) fn space_mailbox(&mut self) -> Parsed<MailboxName> {
        self.space()?;
        let encoded = self.astring()?;
        let Some(name) = decode_utf7(&encoded) else {
            return bad("Mailbox name is not modified UTF-7");
        };
        check_name(&name)
    }

    /// RFC 3501 6.3.3, RFC 6154 5
    pub(super) fn parse_create(&mut self) -> Parsed<CommandBody> {
        self.space()?;
        let encoded = self.astring()?;
        let Some(name) = decode_utf7(&encoded) else {
            return bad("Mailbox name is not modified UTF-7");
        };
        // RFC 3501 6.3.3: the separator at the end only announces children.
        let mailbox = check_name(name.strip_suffix(MailboxName::SEPARATOR).unwrap_or(&name))?;
        let mut special_use = Vec::new();
        if self.eat(b' ') {
            self.expect(b'(', "Expected CREATE parameters")?;
            if self.word() != "USE" {
                return bad("Unknown CREATE parameter");
            }
            self.space()?;
            self.expect(b'(', "Expected special uses")?;
            loop {
                self.expect(b'\\', "Expected a special use")?;
                let name = self.atom()?;
                let known = SpecialUse::ALL.into_iter().find(|known| {
                    known
                        .as_str()
                        .as_bytes()
                        .get(1..)
                        .is_some_and(|known| known.eq_ignore_ascii_case(name))
                });
                // RFC 6154 3: a use that the server does not support gets NO [USEATTR].
                let Some(known) = known else {
                    return no(Code::UseAttr, "Special use is not supported");
                };
                if !special_use.contains(&known) {
                    special_use.push(known);
                }
                if self.eat(b')') {
                    break;
                }
                self.space()?;
            }
            self.expect(b')', "CREATE parameters without their end")?;
        }
        Ok(CommandBody::Create { mailbox, special_use })
    }

    /// RFC 3501 6.3.9
    pub(super) fn parse_lsub(&mut self) -> Parsed<CommandBody> {
        self.space()?;
        let reference = self.astring()?;
        self.space()?;
        let pattern = self.list_mailbox()?;
        ListPattern::parse(&reference, &pattern).map_or_else(|| bad("Invalid pattern"), |p| Ok(CommandBody::Lsub(p)))
    }

    /// RFC 3501 6.3.8, RFC 5258 3
    pub(super) fn parse_list(&mut self) -> Parsed<CommandBody> {
        self.space()?;
        let mut list = List::default();
        if self.peek() == Some(b'(') {
            list.extended = true;
            list.selection = self.parse_list_selection()?;
            self.space()?;
        }
        let reference = self.astring()?;
        self.space()?;
        if self.eat(b'(') {
            list.extended = true;
            loop {
                list.patterns.push(self.parse_pattern(&reference)?);
                if list.patterns.len() > IMAP_LIST_PATTERNS_MAX {
                    return bad("Too many patterns");
                }
                if self.eat(b')') {
                    break;
                }
                self.space()?;
            }
        } else {
            list.patterns.push(self.parse_pattern(&reference)?);
        }
        if self.eat(b' ') {
            list.extended = true;
            if self.word() != "RETURN" {
                return bad("Expected RETURN");
            }
            self.space()?;
            list.returns = self.parse_list_return()?;
        }
        Ok(CommandBody::List(list))
    }

    fn parse_pattern(&mut self, reference: &[u8]) -> Parsed<ListPattern> {
        let pattern = self.list_mailbox()?;
        ListPattern::parse(reference, &pattern).map_or_else(|| bad("Invalid pattern"), Ok)
    }

    fn parse_list_selection(&mut self) -> Parsed<ListSelection> {
        let mut selection = ListSelection::default();
        self.expect(b'(', "Expected selection options")?;
        let mut first = true;
        while !self.eat(b')') {
            if !first {
                self.space()?;
            }
            first = false;
            match self.word().as_str() {
                "SUBSCRIBED" => selection.subscribed = true,
                "REMOTE" => selection.remote = true,
                "RECURSIVEMATCH" => selection.recursive_match = true,
                "SPECIAL-USE" => selection.special_use = true,
                _ => return bad("Unknown selection option"),
            }
        }
        // RFC 5258 3.1: RECURSIVEMATCH must not stand alone or with REMOTE only.
        if selection.recursive_match && !selection.subscribed && !selection.special_use {
            return bad("RECURSIVEMATCH needs another selection option");
        }
        Ok(selection)
    }

    fn parse_list_return(&mut self) -> Parsed<ListReturn> {
        let mut returns = ListReturn::default();
        self.expect(b'(', "Expected return options")?;
        let mut first = true;
        while !self.eat(b')') {
            if !first {
                self.space()?;
            }
            first = false;
            match self.word().as_str() {
                "SUBSCRIBED" => returns.subscribed = true,
                "CHILDREN" => returns.children = true,
                "SPECIAL-USE" => returns.special_use = true,
                "STATUS" => {
                    self.space()?;
                    returns.status = self.parse_status_items()?;
                }
                _ => return bad("Unknown return option"),
            }
        }
        Ok(returns)
    }

    /// RFC 3501 6.3.10
    pub(super) fn parse_status(&mut self) -> Parsed<CommandBody> {
        let mailbox = self.space_mailbox()?;
        self.space()?;
        Ok(CommandBody::Status {
            mailbox,
            items: self.parse_status_items()?,
        })
    }

    fn parse_status_items(&mut self) -> Parsed<Vec<StatusItem>> {
        self.expect(b'(', "Expected status items")?;
        let mut items = Vec::new();
        loop {
            let word = self.word();
            match StatusItem::ALL.into_iter().find(|item| item.as_str() == word) {
                Some(item) if items.contains(&item) => {}
                Some(item) => items.push(item),
                None => return bad("Unknown status item"),
            }
            if self.eat(b')') {
                return Ok(items);
            }
            self.space()?;
        }
    }

    /// RFC 3501 `flag-list`, may be empty.
    pub(super) fn parse_flag_list(&mut self) -> Parsed<Flags> {
        self.expect(b'(', "Expected a flag list")?;
        let mut flags = Flags::default();
        if self.eat(b')') {
            return Ok(flags);
        }
        loop {
            self.parse_flag(&mut flags)?;
            if self.eat(b')') {
                return Ok(flags);
            }
            self.space()?;
        }
    }

    /// RFC 3501 `flag`. `\Recent` is the server's alone (2.3.2); a client that sends it with the rest means no harm.
    pub(super) fn parse_flag(&mut self, flags: &mut Flags) -> Parsed<()> {
        let system = self.eat(b'\\');
        let name = self.atom()?;
        if system {
            let bit = SYSTEM_FLAGS
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|&(_, bit)| bit);
            let Some(bit) = bit else {
                return bad("Unknown system flag");
            };
            flags.system |= bit;
            return Ok(());
        }
        let keyword = std::str::from_utf8(name).ok().and_then(Keyword::parse);
        let Some(keyword) = keyword else {
            return no(Code::Limit, "Keyword over the limit");
        };
        flags.keywords.insert(keyword);
        Ok(())
    }

    /// RFC 3501 `date-time`, with its quotes.
    fn parse_date_time(&mut self) -> Parsed<DateTime> {
        self.expect(b'"', "Expected a date")?;
        // date-day-fixed: a space and a digit, or two digits.
        self.eat(b' ');
        let date = self.parse_date_text()?;
        self.space()?;
        let hour = self.digits(2)?;
        self.expect(b':', "Invalid time")?;
        let minute = self.digits(2)?;
        self.expect(b':', "Invalid time")?;
        let second = self.digits(2)?;
        self.space()?;
        let west = match self.take_while(|byte| matches!(byte, b'+' | b'-')) {
            b"+" => false,
            b"-" => true,
            _ => return bad("Invalid zone"),
        };
        let (zone_hours, zone_minutes) = (self.digits(2)?, self.digits(2)?);
        self.expect(b'"', "Date without its end")?;
        let zone = i16::from(u8::try_from(zone_hours).unwrap_or(99)) * 60
            + i16::from(u8::try_from(zone_minutes).unwrap_or(99));
        let byte = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        let moment = DateTime::new(
            date,
            byte(hour),
            byte(minute),
            byte(second),
            if west { -zone } else { zone },
        );
        match moment {
            Some(moment) if zone_minutes < 60 => Ok(moment),
            _ => bad("Invalid time"),
        }
    }

    /// RFC 3501 `date-text`: `1-Feb-1994`.
    pub(super) fn parse_date_text(&mut self) -> Parsed<Date> {
        let day = match *self.take_while(|byte| byte.is_ascii_digit()) {
            [ones @ b'0'..=b'9'] => ones - b'0',
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => (tens - b'0') * 10 + (ones - b'0'),
            _ => return bad("Invalid date"),
        };
        self.expect(b'-', "Invalid date")?;
        let month = month_of(self.take_while(|byte| byte.is_ascii_alphabetic()));
        self.expect(b'-', "Invalid date")?;
        let year = self.digits(4)?;
        let date = month.and_then(|month| Date::new(year, month, day));
        date.map_or_else(|| bad("Invalid date"), Ok)
    }

    /// Exactly so many digits, at most 4.
    fn digits(&mut self, count: usize) -> Parsed<u16> {
        let digits = self.take(count).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let number = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok());
        number.map_or_else(|| bad("Invalid date"), Ok)
    }
}

fn check_name(name: &str) -> Parsed<MailboxName> {
    MailboxName::parse(name).or_else(|error| {
        no(
            Code::Cannot,
            match error {
                MailboxNameError::Empty => "A mailbox name must not be empty",
                MailboxNameError::TooLong => "Mailbox name too long",
                MailboxNameError::TooDeep => "Mailbox name with too many levels",
                MailboxNameError::EmptyLevel => "A level of a mailbox name must not be empty",
                MailboxNameError::DotLevel => "A level of a mailbox name must not be \".\" or \"..\"",
                MailboxNameError::BadCharacter => "Mailbox name with a character that is not allowed",
            },
        )
    })
}

const SYSTEM_FLAGS: [(&[u8], u8); 6] = [
    (b"Seen", Flags::SEEN),
    (b"Answered", Flags::ANSWERED),
    (b"Flagged", Flags::FLAGGED),
    (b"Deleted", Flags::DELETED),
    (b"Draft", Flags::DRAFT),
    (b"Recent", 0),
];
