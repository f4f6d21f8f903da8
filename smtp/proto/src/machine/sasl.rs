//! AUTH (RFC 4954) with PLAIN (RFC 4616) and LOGIN.
//!
//! Names and passwords are data: decoded, checked for length and UTF-8, and asked about as they are. Each exchange ends
//! with one reply, and its memory is gone with the state. Not here: whether the password is right.

use base64::{Engine, engine::general_purpose::STANDARD};
use core_types::limits::{PASSWORD_BYTES_MAX, SASL_BYTES_MAX};

use super::{Action, Machine, Password, Role, State, Verdict, commands, push_reply};
use crate::reply::{Enhanced, Reply};

/// What the next line of the client is.
#[derive(Debug)]
pub(super) enum Sasl {
    Plain,
    LoginName,
    LoginPassword { identity: String },
}

/// RFC 4954 6: the same for each reason.
pub(super) const INVALID: Reply = Reply::new(535, Enhanced(5, 7, 8), "Authentication credentials invalid");
const MALFORMED: Reply = Reply::new(501, Enhanced(5, 5, 2), "Cannot decode the response");
const CANCELLED: Reply = Reply::new(501, Enhanced(5, 7, 0), "Authentication cancelled");
const MECHANISM: Reply = Reply::new(504, Enhanced(5, 5, 4), "Unknown authentication mechanism");
const ENCRYPTION: Reply = Reply::new(538, Enhanced(5, 7, 11), "Encryption required for authentication");
const TWICE: Reply = Reply::new(503, Enhanced(5, 5, 1), "Already authenticated");
const IN_TRANSACTION: Reply = Reply::new(503, Enhanced(5, 5, 1), "Not during a transaction");
const SUCCESS: Reply = Reply::new(235, Enhanced(2, 7, 0), "Authentication successful");

impl Machine {
    pub(super) fn auth(&mut self, argument: &[u8], out: &mut Vec<Action>) {
        let refusal = match &self.state {
            _ if self.config.role != Role::Submission => Some(commands::NOT_IMPLEMENTED),
            _ if self.session.hello.is_none() => Some(commands::HELLO_FIRST),
            _ if self.session.identity.is_some() => Some(TWICE),
            State::Idle if !self.may_login() => Some(ENCRYPTION),
            State::Idle => None,
            _ => Some(IN_TRANSACTION),
        };
        if let Some(refusal) = refusal {
            return self.refuse(&refusal, out);
        }
        let mut words = argument.splitn(2, |byte| *byte == b' ');
        let sasl = match words.next().unwrap_or_default().to_ascii_uppercase().as_slice() {
            b"PLAIN" => Sasl::Plain,
            b"LOGIN" => Sasl::LoginName,
            b"" => return self.refuse(&commands::ARGUMENT, out),
            _ => return self.refuse(&MECHANISM, out),
        };
        match words.next() {
            // RFC 4954 4: `=` is an empty initial response.
            Some(b"=") => self.step(sasl, Vec::new(), out),
            Some(response) => self.respond(sasl, response, out),
            None => self.challenge(sasl, out),
        }
    }

    /// A line of the client within an exchange.
    pub(super) fn sasl_line(&mut self, line: &[u8], out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Sasl(_) if line == b"*" => self.refuse(&CANCELLED, out),
            State::Sasl(sasl) => self.respond(sasl, line, out),
            other => self.state = other,
        }
    }

    fn challenge(&mut self, sasl: Sasl, out: &mut Vec<Action>) {
        let text = match sasl {
            Sasl::Plain => "",
            Sasl::LoginName => "VXNlcm5hbWU6",
            Sasl::LoginPassword { .. } => "UGFzc3dvcmQ6",
        };
        push_reply(&Reply::bare(334, text.into()), out);
        self.state = State::Sasl(sasl);
    }

    fn respond(&mut self, sasl: Sasl, response: &[u8], out: &mut Vec<Action>) {
        if response.len() > SASL_BYTES_MAX {
            return self.refuse(&INVALID, out);
        }
        match STANDARD.decode(response) {
            Ok(decoded) => self.step(sasl, decoded, out),
            Err(_) => self.refuse(&MALFORMED, out),
        }
    }

    fn step(&mut self, sasl: Sasl, response: Vec<u8>, out: &mut Vec<Action>) {
        let Ok(response) = String::from_utf8(response) else {
            return self.refuse(&INVALID, out);
        };
        match sasl {
            Sasl::Plain => {
                // RFC 4616 2: authorization identity, NUL, authentication identity, NUL, password.
                let mut fields = response.splitn(3, '\0');
                let (Some(acting), Some(identity), Some(password)) = (fields.next(), fields.next(), fields.next())
                else {
                    return self.refuse(&MALFORMED, out);
                };
                // Nobody acts for another here.
                if !acting.is_empty() && acting != identity {
                    return self.refuse(&INVALID, out);
                }
                self.ask(identity.to_owned(), password.to_owned(), out);
            }
            Sasl::LoginName => self.challenge(Sasl::LoginPassword { identity: response }, out),
            Sasl::LoginPassword { identity } => self.ask(identity, response, out),
        }
    }

    fn ask(&mut self, identity: String, password: String, out: &mut Vec<Action>) {
        // A name with control characters is nobody's, and would only do harm in logs and trace fields.
        let is_name = !identity.is_empty() && !identity.chars().any(char::is_control);
        let is_password = !password.is_empty() && password.len() <= PASSWORD_BYTES_MAX && !password.contains('\0');
        if !is_name || !is_password {
            return self.refuse(&INVALID, out);
        }
        out.push(Action::Authenticate {
            identity: identity.clone(),
            password: Password(password),
        });
        self.state = State::AskAuth(identity);
    }

    pub(super) fn auth_verdict(&mut self, identity: String, verdict: Verdict, out: &mut Vec<Action>) {
        match commands::negative(verdict) {
            None => {
                self.session.identity = Some(identity);
                push_reply(&SUCCESS, out);
            }
            // RFC 5321 3.8: after a 421 the server closes; what the client has sent ahead is not carried out.
            Some(reply) if reply.code == 421 => self.close(&reply, out),
            Some(reply) => self.refuse(&reply, out),
        }
    }
}
