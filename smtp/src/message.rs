//! A message on its way in: trace fields in front, then its octets, straight into the mail store.
//!
//! Invariants: an error of the store does not stop the reading (the octets of a message are read to their end, lest they
//! be taken for commands); it is kept and told at the end of data. Not here: replies.

use std::net::IpAddr;

use core_types::UnixMillis;
use mailstore::{DeliverTo, EnvelopeFrom, Ingest, Ingested, MailStore, StoreError};
use smtp_proto::{Notify, Ret, ReversePath, Role, Transaction};
use state::rows::QueuedRecipient;

use crate::Context;
use crate::header::{HeaderRepair, Missing};
use crate::policy::Resolved;

/// See the module.
pub(crate) struct Message {
    store: MailStore,
    id: String,
    transaction: Transaction,
    recipients: Vec<Resolved>,
    ingest: Result<Ingest, StoreError>,
    /// Only what people submit is repaired (RFC 6409 8).
    repair: Option<HeaderRepair>,
}

impl Message {
    /// Begins a message with its trace fields (RFC 5321 4.4).
    pub(crate) async fn begin(
        context: &Context,
        peer: IpAddr,
        transaction: Transaction,
        recipients: Vec<Resolved>,
    ) -> Self {
        let store = context.store.clone();
        let now = store.clock().now();
        let id = store.new_message_guid().to_string();
        let repair = (context.role == Role::Submission).then(|| {
            HeaderRepair::new(Missing {
                date: mime::format_date(now),
                message_id: format!("<{id}@{}>", context.hostname),
            })
        });
        let trace = trace_fields(&transaction, peer, &context.hostname, &id, now);
        let mut message = Self {
            ingest: Ok(store.ingest()),
            store,
            id,
            transaction,
            recipients,
            repair,
        };
        message.store_bytes(trace.as_bytes()).await;
        message
    }

    /// Takes the next octets of the message.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        match &mut self.repair {
            Some(repair) => {
                let mut repaired = Vec::with_capacity(bytes.len());
                repair.push(bytes, &mut repaired);
                self.store_bytes(&repaired).await;
            }
            None => self.store_bytes(bytes).await,
        }
    }

    async fn store_bytes(&mut self, bytes: &[u8]) {
        if let Ok(ingest) = &mut self.ingest
            && let Err(error) = ingest.write(bytes).await
        {
            self.ingest = Err(error);
        }
    }

    /// The message is complete.
    pub(crate) async fn finish(mut self) -> Result<Ingested, StoreError> {
        if let Some(repair) = &mut self.repair {
            let mut rest = Vec::new();
            repair.finish(&mut rest);
            self.store_bytes(&rest).await;
        }
        self.store.finish_ingest(self.ingest?).await
    }

    /// The name of the transaction, for logs and the trace.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn envelope_from(&self) -> EnvelopeFrom {
        EnvelopeFrom {
            reverse_path: match &self.transaction.reverse_path {
                ReversePath::Null => None,
                ReversePath::Mailbox(address) => Some(address.clone()),
            },
            return_full: self.transaction.ret == Some(Ret::Full),
            envelope_id: self.transaction.envid.clone(),
            smtputf8: self.transaction.smtputf8,
        }
    }

    /// The recipients with what was said about them, in the order of the transaction.
    pub(crate) fn deliver_to(&self) -> Vec<DeliverTo> {
        let resolved = self.recipients.iter().zip(&self.transaction.recipients);
        resolved
            .map(|(resolved, said)| DeliverTo {
                address: resolved.address.clone(),
                accounts: resolved.accounts.clone(),
                notify: notify_bits(said.notify),
                original: said
                    .original_recipient
                    .as_ref()
                    .map(|original| format!("{};{}", original.address_type, original.address)),
            })
            .collect()
    }
}

