//! Client connections as the servers see them.
//!
//! A server is handed a [`Connection`] and does not know whether a socket, a TLS session or a simulation is behind it.
//!
//! Not here: any protocol; the addresses to listen on (`node` binds them and hands in [`Listener`]s).

mod limiter;
mod listener;
mod output;
mod shutdown;
mod stream;
mod tls;

pub use limiter::{Limiter, Permit};
pub use listener::{Listener, serve_listener};
pub use output::{Output, OutputError};
pub use shutdown::{Shutdown, Stopper};
pub use stream::{BoxStream, Connection, Listening, PlainLogin, Stream};
pub use tls::{ServerTls, TlsError};
