//! Accounts and aliases of the directory. An address belongs to one of them, whatever its case.

use core_types::limits::ALIAS_RECIPIENTS_MAX;
use core_types::{AccountId, Address, GroupId};

use crate::apply::tx::{Halt, Tx, refuse};
use crate::directory::apply::{domain_of, no_such, reader};
use crate::keys::{self, Space};
use crate::manifest;
use crate::outcome::{Outcome, Refusal};
use crate::rows::{AliasRow, Credential, DirectoryAccountRow, DomainRow, GroupRow};

pub(crate) fn add(
    tx: &mut Tx<'_>,
    account: AccountId,
    address: &Address,
    group: Option<GroupId>,
    credential: &Credential,
    quota_bytes: Option<u64>,
) -> Result<Outcome, Halt> {
    let domain = domain_of(tx, address)?;
    let is_taken = tx.exists(&keys::by_address(Space::Address, address))?
        || tx.exists(&keys::by_address(Space::Alias, address))?
        || tx.exists(&keys::directory_account(account))?;
    if is_taken {
        return refuse(Refusal::AlreadyExists);
    }
    let home = home_group(tx, group)?;
    let group = home.group;
    let line = manifest::address(account, address);
    let (address, credential) = (address.clone(), credential.clone());
    tx.put(keys::by_address(Space::Address, &address), &account)?;
    let row = DirectoryAccountRow {
        account,
        address,
        group,
        credential,
        quota_bytes,
        active: false,
    };
    tx.put(keys::directory_account(account), &row)?;
    tx.put(
        keys::group(group),
        &GroupRow {
            account_count: home.account_count.saturating_add(1),
            ..home
        },
    )?;
    count_address(tx, domain, true)?;
    tx.manifest(line);
    Ok(Outcome::AccountAdded { group })
}

pub(crate) fn activate(tx: &mut Tx<'_>, account: AccountId) -> Result<Outcome, Halt> {
    let row = existing(tx, account)?;
    tx.put(
        keys::directory_account(account),
        &DirectoryAccountRow { active: true, ..row },
    )?;
    Ok(Outcome::Done)
}

pub(crate) fn set_credential(tx: &mut Tx<'_>, account: AccountId, credential: &Credential) -> Result<Outcome, Halt> {
    let row = existing(tx, account)?;
    let credential = credential.clone();
    tx.put(
        keys::directory_account(account),
        &DirectoryAccountRow { credential, ..row },
    )?;
    Ok(Outcome::Done)
}

pub(crate) fn remove(tx: &mut Tx<'_>, account: AccountId) -> Result<Outcome, Halt> {
    let row = existing(tx, account)?;
    let domain = domain_of(tx, &row.address)?;
    tx.delete(keys::directory_account(account));
    tx.delete(keys::by_address(Space::Address, &row.address));
    count_address(tx, domain, false)?;
    if let Some(group) = reader(tx).group(row.group)? {
        let account_count = group.account_count.saturating_sub(1);
        tx.put(keys::group(group.group), &GroupRow { account_count, ..group })?;
    }
    Ok(Outcome::Done)
}

pub(crate) fn set_alias(tx: &mut Tx<'_>, address: &Address, targets: &[Address]) -> Result<Outcome, Halt> {
    let domain = domain_of(tx, address)?;
    if targets.is_empty() {
        return refuse(Refusal::Invalid("an alias without a target".to_owned()));
    }
    if targets.len() > ALIAS_RECIPIENTS_MAX {
        return refuse(Refusal::Limit("ALIAS_RECIPIENTS_MAX".to_owned()));
    }
    if tx.exists(&keys::by_address(Space::Address, address))? {
        return refuse(Refusal::AlreadyExists);
    }
    let key = keys::by_address(Space::Alias, address);
    if !tx.exists(&key)? {
        count_address(tx, domain, true)?;
    }
    tx.put(
        key,
        &AliasRow {
            address: address.clone(),
            targets: targets.to_vec(),
        },
    )?;
    Ok(Outcome::Done)
}

pub(crate) fn remove_alias(tx: &mut Tx<'_>, address: &Address) -> Result<Outcome, Halt> {
    let key = keys::by_address(Space::Alias, address);
    if !tx.exists(&key)? {
        return refuse(no_such("alias", address));
    }
    tx.delete(key);
    let domain = domain_of(tx, address)?;
    count_address(tx, domain, false)?;
    Ok(Outcome::Done)
}

fn existing(tx: &Tx<'_>, account: AccountId) -> Result<DirectoryAccountRow, Halt> {
    Ok(reader(tx)
        .account(account)?
        .ok_or_else(|| no_such("account", &account))?)
}

/// The group that was asked for, or the one of the first site with the fewest accounts (the lowest of several).
fn home_group(tx: &Tx<'_>, wanted: Option<GroupId>) -> Result<GroupRow, Halt> {
    if let Some(wanted) = wanted {
        let row = reader(tx).group(wanted)?.filter(|row| row.site.is_some());
        return Ok(row.ok_or_else(|| no_such("mailbox group", &wanted))?);
    }
    let groups = reader(tx).groups()?;
    let first_site = groups.iter().filter_map(|row| row.site).min();
    let of_first_site = groups
        .into_iter()
        .filter(|row| row.site.is_some() && row.site == first_site);
    let emptiest = of_first_site.min_by_key(|row| (row.account_count, row.group));
    Ok(emptiest.ok_or_else(|| Refusal::NoSuchObject("mailbox group".to_owned()))?)
}

fn count_address(tx: &mut Tx<'_>, row: DomainRow, is_more: bool) -> Result<(), Halt> {
    let address_count = if is_more {
        row.address_count.saturating_add(1)
    } else {
        row.address_count.saturating_sub(1)
    };
    tx.put(
        keys::domain(&row.domain),
        &DomainRow {
            address_count,
            domain: row.domain.clone(),
        },
    )?;
    Ok(())
}
