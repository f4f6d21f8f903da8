//! The shapes of the admin API, version 1. `everpost --json` prints them as they are.

use serde::{Deserialize, Serialize};

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `ok`, `warning` or `error`: the worst of the checks.
    pub health: Health,
    /// The node that answers.
    pub node: u64,
    /// The cluster, hexadecimal.
    pub cluster: String,
    /// The program's version.
    pub version: String,
    /// Every node of the cluster.
    pub nodes: Vec<NodeStatus>,
    /// Every group with a replica on this node.
    pub groups: Vec<GroupStatus>,
    /// The blobs on this node.
    pub blobs: BlobStatus,
    /// This node's disk.
    pub disk: DiskStatus,
    /// Entries in the queues of this node's groups.
    pub queue: u64,
    /// What is not as it should be.
    pub checks: Vec<Check>,
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Ok,
    /// Mail works; something needs attention.
    Warning,
    /// Something does not work.
    Error,
}

/// One node, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// The site's name.
    pub site: String,
    /// Where its cluster port is.
    pub address: String,
    /// `self`, `connected`, `relayed` (reached through another node) or `unreachable`.
    pub state: String,
    /// Microseconds of a round trip, where there is a connection.
    pub rtt_micros: Option<u64>,
    /// `active`, or `leaving`: it is drained, or being drained.
    pub duty: String,
}

/// One group's replica on the answering node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its id; 0 is the directory.
    pub group: u32,
    /// `leader`, `follower`, `learner`, `candidate` or `closed`.
    pub role: String,
    /// The leader, as far as this replica knows.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// The last entry of the log here.
    pub last_log: u64,
    /// The last entry applied here.
    pub applied: u64,
    /// Those that vote.
    pub voters: Vec<u64>,
    /// Those that only follow.
    pub learners: Vec<u64>,
    /// On the leader: how many entries each other replica is behind.
    pub lag: Vec<(u64, u64)>,
    /// The state's digest, hexadecimal, at `applied`.
    pub digest: String,
    /// Why the replica is closed, if it is.
    pub closed: Option<String>,
}

/// The blobs of the answering node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobStatus {
    /// Files.
    pub count: u64,
    /// Their octets on disk.
    pub bytes: u64,
    /// Blobs that fewer voters than wanted are known to have. After a start nothing is known of a voter that has not answered yet.
    pub under_replicated: u64,
    /// Copies found damaged since the start.
    pub corrupt: u64,
    /// Blobs that are durable in the journal, and do not have their own file yet.
    pub journal_backlog: u64,
}

/// The disk of the answering node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Octets that can still be written.
    pub free_bytes: u64,
    /// Octets of the index.
    pub index_bytes: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The code, such as `NODE_UNREACHABLE`.
    pub code: String,
    /// How bad.
    pub severity: Health,
    /// What is wrong.
    pub message: String,
    /// One sentence that says what to do.
    pub advice: String,
}

/// `GET /v1/domains`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The domain.
    pub domain: String,
    /// Accounts and aliases in it.
    pub addresses: u64,
}

/// `GET /v1/accounts`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The address, which is also the login name.
    pub address: String,
    /// Its id, hexadecimal.
    pub id: String,
    /// The group that holds its mailboxes.
    pub group: u32,
    /// Octets it may keep.
    pub quota_bytes: Option<u64>,
    /// Octets it keeps.
    pub used_bytes: u64,
    /// Messages it keeps.
    pub messages: u64,
    /// `active` or `pending` (its mailboxes are not made yet).
    pub state: String,
}

/// `POST /v1/accounts`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The address.
    pub address: String,
    /// The password.
    pub password: String,
    /// Octets it may keep; nothing for no limit.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
}

/// `PUT /v1/accounts/{address}/password`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The password.
    pub password: String,
}

/// `POST /v1/domains`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDomain {
    /// The domain.
    pub domain: String,
}

/// `GET /v1/aliases`, `PUT /v1/aliases`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The alias.
    pub address: String,
    /// Where its mail goes.
    pub targets: Vec<String>,
}

/// `POST /v1/nodes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// The name that the node will have.
    pub name: String,
}

/// The answer to `POST /v1/nodes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// What `everpost node join --token` takes.
    pub token: String,
    /// For how many seconds it is good.
    pub valid_seconds: u64,
}

/// `GET /v1/queue`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its id, hexadecimal.
    pub id: String,
    /// The group that keeps it.
    pub group: u32,
    /// MAIL FROM; empty for the null reverse-path.
    pub from: String,
    /// Its recipients with their states.
    pub recipients: Vec<(String, String)>,
    /// Octets.
    pub size: u64,
    /// Milliseconds since 1970 when it came.
    pub created: u64,
    /// When it is tried next.
    pub next_attempt: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it is held, if it is.
    pub held: Option<String>,
}

/// Any failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed.
    pub error: FailureDetail,
}

/// The inside of [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDetail {
    /// The exit code that the command line gives: see `docs/operations.md`.
    pub exit_code: u8,
    /// A word for programs, such as `no_such_object`.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
}

/// `GET /v1/nodes/{node}/departure`: how far a node is on its way out, and what its removal would cost now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// `active`; `draining` (it is to vote nowhere); `drained` (nothing depends on it any more: it may be removed);
    /// `removed` (it is gone for good, and nothing else is told of it).
    pub state: String,
    /// Whether the answering node reaches it.
    pub reachable: bool,
    /// The node that takes its places, where one was named.
    pub heir: Option<u64>,
    /// Whether groups go on with fewer voters where nobody can take its place.
    pub forced: bool,
    /// Groups in which it votes, or is to vote.
    pub votes_in: Vec<u32>,
    /// Groups that it leads.
    pub leads: Vec<u32>,
    /// What is still waited for.
    pub waits: Vec<String>,
    /// Why it cannot be drained without force.
    pub refusal: Option<String>,
    /// What might be lost if it were removed now.
    pub would_lose: Vec<String>,
    /// Groups that would be left without a majority if it were removed now, and could never do anything again: it is refused,
    /// by force too.
    pub would_stop: Vec<u32>,
}

