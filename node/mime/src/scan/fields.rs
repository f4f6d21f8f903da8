//! What the scanner takes from header fields.
//!
//! Of a repeated field the first counts; To, Cc and Bcc add up, as if they stood in one field. Fields beyond the budget
//! of the message are left out.

use core_types::limits::{MIME_REFERENCE_BYTES_MAX, MIME_REFERENCES_MAX};

use super::Budget;
use crate::address_list::parse_address_list;
use crate::content::{parse_content_type, parse_disposition, parse_encoding, parse_languages};
use crate::date::parse_date;
use crate::header::{split_field, unfold};
use crate::structure::{ContentType, Disposition, Encoding, Envelope, Part};

/// The header of one part, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct PartHeader {
    content_type: Option<ContentType>,
    encoding: Option<Encoding>,
    content_id: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    disposition: Option<Disposition>,
    language: Option<Vec<Vec<u8>>>,
    location: Option<Vec<u8>>,
    md5: Option<Vec<u8>>,
    envelope: Envelope,
    seen: Seen,
}

/// Address fields that were there, also if nothing is in them.
#[derive(Debug, Default)]
struct Seen {
    from: bool,
    sender: bool,
    reply_to: bool,
}

impl PartHeader {
    /// Takes what is wanted of a complete field, unfolded but with its name.
    pub(crate) fn take_field(&mut self, field: &[u8], is_message: bool, budget: &mut Budget) {
        let (name, value) = split_field(field);
        let name = name.to_ascii_lowercase();
        let known = name.starts_with(b"content-") || is_message;
        if !known || budget.bytes < value.len() {
            return;
        }
        let before = budget.bytes;
        budget.bytes = budget.bytes.saturating_sub(value.len());
        let value = unfold(value);
        let taken = match name.as_slice() {
            b"content-type" => first(&mut self.content_type, || parse_content_type(&value)),
            b"content-transfer-encoding" => first(&mut self.encoding, || parse_encoding(&value)),
            b"content-id" => first(&mut self.content_id, || value),
            b"content-description" => first(&mut self.description, || value),
            b"content-disposition" => first(&mut self.disposition, || parse_disposition(&value)),
            b"content-language" => first(&mut self.language, || parse_languages(&value)),
            b"content-location" => first(&mut self.location, || value),
            b"content-md5" => first(&mut self.md5, || value),
            _ => is_message && self.take_envelope_field(&name, value, budget),
        };
        if !taken {
            budget.bytes = before;
        }
    }

    fn take_envelope_field(&mut self, name: &[u8], value: Vec<u8>, budget: &mut Budget) -> bool {
        let envelope = &mut self.envelope;
        let (list, seen) = match name {
            b"date" => {
                return first(&mut envelope.date, || {
                    envelope.sent_at = parse_date(&value);
                    value
                });
            }
            b"subject" => return first(&mut envelope.subject, || value),
            b"in-reply-to" => return first(&mut envelope.in_reply_to, || value),
            b"message-id" => return first(&mut envelope.message_id, || value),
            b"from" => (&mut envelope.from, std::mem::replace(&mut self.seen.from, true)),
            b"sender" => (&mut envelope.sender, std::mem::replace(&mut self.seen.sender, true)),
            b"reply-to" => (&mut envelope.reply_to, std::mem::replace(&mut self.seen.reply_to, true)),
            b"to" => (&mut envelope.to, false),
            b"cc" => (&mut envelope.cc, false),
            b"bcc" => (&mut envelope.bcc, false),
            _ => return false,
        };
        if seen {
            return false;
        }
        let mut items = parse_address_list(&value, budget.addresses);
        budget.addresses = budget.addresses.saturating_sub(items.len());
        list.append(&mut items);
        true
    }

    /// Gives the part what its header said; the envelope only to a message.
    pub(crate) fn move_to(self, part: &mut Part, is_message: bool) {
        if let Some(content_type) = self.content_type {
            part.content_type = content_type;
        }
        part.encoding = self.encoding.unwrap_or_default();
        part.content_id = self.content_id;
        part.description = self.description;
        part.disposition = self.disposition;
        part.language = self.language.unwrap_or_default();
        part.location = self.location;
        part.md5 = self.md5;
        if is_message {
            let mut envelope = self.envelope;
            // RFC 3501 7.4.2: the server gives From for a Sender or Reply-To that is missing or empty.
            for list in [&mut envelope.sender, &mut envelope.reply_to] {
                if list.is_empty() {
                    list.clone_from(&envelope.from);
                }
            }
            part.envelope = Some(Box::new(envelope));
        }
    }
}

fn first<T>(slot: &mut Option<T>, value: impl FnOnce() -> T) -> bool {
    let free = slot.is_none();
    if free {
        *slot = Some(value());
    }
    free
}

/// Adds the ids of a References field; drops the oldest when there are far more than wanted.
pub(crate) fn take_references(field: &[u8], references: &mut Vec<Vec<u8>>) {
    let (name, value) = split_field(field);
    if !name.eq_ignore_ascii_case(b"references") {
        return;
    }
    // What stands behind the last `>` is no id, or one that never ends.
    let end = value.iter().rposition(|byte| *byte == b'>').unwrap_or(0);
    for piece in value.get(..end).unwrap_or_default().split(|byte| *byte == b'>') {
        let Some(start) = piece.iter().rposition(|byte| *byte == b'<') else {
            continue;
        };
        let id = piece.get(start.saturating_add(1)..).unwrap_or_default();
        let valid = !id.is_empty() && id.len() <= MIME_REFERENCE_BYTES_MAX && id.iter().all(|byte| *byte > b' ');
        if valid {
            references.push(id.to_vec());
        }
        if references.len() > MIME_REFERENCES_MAX.saturating_mul(2) {
            let surplus = references.len().saturating_sub(MIME_REFERENCES_MAX);
            references.drain(..surplus);
        }
    }
}
