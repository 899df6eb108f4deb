//! Who a call is made for, by its `authorization` header; and the handshake, which gives a token for a password.

use tonic::{
    Code, Request, Status,
    codegen::http::{HeaderMap, header},
};

use super::connection::ConnectionId;
use crate::access::{Access, Admitted, Caller, Credentials, Refused};
use std::{net::IpAddr, sync::Arc};

/// Whom a call is made for, and the name of the session that its token stands for.
pub(crate) async fn admit(access: &Arc<Access>, headers: &HeaderMap, connection: Option<&ConnectionId>) -> Result<(Caller, Option<String>), Status> {
    let from = address(connection);
    let Admitted { who, session } = access.admit(credentials(headers)?, from).await.map_err(refused)?;
    Ok((Caller { who, from }, session))
}

/// The token under which a client that shakes hands is to call from now on.
pub(crate) async fn token<T>(access: &Arc<Access>, request: &Request<T>) -> Result<String, Status> {
    access.shake_hands(credentials(request.metadata().as_ref())?, address(request.extensions().get())).await.map_err(refused)
}

fn address(connection: Option<&ConnectionId>) -> Option<IpAddr> {
    connection.map(|connection| connection.address)
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, Status> {
    Credentials::read(headers.get(header::AUTHORIZATION).map(|header| header.as_bytes())).map_err(refused)
}

fn refused(refused: Refused) -> Status {
    let code = match refused {
        Refused::Throttled => Code::ResourceExhausted,
        Refused::Broken => Code::Internal,
        Refused::Malformed | Refused::Missing | Refused::Invalid | Refused::Expired => Code::Unauthenticated,
    };
    Status::new(code, refused.to_string())
}