/// `POST /v1/nodes/{node}/drain`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Take it back: the node votes again where it is needed.
    #[serde(default)]
    pub undo: bool,
    /// Groups may go on with fewer voters.
    #[serde(default)]
    pub force: bool,
    /// The node that takes its places.
    #[serde(default)]
    pub heir: Option<u64>,
}

/// `POST /v1/nodes/{node}/remove`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveNode {
    /// Remove it although something may be lost.
    #[serde(default)]
    pub force: bool,
}

/// `GET /v1/groups`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id; 0 is the directory.
    pub group: u32,
    /// Its life.
    pub incarnation: u32,
    /// The leader.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// The last entry applied at the leader.
    pub applied: u64,
    /// Those that vote.
    pub voters: Vec<u64>,
    /// Those that only follow.
    pub learners: Vec<u64>,
    /// Those that are to vote.
    pub wanted: Vec<u64>,
    /// Entries by which each other replica is behind the leader.
    pub lag: Vec<(u64, u64)>,
    /// `agree`, `differ`, or `unknown` (not all replicas could be compared now).
    pub digests: String,
    /// Blobs with fewer copies than wanted, as the leader found last.
    pub under_replicated: u64,
    /// Accounts that live in it.
    pub accounts: u64,
    /// Whether it stays where an administrator has put it.
    pub pinned: bool,
    /// What it waits for on its way to where it is to be.
    pub waits: Option<String>,
}

/// `POST /v1/groups/{group}/move`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveVoter {
    /// It votes now.
    pub from: u64,
    /// It is to vote.
    pub to: u64,
}

/// `PUT /v1/groups/{group}/pin`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Whether the group stays where it is while the others are spread evenly.
    pub pinned: bool,
}

/// `GET /v1/check`: the proof that copies agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// No copy differs, is damaged or lacks anything, as far as could be seen.
    pub agree: bool,
    /// Everything could be seen.
    pub complete: bool,
    /// Every group.
    pub groups: Vec<GroupAgreement>,
    /// What does not agree, or could not be seen, in sentences.
    pub problems: Vec<String>,
}

/// One group of [`Agreement`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAgreement {
    /// Its id; 0 is the directory.
    pub group: u32,
    /// The entry after which the copies were compared.
    pub compared_at: Option<u64>,
    /// Accounts that live in it.
    pub accounts: u64,
    /// Messages in its mailboxes.
    pub messages: u64,
    /// How many more voters it can lose and still take mail; `None` when it has no majority now.
    pub bears_losses: Option<u64>,
    /// Its replicas.
    pub replicas: Vec<ReplicaAgreement>,
    /// Mailboxes that differ, as `account: name`; looked for only where digests differ.
    pub mailboxes: Vec<String>,
}

/// One replica of [`GroupAgreement`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaAgreement {
    /// Its node.
    pub node: u64,
    /// Whether it votes.
    pub votes: bool,
    /// `agrees`, `differs`, `behind` (it could not be compared at the same entry), `closed`, `absent` or `unreachable`.
    pub state: String,
    /// The last entry that it has applied.
    pub applied: u64,
    /// Blobs that it should have and does not; `None` where that is not known.
    pub lacking_blobs: Option<u64>,
}

/// `GET /v1/settings`, and the body of `PUT /v1/settings`; a setting without a value is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The names of an object's members, in order; shapes that programs rely on do not change unnoticed.
    fn members(value: &impl Serialize) -> Vec<String> {
        match serde_json::to_value(value).unwrap() {
            Value::Object(members) => members.keys().cloned().collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_shapes_are_those_of_the_documentation() {
        assert_eq!(
            members(&Departure::default()),
            [
                "forced",
                "heir",
                "leads",
                "name",
                "node",
                "reachable",
                "refusal",
                "state",
                "votes_in",
                "waits",
                "would_lose",
                "would_stop"
            ]
        );
        assert_eq!(
            members(&Group::default()),
            [
                "accounts",
                "applied",
                "digests",
                "group",
                "incarnation",
                "lag",
                "leader",
                "learners",
                "pinned",
                "term",
                "under_replicated",
                "voters",
                "waits",
                "wanted"
            ]
        );
        assert_eq!(
            members(&Agreement::default()),
            ["agree", "complete", "groups", "problems"]
        );
        assert_eq!(
            members(&GroupAgreement::default()),
            [
                "accounts",
                "bears_losses",
                "compared_at",
                "group",
                "mailboxes",
                "messages",
                "replicas"
            ]
        );
        assert_eq!(
            members(&ReplicaAgreement::default()),
            ["applied", "lacking_blobs", "node", "state", "votes"]
        );
        assert_eq!(members(&Setting::default()), ["name", "value"]);
    }

    #[test]
    fn requests_may_leave_out_what_is_not_wanted_and_hold_nothing_else() {
        let drain: Drain = serde_json::from_value(json!({})).unwrap();
        assert_eq!(drain, Drain::default());
        assert!(serde_json::from_value::<Drain>(json!({"forced": true})).is_err());
        assert!(serde_json::from_value::<MoveVoter>(json!({"from": 1})).is_err());
    }
}