/// RFC 3461 4.1: without NOTIFY failures are told, and delays may be.
fn notify_bits(notify: Option<Notify>) -> u8 {
    let bit = |wanted: bool, bit: u8| if wanted { bit } else { 0 };
    match notify {
        None => QueuedRecipient::NOTIFY_FAILURE | QueuedRecipient::NOTIFY_DELAY,
        Some(Notify::Never) => 0,
        Some(Notify::On {
            success,
            failure,
            delay,
        }) => {
            bit(success, QueuedRecipient::NOTIFY_SUCCESS)
                | bit(failure, QueuedRecipient::NOTIFY_FAILURE)
                | bit(delay, QueuedRecipient::NOTIFY_DELAY)
        }
    }
}

/// Return-Path and Received. A recipient is named only where it is the only one, so that nobody learns of another.
fn trace_fields(transaction: &Transaction, peer: IpAddr, hostname: &str, id: &str, now: UnixMillis) -> String {
    let peer = match peer.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let hello: String = transaction.hello.chars().map(hello_char).collect();
    let for_one = match transaction.recipients.as_slice() {
        [only] => format!("\r\n\tfor <{}>", only.as_sent),
        _ => String::new(),
    };
    format!(
        "Return-Path: <{}>\r\nReceived: from {hello} ({peer})\r\n\tby {hostname} with {} id {id}{for_one};\r\n\t{}\r\n",
        transaction.reverse_path,
        transaction.with,
        mime::format_date(now),
    )
}

/// What a client calls itself is a name or an address; other characters could end the word or begin a comment.
fn hello_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']') {
        c
    } else {
        '?'
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::Address;

    fn transaction(hello: &str) -> Transaction {
        let mut machine = smtp_proto::Machine::new(smtp_proto::Config {
            role: Role::Relay,
            hostname: "mx.example".to_owned(),
            tls: smtp_proto::Tls::None,
            plain_login: false,
            size_max: 1000,
        });
        let mut actions = Vec::new();
        machine.handle(smtp_proto::Input::Connected, &mut actions);
        let commands = format!("EHLO {hello}\r\nMAIL FROM:<a@b.example>\r\n");
        machine.handle(smtp_proto::Input::Bytes(commands.as_bytes()), &mut actions);
        for input in [
            None,
            Some("RCPT TO:<C@d.example>\r\n"),
            None,
            Some("BDAT 0 LAST\r\n"),
            None,
        ] {
            match input {
                Some(text) => machine.handle(smtp_proto::Input::Bytes(text.as_bytes()), &mut actions),
                None => machine.handle(smtp_proto::Input::Verdict(smtp_proto::Verdict::Accepted), &mut actions),
            }
        }
        actions
            .into_iter()
            .find_map(|action| match action {
                smtp_proto::Action::DataBegin(transaction) => Some(*transaction),
                _ => None,
            })
            .unwrap()
    }

    #[test]
    fn the_trace_tells_who_sent_what_to_whom() {
        let fields = trace_fields(
            &transaction("client.example"),
            "192.0.2.1".parse().unwrap(),
            "mx.example",
            "00ff",
            UnixMillis(1_000_000_000_000),
        );
        assert_eq!(
            fields,
            "Return-Path: <a@b.example>\r\nReceived: from client.example ([192.0.2.1])\r\n\tby mx.example with ESMTP \
             id 00ff\r\n\tfor <C@d.example>;\r\n\tSun, 9 Sep 2001 01:46:40 +0000\r\n"
        );
    }

    #[test]
    fn a_hello_cannot_break_the_trace_and_several_recipients_are_not_told() {
        let mut transaction = transaction("a(b);<x>");
        transaction.reverse_path = ReversePath::Null;
        transaction.recipients.push(transaction.recipients[0].clone());
        let fields = trace_fields(&transaction, "2001:db8::1".parse().unwrap(), "mx", "0", UnixMillis(0));
        assert!(
            fields.starts_with("Return-Path: <>\r\nReceived: from a?b???x? ([IPv6:2001:db8::1])"),
            "{fields}"
        );
        assert!(!fields.contains("for <"));
    }

    #[test]
    fn notify_has_its_defaults() {
        assert_eq!(notify_bits(None), 6);
        assert_eq!(notify_bits(Some(Notify::Never)), 0);
        let all = Notify::On {
            success: true,
            failure: true,
            delay: true,
        };
        assert_eq!(notify_bits(Some(all)), 7);
        assert!(Address::parse("a@b").is_ok());
    }
}
