//! The end of data: the only place that says 250 for a message.
//!
//! `mailstore` delivers to each recipient or queues for it, durably, before it returns; what it returns is said here. SMTP
//! has one reply for all recipients: 250 when every one was delivered or queued; otherwise the sender keeps the message
//! and sends it again to all of them (RFC 5321 4.2.5), so that those who have it already get it twice. That needs
//! a group that cannot take it *and* no group that can queue it, and a double is better than a loss. An account
//! removed since its RCPT is queued for when others have the message, and reported. LMTP has a reply for each recipient (RFC 2033 4.2), and no such doubles.

use std::net::IpAddr;

use mailstore::{DeliverTo, Delivered, EnvelopeFrom, Ingested, StoreError};
use queue::{Action, Elsewhere, Origin, Reported, Reporter, Status};
use smtp_proto::{Enhanced, Reply, Role};
use state::rows::QueuedRecipient;

use crate::message::Message;
use crate::{Context, policy};

/// Delivers a complete message; the replies in the order of the transaction's recipients, or one for SMTP.
pub(crate) async fn finish_data(context: &Context, peer: IpAddr, message: Message) -> Vec<Reply> {
    let recipients = message.deliver_to();
    let from = message.envelope_from();
    let id = message.id().to_owned();
    let (size, results) = match message.finish().await {
        Ok(ingested) => {
            let enforce_quota = context.role == Role::Lmtp;
            let results = context
                .store
                .deliver(&ingested, &from, &recipients, enforce_quota)
                .await;
            report_success(context, &ingested, &from, &recipients, &results).await;
            (ingested.size(), results)
        }
        Err(error) => (0, vec![Err(error); recipients.len()]),
    };
    for (recipient, result) in recipients.iter().zip(&results) {
        match result {
            Ok(delivered) => {
                tracing::info!(%peer, %id, size, recipient = ?recipient.address.to_string(), outcome = %name(delivered), "message taken");
            }
            Err(error) => {
                tracing::warn!(%peer, %id, size, recipient = ?recipient.address.to_string(), %error, "message not taken");
            }
        }
    }
    replies(context.role, &results)
}

/// Reports deliveries to a sender of ours who asked for it (RFC 3461 4.1, NOTIFY=SUCCESS). The message is delivered, so
/// that a failure here changes nothing for anybody else.
async fn report_success(
    context: &Context,
    message: &Ingested,
    from: &EnvelopeFrom,
    recipients: &[DeliverTo],
    results: &[Result<Delivered, StoreError>],
) {
    let delivered = recipients.iter().zip(results).filter(|(recipient, result)| {
        recipient.notify & QueuedRecipient::NOTIFY_SUCCESS != 0 && matches!(result, Ok(Delivered::Placed(_)))
    });
    let reported: Vec<Reported<'_>> = delivered
        .map(|(recipient, _)| Reported {
            address: &recipient.address,
            original: recipient.original.as_deref(),
            action: Action::Delivered,
            status: Status(2, 0, 0),
            reason: "",
        })
        .collect();
    let origin = Origin {
        sender: from.reverse_path.as_ref(),
        return_full: from.return_full,
        envelope_id: from.envelope_id.as_deref(),
        smtputf8: from.smtputf8,
        blob: message.blob(),
        size: message.size(),
        arrived: message.received_at(),
    };
    let reporter = Reporter {
        store: &context.store,
        hostname: &context.hostname,
    };
    if let Err(error) = reporter.send(&origin, &reported, Elsewhere::Omit).await {
        tracing::warn!(%error, "no report of the delivery could be sent");
    }
}

fn replies(role: Role, results: &[Result<Delivered, StoreError>]) -> Vec<Reply> {
    let each = results.iter().map(|result| match result {
        Ok(delivered) => Reply::with_text(250, Enhanced(2, 0, 0), name(delivered)),
        Err(error) => policy::store_refusal(error),
    });
    match role {
        Role::Lmtp => each.collect(),
        // The worst one speaks for all: "try again" before "never", since another attempt finds out what is permanent.
        Role::Relay | Role::Submission => each
            .max_by_key(|reply| match reply.code {
                400..500 => 2,
                500.. => 1,
                _ => 0,
            })
            .map(|reply| {
                let others = results.iter().any(Result::is_ok);
                if reply.is_permanent() && others {
                    // For good is too much to say: some have it.
                    Reply::new(
                        451,
                        Enhanced(4, 3, 0),
                        "Not all recipients could be served, try again later",
                    )
                } else {
                    reply
                }
            })
            .into_iter()
            .collect(),
    }
}

fn name(delivered: &Delivered) -> String {
    match delivered {
        Delivered::Placed(guids) => guids
            .first()
            .map_or_else(|| "delivered".to_owned(), |guid| format!("delivered as {guid}")),
        Delivered::Queued(id) => format!("queued as {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::{MessageGuid, QueueId};
    use state::Refusal;

    fn placed() -> Result<Delivered, StoreError> {
        Ok(Delivered::Placed(vec![MessageGuid([1; 16])]))
    }

    fn codes(role: Role, results: &[Result<Delivered, StoreError>]) -> Vec<u16> {
        replies(role, results).iter().map(|reply| reply.code).collect()
    }

    #[test]
    fn smtp_says_250_only_when_every_recipient_is_served() {
        let queued = Ok(Delivered::Queued(QueueId([2; 16])));
        assert_eq!(codes(Role::Relay, &[placed(), queued]), [250]);
        assert_eq!(codes(Role::Relay, &[placed(), Err(StoreError::Unknown)]), [451]);
        assert_eq!(
            codes(
                Role::Relay,
                &[Err(StoreError::Full), Err(StoreError::TooLarge("message"))]
            ),
            [452]
        );
        let gone = || Err(StoreError::Refused(Refusal::NoSuchAccount));
        assert_eq!(codes(Role::Submission, &[gone(), placed()]), [451]);
        assert_eq!(codes(Role::Submission, &[gone(), gone()]), [550]);
        assert!(codes(Role::Relay, &[]).is_empty(), "the machine then says 451 itself");
    }

    #[test]
    fn lmtp_answers_each_recipient() {
        let full = Err(StoreError::Refused(Refusal::OverQuota));
        assert_eq!(codes(Role::Lmtp, &[placed(), full, placed()]), [250, 552, 250]);
    }
}
