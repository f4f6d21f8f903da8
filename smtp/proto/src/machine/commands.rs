//! Commands outside the message itself: greeting, MAIL, RCPT, STARTTLS, QUIT and the small ones (RFC 5321 4.1).

use core_types::limits::{DOMAIN_BYTES_MAX, SMTP_RECIPIENTS_MAX};

use super::{
    Action, Machine, Role, SYNCHRONISATION, State, Tls, Verdict, push_reply,
    transaction::{Recipient, Transaction},
};
use crate::{
    command::strip_keyword,
    parameters::{MailParameters, RcptParameters},
    path::{PathError, parse_forward_path, parse_reverse_path, split_path},
    reply::{Enhanced, Reply},
};

pub(super) const NOOP: Reply = Reply::new(250, Enhanced(2, 0, 0), "Ok");
// RFC 5321 3.5.3: neither confirmed nor denied.
pub(super) const VRFY: Reply = Reply::new(252, Enhanced(2, 5, 0), "Send mail to find out");
pub(super) const HELP: Reply = Reply::new(214, Enhanced(2, 0, 0), "See RFC 5321");
pub(super) const HTTP: Reply = Reply::new(421, Enhanced(4, 5, 0), "This is not a web server");
pub(super) const UNKNOWN: Reply = Reply::new(500, Enhanced(5, 5, 1), "Unknown command");
pub(super) const NOT_IMPLEMENTED: Reply = Reply::new(502, Enhanced(5, 5, 1), "Not offered here");
pub(super) const LINE_ENDS: Reply = Reply::new(500, Enhanced(5, 5, 2), "Lines end in CRLF and hold no other CR or LF");
pub(super) const ARGUMENT: Reply = Reply::new(501, Enhanced(5, 5, 4), "Malformed argument");
pub(super) const HELLO_FIRST: Reply = Reply::new(503, Enhanced(5, 5, 1), "Say hello first");
pub(super) const MAIL_FIRST: Reply = Reply::new(503, Enhanced(5, 5, 1), "MAIL first");
pub(super) const IN_CHUNKS: Reply = Reply::new(503, Enhanced(5, 5, 1), "Not between BDAT commands");
pub(super) const TOO_LARGE: Reply = Reply::new(552, Enhanced(5, 3, 4), "Message is larger than the limit");
/// A verdict that does not fit its question: the client shall try again.
pub(super) const CONFUSED: Reply = Reply::new(451, Enhanced(4, 3, 0), "Internal error, try again later");
const ALREADY_TLS: Reply = Reply::new(503, Enhanced(5, 5, 1), "TLS is active already");
const READY_FOR_TLS: Reply = Reply::new(220, Enhanced(2, 0, 0), "Ready for TLS");
const BYE: Reply = Reply::new(221, Enhanced(2, 0, 0), "Bye");
const RESET: Reply = Reply::new(250, Enhanced(2, 0, 0), "Reset");
const AUTH_FIRST: Reply = Reply::new(530, Enhanced(5, 7, 0), "Authentication required");
const NESTED_MAIL: Reply = Reply::new(503, Enhanced(5, 5, 1), "A transaction is under way");
const SENDER_OK: Reply = Reply::new(250, Enhanced(2, 1, 0), "Sender ok");
const RECIPIENT_OK: Reply = Reply::new(250, Enhanced(2, 1, 5), "Recipient ok");
const SENDER_SYNTAX: Reply = Reply::new(501, Enhanced(5, 1, 7), "Malformed sender address");
const RECIPIENT_SYNTAX: Reply = Reply::new(501, Enhanced(5, 1, 3), "Malformed recipient address");
// RFC 6531 3.5.
const SENDER_UTF8: Reply = Reply::new(553, Enhanced(5, 6, 7), "Sender address needs SMTPUTF8");
const RECIPIENT_UTF8: Reply = Reply::new(550, Enhanced(5, 6, 7), "Recipient address needs SMTPUTF8");
const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, Enhanced(4, 5, 3), "Too many recipients");

impl Machine {
    pub(super) fn hello(&mut self, argument: &[u8], esmtp: bool, spoken_here: bool, out: &mut Vec<Action>) {
        if !spoken_here {
            return self.refuse(&UNKNOWN, out);
        }
        let fits = (1..=DOMAIN_BYTES_MAX).contains(&argument.len()) && argument.iter().all(u8::is_ascii_graphic);
        let Some(hello) = std::str::from_utf8(argument).ok().filter(|_| fits) else {
            return self.refuse(&ARGUMENT, out);
        };
        // RFC 5321 4.1.4: a hello in the middle ends the transaction as RSET does.
        self.drop_transaction(out);
        let again = self.session.hello.replace(hello.to_owned()).is_some();
        self.session.esmtp = esmtp;
        let text = if esmtp {
            self.extensions()
        } else {
            self.config.hostname.clone()
        };
        let reply = Reply::bare(250, text.into());
        if again {
            self.junk(&reply, out)
        } else {
            push_reply(&reply, out)
        }
    }

