//! One function for each request.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use core_types::{AccountId, Address, Domain, GroupId, QueueId};
use serde::de::DeserializeOwned;
use state::rows::{Credential, DirectoryAccountRow, RecipientState};
use state::{DirectoryOp, MailboxOp, Outcome};

use crate::api;
use crate::server::Context;
use crate::{AdminError, Kind};

pub(crate) type Answer<T> = Result<Json<T>, AdminError>;

pub(crate) async fn status(State(context): State<Context>) -> Answer<api::Status> {
    context.node.status().await.map(Json)
}

pub(crate) async fn list_domains(State(context): State<Context>) -> Answer<Vec<api::Domain>> {
    let rows = context.store.directory().domains().await?;
    let domain = |row: state::rows::DomainRow| api::Domain {
        domain: row.domain.to_string(),
        addresses: row.address_count,
    };
    Ok(Json(rows.into_iter().map(domain).collect()))
}

pub(crate) async fn add_domain(State(context): State<Context>, body: Bytes) -> Answer<()> {
    let request: api::NewDomain = parse(&body)?;
    let domain = parse_domain(&request.domain)?;
    change(&context, DirectoryOp::AddDomain { domain }).await
}

pub(crate) async fn remove_domain(State(context): State<Context>, Path(domain): Path<String>) -> Answer<()> {
    let domain = parse_domain(&domain)?;
    change(&context, DirectoryOp::RemoveDomain { domain }).await
}

pub(crate) async fn list_accounts(State(context): State<Context>) -> Answer<Vec<api::Account>> {
    let rows = context.store.directory().accounts().await?;
    let mut accounts = Vec::with_capacity(rows.len());
    for row in rows {
        let quota = context.store.account(&login_of(&row)).quota().await.ok();
        accounts.push(api::Account {
            address: row.address.to_string(),
            id: row.account.to_string(),
            group: row.group.0,
            quota_bytes: row.quota_bytes,
            used_bytes: quota.map_or(0, |quota| quota.used_bytes),
            messages: quota.map_or(0, |quota| quota.message_count),
            state: if row.active { "active" } else { "pending" }.to_owned(),
        });
    }
    accounts.sort_by(|one, other| one.address.cmp(&other.address));
    Ok(Json(accounts))
}

/// Three steps, each of which can be repeated: the entry, the mailboxes, the entry's activation. A command that failed
/// half-way is finished by the same command.
pub(crate) async fn add_account(State(context): State<Context>, body: Bytes) -> Answer<()> {
    let request: api::NewAccount = parse(&body)?;
    let address = parse_address(&request.address)?;
    let directory = context.store.directory();
    let phc = directory.hash_password(request.password.as_bytes()).await?;
    directory.confirm().await?;
    let row = match directory.account(&address).await? {
        Some(row) if row.active => {
            return Err(AdminError::new(
                Kind::Exists,
                format!("account {address} exists already"),
            ));
        }
        // An earlier command stopped half-way: this one takes its entry over, with the password given now.
        Some(row) => {
            let credential = Credential::Password(phc);
            settle(
                directory
                    .propose(DirectoryOp::SetCredential {
                        account: row.account,
                        credential,
                    })
                    .await?,
            )?;
            row
        }
        None => {
            let account = AccountId(context.store.entropy().bytes());
            let op = DirectoryOp::AddAccount {
                account,
                address: address.clone(),
                group: None,
                credential: Credential::Password(phc),
                quota_bytes: request.quota_bytes,
            };
            settle(directory.propose(op).await?)?;
            find_account(&context, &address).await?
        }
    };
    context
        .store
        .create_account_mail(&login_of(&row), row.quota_bytes)
        .await?;
    // Usable on every node from here on: a node that does not know it yet confirms its "no" at the majority first.
    change(&context, DirectoryOp::ActivateAccount { account: row.account }).await
}

pub(crate) async fn set_password(
    State(context): State<Context>,
    Path(address): Path<String>,
    body: Bytes,
) -> Answer<()> {
    let request: api::NewPassword = parse(&body)?;
    let directory = context.store.directory();
    let phc = directory.hash_password(request.password.as_bytes()).await?;
    directory.confirm().await?;
    let row = find_account(&context, &parse_address(&address)?).await?;
    let op = DirectoryOp::SetCredential {
        account: row.account,
        credential: Credential::Password(phc),
    };
    change(&context, op).await
}

/// The mail first, then the entry: a command that failed half-way leaves the entry, and is finished by the same command.
/// Mail that comes in between finds no mailboxes and is refused.
pub(crate) async fn remove_account(State(context): State<Context>, Path(address): Path<String>) -> Answer<()> {
    context.store.directory().confirm().await?;
    let row = find_account(&context, &parse_address(&address)?).await?;
    match context
        .store
        .propose(row.group, MailboxOp::RemoveAccount { account: row.account })
        .await
    {
        Ok(_) | Err(mailstore::StoreError::Refused(state::Refusal::NoSuchAccount)) => {}
        Err(error) => return Err(error.into()),
    }
    change(&context, DirectoryOp::RemoveAccount { account: row.account }).await
}

pub(crate) async fn list_aliases(State(context): State<Context>) -> Answer<Vec<api::Alias>> {
    let alias = |row: state::rows::AliasRow| api::Alias {
        address: row.address.to_string(),
        targets: row.targets.iter().map(ToString::to_string).collect(),
    };
    Ok(Json(
        context
            .store
            .directory()
            .aliases()
            .await?
            .into_iter()
            .map(alias)
            .collect(),
    ))
}

