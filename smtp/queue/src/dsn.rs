//! Delivery status notifications (RFC 3464, in the shape of RFC 6522): text from values, nothing else.
//!
//! Invariants: whatever the values hold, no line and no field is begun by them (controls become `?`), and the boundary is
//! one that the returned message cannot know. Not here: when a report is due, and to whom it goes.

use core_types::{Address, BlobId, UnixMillis};
use state::rows::QueueEntry;

/// What became of a recipient (RFC 3464 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// In the mailbox.
    Delivered,
}

/// A status code (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8, pub u16, pub u16);

/// The message that a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// MAIL FROM, to whom the report goes; `None` is the null reverse-path, which gets none.
    pub sender: Option<&'a Address>,
    /// RFC 3461 RET=FULL.
    pub return_full: bool,
    /// RFC 3461 ENVID, decoded.
    pub envelope_id: Option<&'a str>,
    /// Whether MAIL had SMTPUTF8.
    pub smtputf8: bool,
    /// The message's bytes.
    pub blob: BlobId,
    /// Their number.
    pub size: u64,
    /// When it came.
    pub arrived: UnixMillis,
}

impl<'a> From<&'a QueueEntry> for Origin<'a> {
    fn from(entry: &'a QueueEntry) -> Self {
        Self {
            sender: entry.reverse_path.as_ref(),
            return_full: entry.return_full,
            envelope_id: entry.envelope_id.as_deref(),
            smtputf8: entry.smtputf8,
            blob: entry.blob,
            size: entry.size,
            arrived: entry.created,
        }
    }
}

/// One recipient in a report.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// RCPT TO.
    pub address: &'a Address,
    /// What the sender called it (RFC 3461 ORCPT), decoded, with its type.
    pub original: Option<&'a str>,
    /// What became of it.
    pub action: Action,
    /// Why, as a code.
    pub status: Status,
    /// Why, in words.
    pub reason: &'a str,
}

/// What of the message a report returns (RFC 3461 4.3).
#[derive(Clone, Copy, Debug)]
pub enum Returned<'a> {
    /// All of it.
    Message(&'a [u8]),
    /// Its header.
    Header(&'a [u8]),
}

/// A report about one message.
#[derive(Clone, Debug)]
pub struct StatusReport<'a> {
    /// The server that reports.
    pub hostname: &'a str,
    /// A word that nobody has used, for the message id and the boundary.
    pub id: &'a str,
    /// Now.
    pub now: UnixMillis,
    /// The message.
    pub origin: Origin<'a>,
    /// The recipients that it is about.
    pub recipients: &'a [Reported<'a>],
    /// What is returned.
    pub returned: Returned<'a>,
}

impl StatusReport<'_> {
    /// The report as a message, with the null reverse-path in front.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        let boundary = format!("report-{}", self.id);
        let mut out = self.header(&boundary);
        out.push_str(&format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        ));
        self.for_people(&mut out);
        out.push_str(&format!(
            "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n"
        ));
        self.for_programs(&mut out);
        let (kind, bytes) = match self.returned {
            Returned::Message(bytes) => ("message/rfc822", bytes),
            Returned::Header(bytes) => ("text/rfc822-headers", bytes),
        };
        let encoding = if bytes.is_ascii() { "7bit" } else { "8bit" };
        out.push_str(&format!(
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        ));
        let mut out = out.into_bytes();
        out.extend_from_slice(bytes);
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        out
    }

    fn header(&self, boundary: &str) -> String {
        let Self {
            hostname,
            id,
            now,
            origin,
            ..
        } = self;
        let to = origin.sender.map(ToString::to_string).unwrap_or_default();
        let failed = self
            .recipients
            .iter()
            .any(|recipient| recipient.action == Action::Failed);
        let subject = if failed {
            "Your message could not be delivered"
        } else {
            "Your message was delivered"
        };
        // RFC 3834 5: so that no program answers this answer.
        format!(
            "Return-Path: <>\r\nFrom: Mail delivery <MAILER-DAEMON@{hostname}>\r\nTo: <{}>\r\nSubject: {subject}\r\n\
             Date: {}\r\nMessage-ID: <{id}@{hostname}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n",
            line(&to),
            mime::format_date(*now),
        )
    }

    fn for_people(&self, out: &mut String) {
        out.push_str(&format!("This is the mail server {}.\r\n\r\n", self.hostname));
        for reported in self.recipients {
            let address = line(&reported.address.to_string());
            let reason = line(reported.reason);
            out.push_str(&match reported.action {
                Action::Failed => {
                    format!("Your message to <{address}> could not be delivered:\r\n    {reason}\r\n\r\n")
                }
                Action::Delivered => format!("Your message to <{address}> was delivered.\r\n\r\n"),
            });
        }
        out.push_str(match self.returned {
            Returned::Message(_) => "The message is below.\r\n",
            Returned::Header(_) => "The header of the message is below.\r\n",
        });
    }

    fn for_programs(&self, out: &mut String) {
        if let Some(envelope_id) = self.origin.envelope_id {
            out.push_str(&format!("Original-Envelope-Id: {}\r\n", line(envelope_id)));
        }
        out.push_str(&format!(
            "Reporting-MTA: dns; {}\r\nArrival-Date: {}\r\n",
            self.hostname,
            mime::format_date(self.origin.arrived)
        ));
        for reported in self.recipients {
            out.push_str("\r\n");
            if let Some(original) = reported.original {
                out.push_str(&format!("Original-Recipient: {}\r\n", line(original)));
            }
            let address = reported.address;
            let address_type = if address.is_ascii() { "rfc822" } else { "utf-8" };
            let action = match reported.action {
                Action::Failed => "failed",
                Action::Delivered => "delivered",
            };
            let Status(class, subject, detail) = reported.status;
            out.push_str(&format!(
                "Final-Recipient: {address_type}; {}\r\nAction: {action}\r\nStatus: {class}.{subject}.{detail}\r\n",
                line(&address.to_string())
            ));
            if reported.action == Action::Failed {
                out.push_str(&format!("Diagnostic-Code: x-everpost; {}\r\n", line(reported.reason)));
            }
            out.push_str(&format!("Last-Attempt-Date: {}\r\n", mime::format_date(self.now)));
        }
    }
}

