//! The TRANSACTION state (RFC 1939 5 and 7).
//!
//! Listings are sent in steps: the server asks for the next one when the last is on its way.

use super::maildrop::Kind;
use super::*;

impl Machine {
    pub(super) fn handle_transaction(&mut self, command: &Command, actions: &mut Vec<Action>) {
        let State::Transaction(maildrop) = &mut self.state else {
            return;
        };
        match command {
            Command::Noop => self.reply("+OK"),
            Command::Stat => {
                let reply = format!("+OK {} {}", maildrop.count(), maildrop.size());
                self.reply(&reply);
            }
            Command::Rset => {
                maildrop.reset();
                let reply = format!("+OK {} messages", maildrop.count());
                self.reply(&reply);
            }
            Command::List(None) => self.begin_list(Kind::List, actions),
            Command::Uidl(None) => self.begin_list(Kind::Uidl, actions),
            Command::List(Some(number)) => {
                let reply = maildrop
                    .find(*number)
                    .map(|(_, entry)| format!("+OK {number} {}", entry.size));
                self.reply_or_no_message(reply, actions);
            }
            Command::Uidl(Some(number)) => {
                let reply = maildrop
                    .find(*number)
                    .map(|(_, entry)| format!("+OK {number} {}", uidl(entry.guid)));
                self.reply_or_no_message(reply, actions);
            }
            Command::Dele(number) => {
                let found = maildrop.find(*number).map(|(index, _)| index);
                if let Some(index) = found {
                    maildrop.delete(index);
                }
                self.reply_or_no_message(found.map(|_| "+OK deleted at QUIT".to_owned()), actions);
            }
            Command::Retr(number) => match maildrop.find(*number) {
                Some((index, _)) => {
                    self.ask(
                        WaitsFor::Message { index, lines: None },
                        Action::Retrieve { index },
                        actions,
                    );
                }
                None => self.reply_or_no_message(None, actions),
            },
            Command::Top(number, lines) => match maildrop.find(*number) {
                Some((index, _)) => {
                    let waits_for = WaitsFor::Message {
                        index,
                        lines: Some(*lines),
                    };
                    self.ask(waits_for, Action::Top { index, lines: *lines }, actions);
                }
                None => self.reply_or_no_message(None, actions),
            },
            Command::User(_) | Command::Pass(_) | Command::Auth(..) | Command::Stls => {
                self.error("-ERR logged in already", actions);
            }
            // Both are handled for all states.
            Command::Capa | Command::Quit => {}
        }
    }

    fn reply_or_no_message(&mut self, reply: Option<String>, actions: &mut Vec<Action>) {
        match reply {
            Some(reply) => self.reply(&reply),
            None => self.error("-ERR no such message", actions),
        }
    }

    pub(super) fn handle_message(
        &mut self,
        index: usize,
        lines: Option<u64>,
        verdict: &Verdict,
        actions: &mut Vec<Action>,
    ) {
        if *verdict != Verdict::Accepted {
            return self.error(refusal(verdict).reply(), actions);
        }
        let State::Transaction(maildrop) = &self.state else {
            return;
        };
        let size = maildrop.at(index).map_or(0, |entry| entry.size);
        let (reply, encoder) = match lines {
            None => (format!("+OK {size} octets"), MessageEncoder::whole()),
            Some(lines) => ("+OK".to_owned(), MessageEncoder::top(lines)),
        };
        self.reply(&reply);
        self.ask(WaitsFor::Sent, Action::SendMessage { index, encoder }, actions);
    }

    fn begin_list(&mut self, kind: Kind, actions: &mut Vec<Action>) {
        self.reply("+OK");
        self.list(Listing { kind, next: 0 }, actions);
    }

    /// Sends the next step of a listing.
    pub(super) fn list(&mut self, mut listing: Listing, actions: &mut Vec<Action>) {
        let State::Transaction(maildrop) = &self.state else {
            return;
        };
        while listing.next < maildrop.len() && self.out.len() < POP3_OUTPUT_STEP_BYTES {
            let number = listing.next.saturating_add(1);
            if let Some(entry) = maildrop.at(listing.next) {
                let line = match listing.kind {
                    Kind::List => format!("{number} {}\r\n", entry.size),
                    Kind::Uidl => format!("{number} {}\r\n", uidl(entry.guid)),
                };
                self.out.extend_from_slice(line.as_bytes());
            }
            listing.next = number;
        }
        if listing.next < maildrop.len() {
            self.ask(WaitsFor::Resume(Some(listing)), Action::Resume, actions);
        } else {
            self.reply(".");
        }
    }
}
