//! Part numbers of IMAP (RFC 3501 6.4.5) as octet ranges of the stored message.
//!
//! Numbering: the children of a multipart count from 1; a message whose body is no multipart has its body as part 1; a
//! message/rfc822 part is descended into as the message that it holds.

use std::ops::Range;

use crate::structure::{Kind, Part, Structure};

/// Where the pieces of one section lie, in octets of the whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRef {
    /// The part in the arena; 0 for the whole message.
    pub index: u32,
    /// `BODY[path]`: the body of the part; for the empty path the whole message.
    pub body: Range<u64>,
    /// `BODY[path.MIME]`: the header of the part. `None` for the empty path, where IMAP has no such section.
    pub mime: Option<Range<u64>>,
    /// `BODY[path.HEADER]`: the header of the message in a message/rfc822 part, or of the whole message.
    pub header: Option<Range<u64>>,
    /// `BODY[path.TEXT]`: the body of that message.
    pub text: Option<Range<u64>>,
}

impl Structure {
    /// Finds the part that a section path names; the empty path names the message. `None` if there is no such part.
    #[must_use]
    pub fn find_part(&self, path: &[u32]) -> Option<PartRef> {
        let root = self.root()?;
        if path.is_empty() {
            return Some(PartRef {
                index: 0,
                body: root.header_start..root.end,
                mime: None,
                header: Some(root.header_start..root.body_start),
                text: Some(root.body_start..root.end),
            });
        }
        let mut selected: Option<(u32, &Part)> = None;
        for number in path {
            // The message whose parts are counted next: the whole one, or the one in the part selected so far.
            let (index, part) = match selected {
                None => (0, root),
                Some((index, part)) => match part.kind {
                    Kind::Leaf => return None,
                    Kind::Multipart => (index, part),
                    Kind::Message => self.children(index).next()?,
                },
            };
            selected = Some(match part.kind {
                Kind::Multipart => {
                    let position = usize::try_from(number.checked_sub(1)?).ok()?;
                    self.children(index).nth(position)?
                }
                Kind::Leaf | Kind::Message if *number == 1 => (index, part),
                Kind::Leaf | Kind::Message => return None,
            });
        }
        let (index, part) = selected?;
        let message = if part.kind == Kind::Message {
            self.children(index).next()
        } else {
            None
        };
        Some(PartRef {
            index,
            body: part.body_start..part.end,
            mime: Some(part.header_start..part.body_start),
            header: message.map(|(_, message)| message.header_start..message.body_start),
            text: message.map(|(_, message)| message.body_start..message.end),
        })
    }
}