pub(crate) async fn set_alias(State(context): State<Context>, body: Bytes) -> Answer<()> {
    let request: api::Alias = parse(&body)?;
    let targets = request
        .targets
        .iter()
        .map(|target| parse_address(target))
        .collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Err(AdminError::new(Kind::Usage, "an alias needs at least one target"));
    }
    change(
        &context,
        DirectoryOp::SetAlias {
            address: parse_address(&request.address)?,
            targets,
        },
    )
    .await
}

pub(crate) async fn remove_alias(State(context): State<Context>, Path(address): Path<String>) -> Answer<()> {
    change(
        &context,
        DirectoryOp::RemoveAlias {
            address: parse_address(&address)?,
        },
    )
    .await
}

pub(crate) async fn add_node(State(context): State<Context>, body: Bytes) -> Answer<api::JoinToken> {
    let request: api::NewNode = parse(&body)?;
    let directory = context.store.directory();
    directory.confirm().await?;
    let site = directory
        .query(|reader| reader.sites())
        .await?
        .first()
        .map(|site| site.site);
    let site = site.ok_or_else(|| AdminError::new(Kind::Failed, "the cluster has no site"))?;
    let (token_key, token) = context.node.new_join_token().await?;
    let valid = u64::try_from(TOKEN_VALID.as_millis()).unwrap_or(u64::MAX);
    let expires = context.store.clock().now().saturating_add(valid);
    let op = DirectoryOp::AddJoinToken {
        token_key,
        site,
        name: request.name,
        expires,
    };
    settle(directory.propose(op).await?)?;
    Ok(Json(api::JoinToken {
        token,
        valid_seconds: TOKEN_VALID.as_secs(),
    }))
}

pub(crate) async fn list_queue(State(context): State<Context>) -> Answer<Vec<api::QueueEntry>> {
    let mut entries = Vec::new();
    let groups = context.store.groups();
    for group in groups.groups() {
        if group == GroupId::DIRECTORY {
            continue;
        }
        let mut after: Option<QueueId> = None;
        loop {
            let page = groups
                .query(group, |view| state::mailbox::Reader::new(view).queue(after, QUEUE_PAGE))
                .await
                .map_err(|error| AdminError::new(Kind::Unreachable, error.to_string()))?;
            after = page.last().map(|entry| entry.id);
            entries.extend(page.iter().map(|entry| queue_entry(group, entry)));
            if page.len() < QUEUE_PAGE {
                break;
            }
        }
    }
    Ok(Json(entries))
}

pub(crate) async fn not_found() -> AdminError {
    AdminError::new(
        Kind::NoSuchObject,
        "there is no such request; is the program older than the command line?",
    )
}

pub(crate) async fn wrong_method() -> AdminError {
    AdminError::new(Kind::Usage, "this object does not take that method")
}

fn queue_entry(group: GroupId, entry: &state::rows::QueueEntry) -> api::QueueEntry {
    let state = |state: &RecipientState| match state {
        RecipientState::Waiting(None) => "waiting".to_owned(),
        RecipientState::Waiting(Some(reply)) => format!("waiting: {reply}"),
        RecipientState::Done => "done".to_owned(),
        RecipientState::Failed(reply) => format!("failed: {reply}"),
    };
    api::QueueEntry {
        id: entry.id.to_string(),
        group: group.0,
        from: entry.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default(),
        recipients: entry
            .recipients
            .iter()
            .map(|each| (each.address.to_string(), state(&each.state)))
            .collect(),
        size: entry.size,
        created: entry.created.0,
        next_attempt: entry.next_attempt.0,
        attempts: entry.attempts,
        held: entry.held.clone(),
    }
}

pub(crate) async fn change(context: &Context, op: DirectoryOp) -> Answer<()> {
    settle(context.store.directory().propose(op).await?)?;
    Ok(Json(()))
}

pub(crate) fn settle(outcome: Outcome) -> Result<Outcome, AdminError> {
    match outcome {
        Outcome::Refused(refusal) => Err(refusal.into()),
        outcome => Ok(outcome),
    }
}

async fn find_account(context: &Context, address: &Address) -> Result<DirectoryAccountRow, AdminError> {
    let row = context.store.directory().account(address).await?;
    row.ok_or_else(|| AdminError::new(Kind::NoSuchObject, format!("there is no account {address}")))
}

fn login_of(row: &DirectoryAccountRow) -> directory::Account {
    directory::Account {
        id: row.account,
        address: row.address.clone(),
        group: row.group,
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body).map_err(|error| AdminError::new(Kind::Usage, format!("the request: {error}")))
}

fn parse_address(text: &str) -> Result<Address, AdminError> {
    Address::parse(text).map_err(|error| AdminError::new(Kind::Usage, format!("{text:?}: {error}")))
}

fn parse_domain(text: &str) -> Result<Domain, AdminError> {
    match Domain::parse(text) {
        Ok(domain) if !domain.is_literal() => Ok(domain),
        _ => Err(AdminError::new(Kind::Usage, format!("{text:?} is not a domain name"))),
    }
}

/// How long a join token is good.
const TOKEN_VALID: Duration = Duration::from_secs(15 * 60);
/// Queue entries read at a time.
const QUEUE_PAGE: usize = 500;
