//! Accounts, aliases and credentials as the front ends see them.
//!
//! Reads come from the local replica of the directory group; every *negative* answer (unknown recipient, wrong password)
//! is confirmed at the group's majority first, and where that cannot be reached the answer is "not now", never "no".
//!
//! Not here: mailboxes, protocols, the group's state machine (crate `state`).

mod login;
mod op_ids;
mod password;
mod recipients;
mod throttle;

pub use login::{Account, LoginError};
pub use op_ids::{OpIds, OpTicket};
pub use password::{PasswordCost, PasswordError, hash_password};
pub use recipients::{LookupError, Recipient};

use std::sync::Arc;
use std::time::Duration;

use core_types::{BlockingPool, Clock, Entropy, GroupId};
use raft::consensus::Consensus;
use state::{Command, DirectoryOp, Op, Outcome};

/// The directory group's face on this node. Clones share everything.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    groups: Arc<dyn Consensus>,
    pool: Arc<dyn BlockingPool>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    op_ids: Arc<OpIds>,
    passwords: password::Passwords,
    logins: login::LoginCache,
    throttle: throttle::Throttle,
}

/// What a [`Directory`] is made of.
pub struct Dependencies {
    /// The groups of this node.
    pub groups: Arc<dyn Consensus>,
    /// Where passwords are hashed.
    pub pool: Arc<dyn BlockingPool>,
    /// Wall clock for op times.
    pub clock: Arc<dyn Clock>,
    /// For salts and the cache's key.
    pub entropy: Arc<dyn Entropy>,
    /// The node's op ids.
    pub op_ids: Arc<OpIds>,
    /// What one password hash costs.
    pub cost: PasswordCost,
}

impl Directory {
    /// The directory as seen from this node.
    #[must_use]
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies {
            groups,
            pool,
            clock,
            entropy,
            op_ids,
            cost,
        } = dependencies;
        let logins = login::LoginCache::new(entropy.bytes());
        let passwords = password::Passwords::new(cost, Arc::clone(&pool));
        let throttle = throttle::Throttle::default();
        Self {
            inner: Arc::new(Inner {
                groups,
                pool,
                clock,
                entropy,
                op_ids,
                passwords,
                logins,
                throttle,
            }),
        }
    }

    /// Has the directory group carry out an op and returns its outcome.
    ///
    /// # Errors
    /// [`raft::consensus::ProposeError`].
    pub async fn propose(&self, op: DirectoryOp) -> Result<Outcome, raft::consensus::ProposeError> {
        let ticket = self.inner.op_ids.next(GroupId::DIRECTORY);
        let command = Command {
            op_id: ticket.op_id(),
            settled_below: ticket.settled_below(),
            time: self.inner.clock.now(),
            op: Op::Directory(op),
        };
        self.inner
            .groups
            .propose(GroupId::DIRECTORY, command, PROPOSE_TIMEOUT)
            .await
    }

    /// How many passwords were hashed to verify a login, since the process began. The same for each attempt that is
    /// not remembered, whether the account exists or not.
    #[must_use]
    pub fn password_checks(&self) -> u64 {
        self.inner.passwords.runs.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Hashes a password with this cluster's cost and a fresh salt.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash_password(&self, password: &[u8]) -> Result<String, PasswordError> {
        let salt = self.inner.entropy.bytes();
        password::hash_on_pool(&self.inner.pool, self.inner.passwords.cost(), password.to_vec(), salt).await
    }
}

/// How long an administrator's change may take before its outcome is called unknown.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
