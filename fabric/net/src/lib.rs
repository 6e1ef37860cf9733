//! Connections between the processes of a cluster: who dials whom, and what goes over it.
//!
//! ```text
//! node ──────── control ──────▶ every controller    commands and reports, heartbeats      control.rs
//! node ──────── work ─────────▶ every controller    invocations and compilations, HTTP/2  work.rs
//!                                                   where the node is the server
//! controller ── raft ─────────▶ every other one     Raft messages, one way                peers.rs
//! controller ── ask ──────────▶ every other one     commands for the leader, HTTP/2       peers.rs
//! ```
//!
//! Every purpose has a connection of its own, so that no body holds up a heartbeat. All are dialled by
//! `dial.rs`, and begin with a handshake (`handshake.rs`) over TLS or, on the loopback address only, in
//! plain text (`security.rs`). Addresses are in a book (`book.rs`), which settings and etcd
//! (`discovery.rs`) fill. The crate carries bytes and messages of [`weft_protocol`]; what they
//! mean, the roles know.

mod book;
mod certs;
mod control;
mod dial;
#[cfg(feature = "etcd")]
mod discovery;
mod handshake;
mod listener;
mod members;
mod messages;
mod peers;
mod rpc;
mod security;
mod work;

pub use book::Book;
pub use certs::{Subject, issue, make_authority};
pub use control::{ToControllers, follow_controllers};
#[cfg(feature = "etcd")]
pub use discovery::Discovery;
pub use handshake::{Cluster, Party};
pub use listener::{Arrivals, listen};
pub use members::Members;
pub use peers::PeerLinks;
pub use security::{Certificates, Security};
pub use work::{WorkSettings, offer_work};
