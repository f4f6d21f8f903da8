//! FETCH (RFC 3501 6.4.5).
//!
//! Flags and UIDs come from the session's view, sizes and dates from the rows, envelopes and structures from the index;
//! only body sections open a message's bytes. A body is written in pieces of a frame behind its announced length. If its
//! bytes cannot be had the command fails; once a part of a literal was sent only the connection's end can say so.

mod structure;

use core_types::limits::{HEADER_BLOCK_BYTES_MAX, IMAP_FETCH_FAILURES_MAX, OUTPUT_BUFFER_BYTES};
use core_types::{Flags, MessageGuid, Uid};
use imap_proto::command::{FetchItem, Section, SectionText};
use imap_proto::{Code, FetchEncoder, SequenceSet};
use mailstore::{AccountMail, MessageBytes, StoreError};
use mime::Structure;
use state::command::FlagChange;
use state::rows::MessageRow;

use crate::client::Client;
use crate::errors::{Answer, End, Failure, store_answer};
use crate::selected::{Expected, Mailbox};
use crate::session::Session;

/// What the items need beyond the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    row: bool,
    structure: bool,
    bytes: bool,
}

/// One message as the view shows it.
struct Shown {
    number: u32,
    uid: Uid,
    guid: MessageGuid,
    flags: Flags,
    recent: bool,
}

impl Session {
    pub(crate) async fn fetch(&mut self, uid: bool, set: &SequenceSet, items: &[FetchItem]) -> Result<Answer, Failure> {
        let (client, mail, mailbox) = self.selected()?;
        let ranges = mailbox.numbers(set, uid)?;
        let needs = Needs::of(items);
        let mut progress = Progress::default();
        for range in ranges {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start.saturating_add(PAGE));
                fetch_page(client, mail, mailbox, start..end, items, needs, &mut progress).await?;
                start = end;
                client.pause().await?;
            }
        }
        let mut text = "FETCH completed";
        if !mailbox.read_only && items.iter().any(FetchItem::sets_seen) && !progress.seen.is_empty() {
            // What was asked for is at the client: that a flag cannot be set now is no reason to say it is not.
            match set_seen(mail, mailbox, &progress.seen).await {
                Ok(()) => {}
                Err(Failure::Answer(_) | Failure::Done) => text = "FETCH completed, but \\Seen could not be set now",
                Err(Failure::End(end)) => return Err(end.into()),
            }
        }
        if let Some(failure) = progress.failure {
            return Err(failure.into());
        }
        // RFC 2180 4.1.2: whoever counts in sequence numbers does not know yet that some are gone.
        if progress.some_gone && !uid {
            return Err(Answer::no(Code::ExpungeIssued, "Some of the messages are gone").into());
        }
        Ok(Answer::ok(text))
    }
}

/// What a FETCH came to so far.
#[derive(Default)]
struct Progress {
    /// Messages whose bodies were sent and that have no `\Seen`.
    seen: Vec<MessageGuid>,
    some_gone: bool,
    /// Messages whose bytes cannot be had; the others are sent all the same.
    failure: Option<Answer>,
    failure_count: u32,
}

async fn fetch_page(
    client: &mut Client,
    mail: &AccountMail,
    mailbox: &Mailbox,
    numbers: std::ops::Range<u32>,
    items: &[FetchItem],
    needs: Needs,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let rows = if needs.row {
        read_rows(mail, mailbox, &numbers).await?
    } else {
        Vec::new()
    };
    for number in numbers {
        let Some(message) = mailbox.view.by_sequence_number(number) else {
            continue;
        };
        let shown = Shown {
            number,
            uid: message.uid,
            guid: message.guid,
            flags: message.flags(),
            recent: message.recent,
        };
        let row = find_row(&rows, shown.uid, shown.guid);
        if needs.row && row.is_none() {
            progress.some_gone = true;
            continue;
        }
        let fetched = Box::pin(fetch_message(client, mail, &shown, row, items, needs)).await;
        match fetched {
            Ok(()) if shown.flags.has(Flags::SEEN) => {}
            Ok(()) => progress.seen.push(shown.guid),
            Err(Failure::Answer(answer)) if answer.code == Some(Code::Unavailable) => {
                progress.failure_count += 1;
                progress.failure = Some(answer);
                if progress.failure_count >= IMAP_FETCH_FAILURES_MAX {
                    return Ok(());
                }
            }
            Err(failure) => return Err(failure),
        }
        if needs.bytes {
            client.pause().await?;
        }
    }
    Ok(())
}

