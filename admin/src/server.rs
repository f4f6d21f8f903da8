//! The router and its socket.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::routing::{delete, get, post, put};
use axum::serve::Listener;
use mailstore::MailStore;

use crate::api::{self, Status};
use crate::{AdminError, handlers, nodes};

/// What only the node as a whole can answer.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// Everything that `everpost status` shows.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn status(&self) -> Result<Status, AdminError>;

    /// Makes a token with which a node may join the cluster. Returns the public key that the directory keeps
    /// and the token's text.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn new_join_token(&self) -> Result<([u8; 32], String), AdminError>;

    /// All groups, as their leaders see them.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn groups(&self) -> Result<Vec<api::Group>, AdminError>;

    /// How far a node is on its way out.
    ///
    /// # Errors
    /// [`AdminError`]; `NoSuchObject` when it is no member.
    async fn departure(&self, node: u64) -> Result<api::Departure, AdminError>;

    /// Compares all copies of everything. May take half a minute.
    ///
    /// # Errors
    /// [`AdminError`].
    async fn agreement(&self) -> Result<api::Agreement, AdminError>;

    /// What is wrong with a value of a setting; nothing is wrong with `None`.
    ///
    /// # Errors
    /// [`AdminError`]: `Usage`, or `NoSuchObject` when there is no such setting.
    fn check_setting(&self, name: &str, value: Option<&str>) -> Result<(), AdminError>;
}

/// What the handlers work with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: MailStore,
    pub(crate) node: Arc<dyn Node>,
}

/// Answers requests on the socket until `until` is ready. Whoever can connect to it is the node's administrator.
///
/// # Errors
/// When the socket fails.
pub async fn serve<L>(
    listener: L,
    store: MailStore,
    node: Arc<dyn Node>,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()>
where
    L: Listener<Addr: std::fmt::Debug>,
{
    axum::serve(listener, router(Context { store, node }))
        .with_graceful_shutdown(until)
        .await
}

pub(crate) fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/status", get(handlers::status))
        .route("/v1/domains", get(handlers::list_domains).post(handlers::add_domain))
        .route("/v1/domains/{domain}", delete(handlers::remove_domain))
        .route("/v1/accounts", get(handlers::list_accounts).post(handlers::add_account))
        .route("/v1/accounts/{address}", delete(handlers::remove_account))
        .route("/v1/accounts/{address}/password", put(handlers::set_password))
        .route("/v1/aliases", get(handlers::list_aliases).put(handlers::set_alias))
        .route("/v1/aliases/{address}", delete(handlers::remove_alias))
        .route("/v1/nodes", post(handlers::add_node))
        .route("/v1/nodes/{node}/departure", get(nodes::departure))
        .route("/v1/nodes/{node}/drain", post(nodes::drain))
        .route("/v1/nodes/{node}/remove", post(nodes::remove))
        .route("/v1/groups", get(nodes::list_groups))
        .route("/v1/groups/{group}/move", post(nodes::move_voter))
        .route("/v1/groups/{group}/pin", put(nodes::pin))
        .route("/v1/check", get(nodes::check))
        .route("/v1/settings", get(nodes::list_settings).put(nodes::set_setting))
        .route("/v1/queue", get(handlers::list_queue))
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::wrong_method)
        .with_state(context)
}
