//! Reading the directory.

use core_types::{AccountId, Address, Domain, GroupId, KvRead, NodeId};

use crate::directory::resolve::{self, Resolution};
use crate::keys::{self, Space};
use crate::rows::{
    AliasRow, ClusterRow, DirectoryAccountRow, DomainRow, GroupRow, JoinTokenRow, NodeDuty, NodeRow, RemovedNodeRow,
    SiteRow,
};
use crate::store::{self, ReadError};

/// Reads the directory group's state. Every method fails with [`ReadError`] when the engine does or the state is damaged.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    view: &'a dyn KvRead,
}

#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl<'a> Reader<'a> {
    /// Reads this view, which shows the group's logical keys only.
    #[must_use]
    pub fn new(view: &'a dyn KvRead) -> Self {
        Self { view }
    }

    /// The cluster; `None` before it was founded.
    pub fn cluster(&self) -> Result<Option<ClusterRow>, ReadError> {
        store::load(self.view, &keys::cluster())
    }

    /// All sites, by id.
    pub fn sites(&self) -> Result<Vec<SiteRow>, ReadError> {
        store::list(self.view, &Space::Site.range(&[]), usize::MAX)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, ReadError> {
        store::list(self.view, &Space::Node.range(&[]), usize::MAX)
    }

    /// A node.
    pub fn node(&self, node: NodeId) -> Result<Option<NodeRow>, ReadError> {
        store::load(self.view, &keys::node(node))
    }

    /// What a node's replicas are for.
    pub fn duty(&self, node: NodeId) -> Result<NodeDuty, ReadError> {
        Ok(store::load(self.view, &keys::node_duty(node))?.unwrap_or_default())
    }

    /// All nodes that were ever removed, by id.
    pub fn removed_nodes(&self) -> Result<Vec<RemovedNodeRow>, ReadError> {
        store::list(self.view, &Space::RemovedNode.range(&[]), usize::MAX)
    }

    /// A node that was removed.
    pub fn removed_node(&self, node: NodeId) -> Result<Option<RemovedNodeRow>, ReadError> {
        store::load(self.view, &keys::removed_node(node))
    }

    /// The groups that an administrator has placed by hand, by id.
    pub fn pinned_groups(&self) -> Result<Vec<GroupId>, ReadError> {
        store::list(self.view, &Space::Pinned.range(&[]), usize::MAX)
    }

    /// All groups, by id; the directory group is the first.
    pub fn groups(&self) -> Result<Vec<GroupRow>, ReadError> {
        store::list(self.view, &Space::Group.range(&[]), usize::MAX)
    }

    /// A group.
    pub fn group(&self, group: GroupId) -> Result<Option<GroupRow>, ReadError> {
        store::load(self.view, &keys::group(group))
    }

    /// All domains of ours, by name.
    pub fn domains(&self) -> Result<Vec<DomainRow>, ReadError> {
        store::list(self.view, &Space::Domain.range(&[]), usize::MAX)
    }

    /// Whether a domain is ours.
    pub fn is_local_domain(&self, domain: &Domain) -> Result<bool, ReadError> {
        Ok(self.view.get(&keys::domain(domain))?.is_some())
    }

    /// An account.
    pub fn account(&self, account: AccountId) -> Result<Option<DirectoryAccountRow>, ReadError> {
        store::load(self.view, &keys::directory_account(account))
    }

    /// The account with exactly that address, whatever its case; aliases and subaddresses are not looked at.
    pub fn account_by_address(&self, address: &Address) -> Result<Option<DirectoryAccountRow>, ReadError> {
        let id: Option<AccountId> = store::load(self.view, &keys::by_address(Space::Address, address))?;
        let Some(id) = id else { return Ok(None) };
        let key = keys::directory_account(id);
        let row = store::load(self.view, &key)?;
        row.map(Some)
            .ok_or_else(|| store::corrupt(&key, "an address of an account that is not there"))
    }

    /// Accounts above `after`, at most `limit`, in the order of their ids.
    pub fn accounts(&self, after: Option<AccountId>, limit: usize) -> Result<Vec<DirectoryAccountRow>, ReadError> {
        let (mut from, to) = Space::DirectoryAccount.range(&[]);
        if let Some(after) = after {
            from = keys::directory_account(after);
            from.push(0);
        }
        store::list(self.view, &(from, to), limit)
    }

    /// The alias with exactly that address, whatever its case.
    pub fn alias(&self, address: &Address) -> Result<Option<AliasRow>, ReadError> {
        store::load(self.view, &keys::by_address(Space::Alias, address))
    }

    /// All aliases, by domain and local part.
    pub fn aliases(&self) -> Result<Vec<AliasRow>, ReadError> {
        store::list(self.view, &Space::Alias.range(&[]), usize::MAX)
    }

    /// Who gets mail for an address.
    pub fn resolve(&self, address: &Address) -> Result<Resolution, ReadError> {
        resolve::resolve(self, address)
    }

    /// What a join token allows, by its public key.
    pub fn join_token(&self, token_key: &[u8; 32]) -> Result<Option<JoinTokenRow>, ReadError> {
        store::load(self.view, &keys::join_token(token_key))
    }

    /// All join tokens, spent and expired ones too.
    pub fn join_tokens(&self) -> Result<Vec<JoinTokenRow>, ReadError> {
        store::list(self.view, &Space::JoinToken.range(&[]), usize::MAX)
    }

    /// A cluster-wide setting.
    pub fn setting(&self, name: &str) -> Result<Option<String>, ReadError> {
        store::load(self.view, &keys::setting(name))
    }

    /// All cluster-wide settings, by name.
    pub fn settings(&self) -> Result<Vec<(String, String)>, ReadError> {
        let mut settings = Vec::new();
        store::scan(self.view, &Space::Setting.range(&[]), &mut |key, value| {
            settings.push((store::text(key, 1)?.to_owned(), value));
            Ok(true)
        })?;
        Ok(settings)
    }
}