/// The rows of a run of messages, which are those of the view less what is gone.
pub(crate) async fn read_rows(
    mail: &AccountMail,
    mailbox: &Mailbox,
    numbers: &std::ops::Range<u32>,
) -> Result<Vec<MessageRow>, Failure> {
    let Some(first) = mailbox.view.by_sequence_number(numbers.start) else {
        return Ok(Vec::new());
    };
    let from = first.uid;
    Ok(mail.messages(mailbox.guid, from, numbers.len()).await?)
}

/// A message's row; `None` when the message is gone.
pub(crate) fn find_row(rows: &[MessageRow], uid: Uid, guid: MessageGuid) -> Option<&MessageRow> {
    let at = rows.binary_search_by_key(&uid, |row| row.uid).ok()?;
    rows.get(at).filter(|row| row.guid == guid)
}

async fn set_seen(mail: &AccountMail, mailbox: &mut Mailbox, messages: &[MessageGuid]) -> Result<(), Failure> {
    let seen = Flags::system(Flags::SEEN);
    mail.store_flags(mailbox.guid, messages, FlagChange::Add, &seen).await?;
    mailbox.pull(mail, &Expected::new()).await
}

/// Writes one FETCH response.
async fn fetch_message(
    client: &mut Client,
    mail: &AccountMail,
    shown: &Shown,
    row: Option<&MessageRow>,
    items: &[FetchItem],
    needs: Needs,
) -> Result<(), Failure> {
    let structure = match row.filter(|_| needs.structure) {
        Some(row) => Some(mail.structure(row).await?),
        None => None,
    };
    let bytes = match row.filter(|_| needs.bytes) {
        Some(row) => Some(mail.open(row).await?),
        None => None,
    };
    let mut response = Response {
        client,
        out: Vec::new(),
        sent: false,
        empty: true,
    };
    FetchEncoder::begin(&mut response.out, shown.number).suspend();
    for item in items {
        let written = response
            .write_item(item, shown, row, structure.as_ref(), bytes.as_ref())
            .await;
        match written {
            Err(Failure::Answer(_)) if response.sent => {
                return Err(End::Abort("the rest of a message cannot be had").into());
            }
            written => written?,
        }
        response.send_if_large().await?;
    }
    let Response { client, mut out, .. } = response;
    FetchEncoder::resume(&mut out).finish();
    Ok(client.send(&out).await?)
}

/// A FETCH response under way.
struct Response<'a> {
    client: &'a mut Client,
    out: Vec<u8>,
    /// Whether a part of it was sent.
    sent: bool,
    /// Whether there is no item yet.
    empty: bool,
}