/// Text that stays within its line (RFC 5322 2.1.1 gives it 998 octets).
fn line(text: &str) -> String {
    text.chars()
        .take(LINE_CHARS_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Characters of one value; four octets each at most leave room for the field's name.
const LINE_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(action: Action, reason: &str, returned: Returned<'_>) -> String {
        let sender = Address::parse("sender@example.org").unwrap();
        let address = Address::parse("user@example.test").unwrap();
        let recipients = [Reported {
            address: &address,
            original: Some("rfc822;list@example.test"),
            action,
            status: Status(4, 4, 7),
            reason,
        }];
        let report = StatusReport {
            hostname: "mx.example.test",
            id: "0123",
            now: UnixMillis(1_000_000_600_000),
            origin: Origin {
                sender: Some(&sender),
                return_full: false,
                envelope_id: Some("env\r\nX: 1"),
                smtputf8: false,
                blob: BlobId([2; 32]),
                size: 10,
                arrived: UnixMillis(1_000_000_000_000),
            },
            recipients: &recipients,
            returned,
        };
        String::from_utf8(report.to_message()).unwrap()
    }

    #[test]
    fn a_report_is_what_rfc_3464_wants() {
        let text = report(
            Action::Failed,
            "expired\0\r\nAction: delivered",
            Returned::Header(b"Subject: x\r\n"),
        );
        assert_eq!(
            text,
            "Return-Path: <>\r\nFrom: Mail delivery <MAILER-DAEMON@mx.example.test>\r\nTo: <sender@example.org>\r\n\
             Subject: Your message could not be delivered\r\nDate: Sun, 9 Sep 2001 01:56:40 +0000\r\n\
             Message-ID: <0123@mx.example.test>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"report-0123\"\r\n\r\n\
             --report-0123\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             This is the mail server mx.example.test.\r\n\r\n\
             Your message to <user@example.test> could not be delivered:\r\n    expired???Action: delivered\r\n\r\n\
             The header of the message is below.\r\n\
             \r\n--report-0123\r\nContent-Type: message/delivery-status\r\n\r\n\
             Original-Envelope-Id: env??X: 1\r\nReporting-MTA: dns; mx.example.test\r\n\
             Arrival-Date: Sun, 9 Sep 2001 01:46:40 +0000\r\n\r\n\
             Original-Recipient: rfc822;list@example.test\r\nFinal-Recipient: rfc822; user@example.test\r\n\
             Action: failed\r\nStatus: 4.4.7\r\nDiagnostic-Code: x-everpost; expired???Action: delivered\r\n\
             Last-Attempt-Date: Sun, 9 Sep 2001 01:56:40 +0000\r\n\
             \r\n--report-0123\r\nContent-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             Subject: x\r\n\r\n--report-0123--\r\n"
        );
    }

    #[test]
    fn a_returned_message_keeps_its_octets() {
        let text = report(
            Action::Delivered,
            "",
            Returned::Message("Subject: ü\r\n\r\nb".as_bytes()),
        );
        assert!(text.contains(
            "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: ü\r\n\r\nb\r\n--report"
        ));
        assert!(text.contains("Action: delivered\r\n") && !text.contains("Diagnostic-Code"));
    }
}