    fn extensions(&self) -> String {
        let mut lines = vec![
            self.config.hostname.clone(),
            "PIPELINING".into(),
            format!("SIZE {}", self.config.size_max),
            "8BITMIME".into(),
            "SMTPUTF8".into(),
            "CHUNKING".into(),
            "ENHANCEDSTATUSCODES".into(),
            "DSN".into(),
        ];
        if self.config.tls == Tls::Available {
            lines.push("STARTTLS".into());
        }
        if self.config.role == Role::Submission && self.may_login() {
            lines.push("AUTH PLAIN LOGIN".into());
        }
        lines.join("\n")
    }

    /// RFC 4954 4: no password goes in clear unless the operator allows it.
    pub(super) fn may_login(&self) -> bool {
        self.config.tls == Tls::Active || self.config.plain_login
    }

    pub(super) fn mail(&mut self, argument: &[u8], out: &mut Vec<Action>) {
        let refusal = match &self.state {
            _ if self.session.hello.is_none() => HELLO_FIRST,
            // RFC 6409 4.3.
            _ if self.config.role == Role::Submission && self.session.identity.is_none() => AUTH_FIRST,
            State::Idle => match self.parse_mail(argument) {
                Ok(transaction) => {
                    let reverse_path = transaction.reverse_path.clone();
                    out.push(Action::CheckSender {
                        reverse_path,
                        size: transaction.size.unwrap_or(0),
                    });
                    self.state = State::AskSender(Box::new(transaction));
                    return;
                }
                Err(refusal) => refusal,
            },
            _ => NESTED_MAIL,
        };
        self.refuse(&refusal, out);
    }

    fn parse_mail(&self, argument: &[u8]) -> Result<Transaction, Reply> {
        let argument = strip_keyword(argument, b"FROM:").ok_or(ARGUMENT)?;
        let argument = std::str::from_utf8(argument).map_err(|_| SENDER_SYNTAX)?;
        let (path, parameters) = self.split_path(argument, SENDER_SYNTAX)?;
        let reverse_path = parse_reverse_path(path).map_err(|_| SENDER_SYNTAX)?;
        let parameters = MailParameters::parse(parameters)?;
        if !path.is_ascii() && !parameters.smtputf8 {
            return Err(SENDER_UTF8);
        }
        if parameters.size.is_some_and(|size| size > self.config.size_max) {
            return Err(TOO_LARGE);
        }
        Ok(Transaction {
            hello: self.session.hello.clone().unwrap_or_default(),
            with: self.protocol(parameters.smtputf8),
            identity: self.session.identity.clone(),
            reverse_path,
            size: parameters.size,
            body: parameters.body.unwrap_or_default(),
            smtputf8: parameters.smtputf8,
            ret: parameters.ret,
            envid: parameters.envid,
            recipients: Vec::new(),
            accepted: Vec::new(),
        })
    }