impl Response<'_> {
    fn encoder(&mut self) -> FetchEncoder<'_> {
        if std::mem::take(&mut self.empty) {
            FetchEncoder::resume_empty(&mut self.out)
        } else {
            FetchEncoder::resume(&mut self.out)
        }
    }

    /// Items do not gather: each may be as large as a header.
    async fn send_if_large(&mut self) -> Result<(), End> {
        if self.out.len() <= OUTPUT_BUFFER_BYTES {
            return Ok(());
        }
        self.client.send(&self.out).await?;
        self.out = Vec::new();
        self.sent = true;
        self.client.pause().await
    }

    async fn write_item(
        &mut self,
        item: &FetchItem,
        shown: &Shown,
        row: Option<&MessageRow>,
        structure: Option<&Structure>,
        bytes: Option<&MessageBytes>,
    ) -> Result<(), Failure> {
        match (item, row, structure) {
            (FetchItem::Flags, ..) => self.encoder().flags(&shown.flags, shown.recent).suspend(),
            (FetchItem::Uid, ..) => self.encoder().uid(shown.uid).suspend(),
            (FetchItem::InternalDate, Some(row), _) => {
                let seconds = i64::try_from(row.internal_date.0 / 1000).unwrap_or(i64::MAX);
                self.encoder().internal_date(seconds).suspend();
            }
            (FetchItem::Rfc822Size, Some(row), _) => self.encoder().rfc822_size(row.size).suspend(),
            (FetchItem::Envelope, _, Some(tree)) => {
                let envelope = tree.envelope().map(structure::envelope).unwrap_or_default();
                self.encoder().envelope(&envelope).suspend();
            }
            (FetchItem::Body, _, Some(tree)) => {
                let body = structure::body_structure(tree);
                self.encoder().body(&body).suspend();
            }
            (FetchItem::BodyStructure, _, Some(tree)) => {
                let body = structure::body_structure(tree);
                self.encoder().body_structure(&body).suspend();
            }
            _ => {
                let Some(bytes) = bytes else { return Ok(()) };
                self.write_body(item, structure, bytes).await?;
            }
        }
        Ok(())
    }

    async fn write_body(
        &mut self,
        item: &FetchItem,
        structure: Option<&Structure>,
        bytes: &MessageBytes,
    ) -> Result<(), Failure> {
        let (section, partial) = section_of(item);
        let Some(mut range) = locate(&section, structure, bytes.size()) else {
            self.encoder().body_nil(item).suspend();
            return Ok(());
        };
        if let SectionText::HeaderFields { not, names } = &section.text {
            range.end = range.end.min(range.start.saturating_add(HEADER_BLOCK_BYTES_MAX as u64));
            let header = bytes.read_all(range).await?;
            let fields = mime::header_fields(&header, names, *not);
            let piece = match partial {
                None => fields.as_slice(),
                Some((offset, count)) => {
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(fields.len());
                    let length = usize::try_from(count).unwrap_or(usize::MAX).min(fields.len() - start);
                    fields.get(start..start + length).unwrap_or(&[])
                }
            };
            self.encoder().body_bytes(item, piece).suspend();
            return Ok(());
        }
        if let Some((offset, count)) = partial {
            let start = range.start.saturating_add(offset).min(range.end);
            range = start..range.end.min(start.saturating_add(count));
        }
        self.stream(item, range, bytes).await
    }

    /// Octets as they are stored, a frame at a time.
    async fn stream(
        &mut self,
        item: &FetchItem,
        range: std::ops::Range<u64>,
        bytes: &MessageBytes,
    ) -> Result<(), Failure> {
        let mut start = range.start;
        // Read before its length is announced, so that what cannot be had can still be refused.
        let mut piece = if range.is_empty() {
            None
        } else {
            Some(bytes.read(range.clone()).await?)
        };
        self.encoder().body_literal(item, range.end - range.start);
        while let Some(octets) = piece.take() {
            if octets.is_empty() {
                return Err(store_answer(&StoreError::Internal(
                    "a message is shorter than its index says".to_owned(),
                ))
                .into());
            }
            self.client.send(&self.out).await?;
            self.out = Vec::new();
            self.sent = true;
            self.client.send(&octets).await?;
            start += octets.len() as u64;
            if start < range.end {
                piece = Some(bytes.read(start..range.end).await?);
            }
        }
        Ok(())
    }
}

impl Needs {
    fn of(items: &[FetchItem]) -> Self {
        let mut needs = Self::default();
        for item in items {
            match item {
                FetchItem::Flags | FetchItem::Uid => {}
                FetchItem::InternalDate | FetchItem::Rfc822Size => needs.row = true,
                FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure => {
                    needs.row = true;
                    needs.structure = true;
                }
                FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text | FetchItem::BodySection { .. } => {
                    needs.row = true;
                    needs.bytes = true;
                    needs.structure |= section_of(item).0 != Section::default();
                }
            }
        }
        needs
    }
}

/// The section that an item names, and which octets of it: offset and count.
fn section_of(item: &FetchItem) -> (Section, Option<(u64, u64)>) {
    let whole = |text| Section { part: Vec::new(), text };
    match item {
        FetchItem::BodySection { section, partial, .. } => {
            let partial = partial.map(|partial| (u64::from(partial.offset), u64::from(partial.count)));
            (section.clone(), partial)
        }
        FetchItem::Rfc822Header => (whole(SectionText::Header), None),
        FetchItem::Rfc822Text => (whole(SectionText::Text), None),
        _ => (Section::default(), None),
    }
}

/// Where a section lies in the message; `None` when there is no such section.
fn locate(section: &Section, structure: Option<&Structure>, size: u64) -> Option<std::ops::Range<u64>> {
    if *section == Section::default() {
        return Some(0..size);
    }
    let part = structure?.find_part(&section.part)?;
    match section.text {
        SectionText::All => Some(part.body),
        SectionText::Header | SectionText::HeaderFields { .. } => part.header,
        SectionText::Text => part.text,
        SectionText::Mime => part.mime,
    }
}

/// Messages whose rows are read at once. Cost: some 300 octets each.
pub(crate) const PAGE: u32 = 500;
