//! Flight SQL over sessions. Knows statements, tickets and what travels; knows no operator, no source and no view.
//!
//! A call's way: `connection` → `guard` (who may come in, and with how much) → [`service`](self) (the gRPC methods) → `flight_sql` (one method a command) → `statements` or `metadata` → `rows` → `encode`.
//! What holds: a statement that is not a query is executed exactly once, when its `FlightInfo` is asked for or it is put;
//! the schema told first is the schema of the rows; a ticket is a random id, never SQL; dropping a result's stream stops its work.

mod auth;
mod connection;
mod encode;
mod extent;
mod flight_sql;
mod frontend;
mod guard;
mod ingest;
mod kept;
mod metadata;
mod parameters;
mod parts;
mod registry;
mod rows;
mod server;
mod service;
mod session_options;
mod sessions;
mod sql_info;
mod statements;
mod status;
#[cfg(test)]
mod tests;
mod uploads;
mod wire;
mod xdbc;

pub use frontend::{Backend, Frontend};
pub use server::{Options, Server, listen};

/// Reads what clients send that is not read by others' code alone, for the fuzz targets: tickets, options of sessions, cookies, uploads.
#[doc(hidden)]
pub fn read_messages(bytes: &[u8]) {
    use futures::{FutureExt, TryStreamExt};
    use prost::Message;

    let _ = statements::ticket_id(bytes);
    let _ = session_options::decode::<session_options::SetSessionOptionsRequest>(bytes);
    sessions::read_cookie(bytes);
    let message = arrow_flight::FlightData::decode(bytes).unwrap_or_default();
    let bare = arrow_flight::FlightData { data_header: bytes.to_vec().into(), data_body: bytes.to_vec().into(), ..Default::default() };
    let _ = uploads::Batches::new(futures::stream::iter([Ok(message), Ok(bare)]), 1 << 20).try_collect::<Vec<_>>().now_or_never();
}
