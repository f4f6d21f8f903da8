//! The AUTHORIZATION state: USER and PASS (RFC 1939 7), AUTH PLAIN (RFC 5034, RFC 4616), STLS (RFC 2595 4), CAPA.
//!
//! No password is looked at before TLS unless the listener permits it, and none is kept after the question.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use core_types::limits::PASSWORD_BYTES_MAX;

use super::*;

impl Machine {
    pub(super) fn handle_capa(&mut self) {
        self.reply("+OK");
        for line in [
            "TOP",
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            "EXPIRE NEVER",
        ] {
            self.reply(line);
        }
        // RFC 2449 5 lets these be there in both states; RFC 2595 4 has STLS in this one only.
        if self.may_log_in() {
            self.reply("USER");
            self.reply("SASL PLAIN");
        }
        if self.tls == Tls::Available && !self.is_logged_in() {
            self.reply("STLS");
        }
        self.reply(".");
    }

    pub(super) fn handle_authorization(&mut self, command: Command, actions: &mut Vec<Action>) {
        match command {
            Command::Stls => self.handle_stls(actions),
            Command::User(_) | Command::Pass(_) | Command::Auth(..) if !self.may_log_in() => {
                self.error("-ERR [SYS/PERM] TLS needed", actions);
            }
            Command::User(name) => {
                self.state = State::Authorization { user: Some(name) };
                // The same answer for every name: which ones exist is nobody's business.
                self.reply("+OK");
            }
            Command::Pass(password) => {
                let State::Authorization { user } = &mut self.state else {
                    return;
                };
                match user.take() {
                    Some(identity) => self.authenticate(identity, password, actions),
                    None => self.error("-ERR USER first", actions),
                }
            }
            Command::Auth(mechanism, initial) => {
                if mechanism != "PLAIN" {
                    return self.error("-ERR unknown mechanism", actions);
                }
                self.state = State::Sasl;
                match initial {
                    // RFC 5034 4: a single `=` is an empty response.
                    Some(initial) if initial == b"=" => self.handle_sasl_response(b"", actions),
                    Some(initial) => self.handle_sasl_response(&initial, actions),
                    None => self.reply("+ "),
                }
            }
            _ => self.error("-ERR log in first", actions),
        }
    }

    fn handle_stls(&mut self, actions: &mut Vec<Action>) {
        if self.tls != Tls::Available {
            return self.error("-ERR no TLS to start", actions);
        }
        // RFC 2595 4: the client must wait for the answer. Octets behind the command come from someone who wants them to
        // be taken for the client's inside TLS (CVE-2021-33515).
        if self.lines.has_pending() {
            self.reply("-ERR octets behind STLS");
            return self.close(actions);
        }
        self.reply("+OK begin TLS");
        self.ask(WaitsFor::Tls, Action::StartTls, actions);
    }

    pub(super) fn handle_sasl_response(&mut self, line: &[u8], actions: &mut Vec<Action>) {
        self.state = State::Authorization { user: None };
        if line == b"*" {
            return self.error("-ERR cancelled", actions);
        }
        match STANDARD.decode(line).ok().and_then(parse_plain) {
            Some((identity, password)) => self.authenticate(identity, password, actions),
            None => self.error("-ERR [AUTH] malformed response", actions),
        }
    }

    fn authenticate(&mut self, identity: String, password: String, actions: &mut Vec<Action>) {
        if password.len() > PASSWORD_BYTES_MAX {
            return self.refuse_login(Refusal::Credentials, actions);
        }
        let password = Password(password);
        self.ask(
            WaitsFor::Authenticate,
            Action::Authenticate { identity, password },
            actions,
        );
    }

    pub(super) fn handle_authenticated(&mut self, verdict: &Verdict, actions: &mut Vec<Action>) {
        match verdict {
            Verdict::Accepted => self.ask(WaitsFor::Maildrop, Action::OpenMaildrop, actions),
            other => self.refuse_login(refusal(other), actions),
        }
    }

    pub(super) fn handle_maildrop(&mut self, verdict: Verdict, actions: &mut Vec<Action>) {
        match verdict {
            Verdict::Maildrop(entries) => {
                let maildrop = Maildrop::new(entries);
                let reply = format!("+OK {} messages", maildrop.count());
                self.state = State::Transaction(maildrop);
                self.reply(&reply);
            }
            other => self.refuse_login(refusal(&other), actions),
        }
    }

    fn refuse_login(&mut self, refusal: Refusal, actions: &mut Vec<Action>) {
        self.reply(refusal.reply());
        if refusal == Refusal::Credentials {
            self.auth_failures = self.auth_failures.saturating_add(1);
        } else {
            self.errors = self.errors.saturating_add(1);
        }
        let is_barred = refusal == Refusal::TooManyLogins;
        if is_barred || self.auth_failures >= POP3_AUTH_FAILURES_MAX || self.errors >= POP3_ERRORS_MAX {
            self.close(actions);
        }
    }

    fn may_log_in(&self) -> bool {
        self.config.plain_login || self.tls == Tls::Active
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 2). To act for another is not offered.
fn parse_plain(message: Vec<u8>) -> Option<(String, String)> {
    let text = String::from_utf8(message).ok()?;
    let mut pieces = text.split('\0');
    let (authorization, identity, password) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let complete = pieces.next().is_none() && !identity.is_empty() && !password.is_empty();
    let own = authorization.is_empty() || authorization == identity;
    let clean = !identity.contains(char::is_control);
    (complete && own && clean).then(|| (identity.to_owned(), password.to_owned()))
}
