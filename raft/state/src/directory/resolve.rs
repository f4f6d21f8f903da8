//! Who gets mail for an address: the account of that name, or what its alias says, or the account of the part before a
//! `+` (RFC 5233 subaddresses); for `postmaster`, which every domain must take (RFC 5321 4.5.1), also the address in the
//! setting [`POSTMASTER_SETTING`].
//!
//! Bounded: aliases in aliases go [`ALIAS_DEPTH_MAX`] deep, a loop is left at its first repetition, and more than
//! [`ALIAS_RECIPIENTS_MAX`] recipients are an error of the one who set the alias.

use std::collections::BTreeSet;

use core_types::limits::{ALIAS_DEPTH_MAX, ALIAS_RECIPIENTS_MAX};
use core_types::{AccountId, Address};

use crate::directory::Reader;
use crate::rows::DirectoryAccountRow;
use crate::store::ReadError;

/// The setting that holds the address for `postmaster@` every domain of ours that has no such account or alias.
pub const POSTMASTER_SETTING: &str = "postmaster";

/// Who gets mail for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// These do.
    Recipients(Recipients),
    /// The domain is ours, and nobody there has that address. To be confirmed at the directory's majority.
    Unknown,
    /// The domain is not ours (as far as this replica knows).
    NotLocal,
    /// Aliases lead too deep or to too many recipients.
    TooMany,
}

/// The recipients behind an address, each once; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// Accounts of ours. One that is not active yet cannot take mail now.
    pub accounts: Vec<DirectoryAccountRow>,
    /// Addresses elsewhere, to which aliases lead.
    pub remote: Vec<Address>,
}

pub(crate) fn resolve(reader: &Reader<'_>, address: &Address) -> Result<Resolution, ReadError> {
    if !reader.is_local_domain(&address.domain)? {
        return Ok(Resolution::NotLocal);
    }
    let mut search = Search {
        reader,
        seen: BTreeSet::new(),
        accounts: BTreeSet::new(),
        found: Recipients::default(),
    };
    let within_limits = search.follow(address, 0)?;
    if !within_limits {
        return Ok(Resolution::TooMany);
    }
    if search.found.accounts.is_empty() && search.found.remote.is_empty() {
        return Ok(Resolution::Unknown);
    }
    Ok(Resolution::Recipients(search.found))
}

struct Search<'a> {
    reader: &'a Reader<'a>,
    seen: BTreeSet<Address>,
    accounts: BTreeSet<AccountId>,
    found: Recipients,
}

impl Search<'_> {
    /// Adds everybody behind an address. `false` when a limit was passed.
    fn follow(&mut self, address: &Address, depth: usize) -> Result<bool, ReadError> {
        if !self.seen.insert(address.folded()) {
            return Ok(true);
        }
        if depth > ALIAS_DEPTH_MAX || self.seen.len() > 2 * ALIAS_RECIPIENTS_MAX {
            return Ok(false);
        }
        if !self.reader.is_local_domain(&address.domain)? {
            self.found.remote.push(address.clone());
            return Ok(self.is_within_limit());
        }
        for name in spellings(address) {
            if let Some(row) = self.reader.account_by_address(&name)? {
                if self.accounts.insert(row.account) {
                    self.found.accounts.push(row);
                }
                return Ok(self.is_within_limit());
            }
            if let Some(alias) = self.reader.alias(&name)? {
                for target in &alias.targets {
                    if !self.follow(target, depth + 1)? {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
        }
        if address.local_part.folded() == "postmaster"
            && let Some(text) = self.reader.setting(POSTMASTER_SETTING)?
            && let Ok(postmaster) = Address::parse(&text)
        {
            return self.follow(&postmaster, depth + 1);
        }
        Ok(true)
    }

    fn is_within_limit(&self) -> bool {
        self.found.accounts.len() + self.found.remote.len() <= ALIAS_RECIPIENTS_MAX
    }
}

/// The address itself, then without its subaddress.
fn spellings(address: &Address) -> impl Iterator<Item = Address> {
    let user = address
        .local_part
        .as_str()
        .split_once('+')
        .map(|(user, _)| user)
        .filter(|user| !user.is_empty());
    let plain = user
        .and_then(|user| core_types::LocalPart::parse(user).ok())
        .map(|local_part| Address {
            local_part,
            domain: address.domain.clone(),
        });
    std::iter::once(address.clone()).chain(plain)
}
