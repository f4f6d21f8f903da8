//! SEARCH (RFC 3501 6.4.4).
//!
//! A message is tested with what is at hand, and more is looked up only while its fate is open: the view, its row, its
//! structure, its header, its text. Texts are read in windows, so memory is bounded whatever the message's size, and
//! between messages others run and a client that is gone ends the search.

mod facts;
mod text;

use core_types::limits::HEADER_BLOCK_BYTES_MAX;
use imap_proto::command::SearchKey;
use mailstore::AccountMail;
use mime::Structure;
use state::rows::MessageRow;

use crate::client::Client;
use crate::errors::{Answer, Failure};
use crate::fetch::{PAGE, find_row, read_rows};
use crate::selected::Mailbox;
use crate::session::Session;
use facts::{Facts, Query};

impl Session {
    pub(crate) async fn search(&mut self, uid: bool, key: SearchKey) -> Result<Answer, Failure> {
        let (client, mail, mailbox) = self.selected()?;
        let query = Query::of(key, &mailbox.view).map_err(Answer::from)?;
        let mut found: Vec<u32> = Vec::new();
        let exists = mailbox.view.exists();
        let mut start = 1;
        while start <= exists {
            let end = exists.saturating_add(1).min(start.saturating_add(PAGE));
            search_page(client, mail, mailbox, &query, uid, start..end, &mut found).await?;
            start = end;
            client.pause().await?;
        }
        client.say(|encoder| encoder.search_begin()).await?;
        for numbers in found.chunks(1000) {
            client
                .say(|encoder| numbers.iter().for_each(|&number| encoder.search_number(number)))
                .await?;
        }
        client.say(|encoder| encoder.line_end()).await?;
        Ok(Answer::ok("SEARCH completed"))
    }
}

async fn search_page(
    client: &mut Client,
    mail: &AccountMail,
    mailbox: &Mailbox,
    query: &Query,
    uid: bool,
    numbers: std::ops::Range<u32>,
    found: &mut Vec<u32>,
) -> Result<(), Failure> {
    // The rows of a page are read once, when the first of its messages needs one.
    let mut rows: Option<Vec<MessageRow>> = None;
    for number in numbers.clone() {
        let Some(message) = mailbox.view.by_sequence_number(number).filter(|message| !message.gone) else {
            continue;
        };
        let mut facts = Facts::of(message);
        let mut matches = query.test(&facts);
        if matches.is_none() {
            if rows.is_none() {
                rows = Some(read_rows(mail, mailbox, &numbers).await?);
            }
            let row = find_row(rows.as_deref().unwrap_or(&[]), message.uid, message.guid);
            let Some(row) = row else { continue };
            matches = Box::pin(look_closer(client, mail, query, row, &mut facts)).await?;
        }
        if matches == Some(true) {
            found.push(if uid { message.uid.0 } else { number });
        }
    }
    Ok(())
}

/// Looks up more and more of a message until its fate is known.
async fn look_closer(
    client: &mut Client,
    mail: &AccountMail,
    query: &Query,
    row: &MessageRow,
    facts: &mut Facts<'_>,
) -> Result<Option<bool>, Failure> {
    facts.set_row(row);
    if let Some(matches) = query.test(facts) {
        return Ok(Some(matches));
    }
    let structure = mail.structure(row).await?;
    facts.set_envelope(structure.envelope());
    if let Some(matches) = query.test(facts) {
        return Ok(Some(matches));
    }
    let bytes = mail.open(row).await?;
    client.pause().await?;
    let header = header_range(&structure);
    let header = bytes.read_all(header).await?;
    let mut finder = query.find_in_header(&header);
    while finder.step() {
        client.pause().await?;
    }
    facts.set_header(finder.into_found());
    drop(header);
    if let Some(matches) = query.test(facts) {
        return Ok(Some(matches));
    }
    facts.set_texts(text::find_in_texts(client, &bytes, &structure, query.needles()).await?);
    Ok(query.test(facts))
}

fn header_range(structure: &Structure) -> std::ops::Range<u64> {
    let range = structure.root().map_or(0..0, |root| root.header_start..root.body_start);
    range.start..range.end.min(range.start.saturating_add(HEADER_BLOCK_BYTES_MAX as u64))
}