    fn split_path<'a>(&self, argument: &'a str, malformed: Reply) -> Result<(&'a str, &'a str), Reply> {
        split_path(argument, self.config.role == Role::Submission).map_err(|error| match error {
            PathError::Brackets => ARGUMENT,
            PathError::Mailbox => malformed,
        })
    }

    /// RFC 3848, RFC 6531 4.3.
    fn protocol(&self, smtputf8: bool) -> &'static str {
        let tls = self.config.tls == Tls::Active;
        let login = self.session.identity.is_some();
        match (self.config.role, smtputf8, tls, login) {
            (Role::Lmtp, false, false, _) => "LMTP",
            (Role::Lmtp, false, true, _) => "LMTPS",
            (Role::Lmtp, true, false, _) => "UTF8LMTP",
            (Role::Lmtp, true, true, _) => "UTF8LMTPS",
            (_, true, false, false) => "UTF8SMTP",
            (_, true, true, false) => "UTF8SMTPS",
            (_, true, false, true) => "UTF8SMTPA",
            (_, true, true, true) => "UTF8SMTPSA",
            (_, false, false, false) if !self.session.esmtp => "SMTP",
            (_, false, false, false) => "ESMTP",
            (_, false, true, false) => "ESMTPS",
            (_, false, false, true) => "ESMTPA",
            (_, false, true, true) => "ESMTPSA",
        }
    }

    pub(super) fn sender_verdict(&mut self, transaction: Box<Transaction>, verdict: Verdict, out: &mut Vec<Action>) {
        match negative(verdict) {
            None => {
                self.state = State::Mail(transaction);
                push_reply(&SENDER_OK, out);
            }
            Some(reply) => self.refused_by_verdict(&reply, out),
        }
    }

    pub(super) fn rcpt(&mut self, argument: &[u8], out: &mut Vec<Action>) {
        let mut transaction = match std::mem::replace(&mut self.state, State::Idle) {
            State::Mail(transaction) => transaction,
            other => {
                // RFC 3030 2: no RCPT between BDAT commands.
                let reply = if matches!(other, State::Chunks(_)) {
                    IN_CHUNKS
                } else {
                    MAIL_FIRST
                };
                self.state = other;
                return self.refuse(&reply, out);
            }
        };
        if transaction.accepted.len() >= SMTP_RECIPIENTS_MAX {
            self.state = State::Mail(transaction);
            return push_reply(&TOO_MANY_RECIPIENTS, out);
        }
        let recipient = match self.parse_rcpt(argument, transaction.smtputf8) {
            Ok(recipient) => recipient,
            Err(reply) => {
                self.state = State::Mail(transaction);
                return self.refuse(&reply, out);
            }
        };
        if let Some(index) = transaction
            .recipients
            .iter()
            .position(|known| known.forward_path == recipient.forward_path)
        {
            transaction.accepted.push(index);
            self.state = State::Mail(transaction);
            return push_reply(&RECIPIENT_OK, out);
        }
        out.push(Action::CheckRecipient {
            recipient: recipient.clone(),
            size: transaction.size.unwrap_or(0),
        });
        self.state = State::AskRecipient(transaction, Box::new(recipient));
    }

    fn parse_rcpt(&self, argument: &[u8], smtputf8: bool) -> Result<Recipient, Reply> {
        let argument = strip_keyword(argument, b"TO:").ok_or(ARGUMENT)?;
        let argument = std::str::from_utf8(argument).map_err(|_| RECIPIENT_SYNTAX)?;
        let (path, parameters) = self.split_path(argument, RECIPIENT_SYNTAX)?;
        let forward_path = parse_forward_path(path).map_err(|_| RECIPIENT_SYNTAX)?;
        let parameters = RcptParameters::parse(parameters)?;
        if !path.is_ascii() && !smtputf8 {
            return Err(RECIPIENT_UTF8);
        }
        Ok(Recipient {
            forward_path,
            as_sent: path.to_owned(),
            notify: parameters.notify,
            original_recipient: parameters.original_recipient,
        })
    }

    pub(super) fn recipient_verdict(
        &mut self,
        mut transaction: Box<Transaction>,
        recipient: Recipient,
        verdict: Verdict,
        out: &mut Vec<Action>,
    ) {
        let reply = negative(verdict);
        if reply.is_none() {
            transaction.accepted.push(transaction.recipients.len());
            transaction.recipients.push(recipient);
        }
        self.state = State::Mail(transaction);
        match reply {
            None => push_reply(&RECIPIENT_OK, out),
            // People who have logged in and the mail system behind LMTP do not harvest.
            Some(reply) if reply.code == 550 && reply.enhanced == Some(Enhanced(5, 1, 1)) => match self.config.role {
                Role::Relay => self.unknown_recipient(&reply, out),
                Role::Submission | Role::Lmtp => push_reply(&reply, out),
            },
            Some(reply) => self.refused_by_verdict(&reply, out),
        }
    }

    /// A permanent refusal counts as the client's error, except over LMTP, where one connection serves many senders.
    pub(super) fn refused_by_verdict(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        if reply.is_permanent() && self.config.role != Role::Lmtp {
            self.refuse(reply, out);
        } else {
            push_reply(reply, out);
        }
    }

    pub(super) fn rset(&mut self, argument: &[u8], out: &mut Vec<Action>) {
        if !argument.is_empty() {
            return self.refuse(&ARGUMENT, out);
        }
        self.drop_transaction(out);
        self.junk(&RESET, out);
    }

    pub(super) fn quit(&mut self, argument: &[u8], out: &mut Vec<Action>) {
        if !argument.is_empty() {
            return self.refuse(&ARGUMENT, out);
        }
        self.close(&BYE, out);
    }

    pub(super) fn start_tls(&mut self, argument: &[u8], more: bool, out: &mut Vec<Action>) {
        match self.config.tls {
            // Octets sent in clear behind STARTTLS would be taken for the protected session's (CVE-2011-0411).
            _ if more => return self.close(&SYNCHRONISATION, out),
            Tls::Active => return self.refuse(&ALREADY_TLS, out),
            Tls::None => return self.refuse(&NOT_IMPLEMENTED, out),
            Tls::Available if !argument.is_empty() => return self.refuse(&ARGUMENT, out),
            Tls::Available => {}
        }
        self.drop_transaction(out);
        push_reply(&READY_FOR_TLS, out);
        out.push(Action::StartTls);
        self.state = State::StartTls;
    }
}

/// The reply of a verdict that says no; a refusal that is none becomes 451.
pub(super) fn negative(verdict: Verdict) -> Option<Reply> {
    match verdict {
        Verdict::Accepted => None,
        Verdict::Refused(reply) if (400..600).contains(&reply.code) => Some(reply),
        Verdict::Refused(_) | Verdict::Data(_) => Some(CONFUSED),
    }
}
