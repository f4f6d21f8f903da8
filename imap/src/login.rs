//! Capabilities, STARTTLS, LOGIN, AUTHENTICATE (RFC 3501 6.1.1, 6.2).
//!
//! A password is not looked at where it should not have been sent (LOGINDISABLED), and clear octets that came with
//! STARTTLS are never run (CVE-2021-33515).

use core_types::limits::IMAP_AUTH_FAILURES_MAX;
use imap_proto::command::Secret;
use imap_proto::{Code, CommandReader, Tag};

use crate::errors::{Answer, End, Failure, login_failure};
use crate::session::{Login, Session, UnderWay};

impl Session {
    /// What can be done now. It changes with TLS and with the login.
    pub(crate) fn capabilities(&self) -> Vec<&'static str> {
        let mut capabilities = vec!["IMAP4rev1", "LITERAL+", "SASL-IR", "ID"];
        if self.login.is_none() {
            if self.tls.is_some() {
                capabilities.push("STARTTLS");
            }
            capabilities.push(if self.may_log_in() {
                "AUTH=PLAIN"
            } else {
                "LOGINDISABLED"
            });
        } else {
            capabilities.extend(AFTER_LOGIN);
        }
        capabilities
    }

    pub(crate) async fn starttls(&mut self, tag: &Tag, nothing_follows: bool) -> Result<Answer, Failure> {
        if self.login.is_some() {
            return Err(Answer::bad("TLS can only begin before login").into());
        }
        if self.secure {
            return Err(Answer::bad("TLS is on already").into());
        }
        let Some(tls) = self.tls.clone() else {
            return Err(Answer::bad("TLS is not offered here").into());
        };
        if !nothing_follows || self.client.has_pending() {
            return Err(End::Bye("Octets behind STARTTLS before TLS began").into());
        }
        self.client.answer(tag, &Answer::ok("Begin TLS now")).await?;
        self.client.flush().await?;
        let stream = self.client.take_stream();
        let stream = tls.accept(stream).await.map_err(|error| {
            tracing::info!(peer = %self.peer, %error, "TLS failed");
            End::Gone
        })?;
        self.client.set_stream(stream);
        self.reader = CommandReader::new(false);
        self.secure = true;
        self.tls = None;
        // What the client learned before counts no longer (RFC 3501 6.2.1).
        let capabilities = self.capabilities();
        self.client.say(|encoder| encoder.capability(&capabilities)).await?;
        Err(Failure::Done)
    }

    pub(crate) async fn authenticate(
        &mut self,
        tag: &Tag,
        mechanism: &str,
        initial: Option<Secret>,
    ) -> Result<Answer, Failure> {
        self.check_may_log_in()?;
        if mechanism != "PLAIN" {
            return Err(Answer::no(Code::Cannot, "Unknown mechanism").into());
        }
        if let Some(message) = initial {
            return self.authenticate_plain(&message).await;
        }
        self.client.say(|encoder| encoder.continuation("")).await?;
        self.client.flush().await?;
        self.reader.begin_authenticate(tag.clone());
        self.under_way = UnderWay::Authenticate(tag.clone());
        Err(Failure::Done)
    }

    /// RFC 4616: `[authzid] NUL authcid NUL passwd`.
    pub(crate) async fn authenticate_plain(&mut self, message: &Secret) -> Result<Answer, Failure> {
        let mut fields = message.0.split(|&octet| octet == 0);
        let (Some(authorize), Some(name), Some(password), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(Answer::bad("Not a message of PLAIN").into());
        };
        if !authorize.is_empty() && authorize != name {
            return Err(Answer::no(Code::AuthorizationFailed, "Nobody acts for somebody else here").into());
        }
        let password = Secret(password.to_vec());
        self.log_in(name, &password).await
    }

    pub(crate) async fn log_in(&mut self, name: &[u8], password: &Secret) -> Result<Answer, Failure> {
        self.check_may_log_in()?;
        // A name that is not UTF-8 is nobody's; it takes the same way as any other unknown one.
        let name = String::from_utf8_lossy(name);
        let directory = self.context.mail.directory().clone();
        let account = match Box::pin(directory.authenticate(&name, &password.0, self.peer)).await {
            Ok(account) => account,
            Err(error) => {
                self.failed_logins += 1;
                if self.failed_logins >= IMAP_AUTH_FAILURES_MAX {
                    return Err(End::Bye("Too many failed logins").into());
                }
                return Err(login_failure(&error));
            }
        };
        let Some(permit) = self.context.shared.admit(account.id) else {
            return Err(Answer::no(Code::Limit, "The account has too many sessions here").into());
        };
        self.reader.set_logged_in();
        self.login = Some(Login {
            mail: self.context.mail.account(&account),
            mailbox: None,
            _permit: permit,
        });
        Ok(Answer::ok_with(Code::Capability(self.capabilities()), "Logged in"))
    }

    fn check_may_log_in(&self) -> Result<(), Failure> {
        if self.login.is_some() {
            return Err(Answer::bad("Logged in already").into());
        }
        if !self.may_log_in() {
            return Err(Answer::no(Code::PrivacyRequired, "Begin TLS before you log in").into());
        }
        Ok(())
    }

    fn may_log_in(&self) -> bool {
        self.secure || self.plain_login
    }
}

/// Capabilities that matter only after login.
const AFTER_LOGIN: [&str; 10] = [
    "UIDPLUS",
    "MOVE",
    "UNSELECT",
    "IDLE",
    "NAMESPACE",
    "CHILDREN",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
];
