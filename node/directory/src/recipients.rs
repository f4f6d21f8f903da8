//! Look-ups in the directory: recipients, accounts, domains.

use std::time::Duration;

use core_types::{Address, Domain, GroupId};
use raft::consensus::QueryError;
use state::ReadError;
use state::directory::{Reader, Resolution};
use state::rows::{AliasRow, DirectoryAccountRow, DomainRow};

use crate::{Account, Directory};

/// Who gets mail for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// These accounts here, and these addresses elsewhere (by an alias).
    Known {
        /// Accounts of ours, each once.
        accounts: Vec<Account>,
        /// Addresses of other domains.
        foreign: Vec<Address>,
    },
    /// Aliases lead too deep or to too many: an administrator must mend them.
    TooMany,
    /// Nobody: the domain is ours, and the directory's majority confirmed that it has no such address.
    Unknown,
    /// The domain is not ours, confirmed in the same way.
    NotLocal,
}

/// A look-up could not be answered; why. Try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the directory cannot answer now: {0}")]
pub struct LookupError(pub String);

impl Directory {
    /// Who gets mail for an address. A negative answer is confirmed at the majority.
    ///
    /// # Errors
    /// [`LookupError`], also where a negative answer cannot be confirmed.
    pub async fn recipient(&self, address: &Address) -> Result<Recipient, LookupError> {
        let found = self.query(|reader| reader.resolve(address)).await?;
        let settled = match &found {
            Resolution::Recipients(recipients) => recipients.accounts.iter().all(|account| account.active),
            Resolution::TooMany => true,
            Resolution::Unknown | Resolution::NotLocal => false,
        };
        let found = if settled {
            found
        } else {
            self.confirm().await?;
            self.query(|reader| reader.resolve(address)).await?
        };
        Ok(match found {
            Resolution::Recipients(recipients) => {
                if recipients.accounts.iter().any(|account| !account.active) {
                    return Err(LookupError("the account is being set up".to_owned()));
                }
                let accounts = recipients.accounts.iter().map(account_of).collect();
                Recipient::Known {
                    accounts,
                    foreign: recipients.remote,
                }
            }
            Resolution::TooMany => Recipient::TooMany,
            Resolution::Unknown => Recipient::Unknown,
            Resolution::NotLocal => Recipient::NotLocal,
        })
    }

    /// The account with this address, active or not.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn account(&self, address: &Address) -> Result<Option<DirectoryAccountRow>, LookupError> {
        self.query(|reader| reader.account_by_address(address)).await
    }

    /// Every account.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn accounts(&self) -> Result<Vec<DirectoryAccountRow>, LookupError> {
        self.query(|reader| reader.accounts(None, usize::MAX)).await
    }

    /// Every domain of ours.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn domains(&self) -> Result<Vec<DomainRow>, LookupError> {
        self.query(|reader| reader.domains()).await
    }

    /// Every alias.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn aliases(&self) -> Result<Vec<AliasRow>, LookupError> {
        self.query(|reader| reader.aliases()).await
    }

    /// Whether a domain is ours, as this node knows it.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn is_local(&self, domain: &Domain) -> Result<bool, LookupError> {
        self.query(|reader| reader.is_local_domain(domain)).await
    }

    /// Reads the local replica.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn query<T: Send>(
        &self,
        read: impl FnOnce(&Reader<'_>) -> Result<T, ReadError> + Send,
    ) -> Result<T, LookupError> {
        self.inner
            .groups
            .query(GroupId::DIRECTORY, |view| read(&Reader::new(view)))
            .await
            .map_err(|error| match error {
                QueryError::Unavailable(unavailable) => LookupError(unavailable.to_string()),
                QueryError::State(error) => LookupError(error.to_string()),
            })
    }

    /// Returns once the local replica has everything that was acknowledged before.
    ///
    /// # Errors
    /// [`LookupError`] when no majority answers in time.
    pub async fn confirm(&self) -> Result<(), LookupError> {
        let barrier = self
            .inner
            .groups
            .read_barrier(GroupId::DIRECTORY, CONFIRM_TIMEOUT)
            .await;
        barrier.map_err(|error| LookupError(error.to_string()))
    }
}

fn account_of(row: &DirectoryAccountRow) -> Account {
    Account {
        id: row.account,
        address: row.address.clone(),
        group: row.group,
    }
}

/// How long a negative answer waits for its confirmation: below the patience of SMTP clients.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
