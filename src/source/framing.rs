//! The header that serialisers which use a schema registry put before each payload: a zero byte, and the id of the schema that it was
//! written with.

/// How long the header is.
pub const LENGTH: usize = 5;

/// A payload's schema id, and what stands behind the header; an error is a reason without a full stop.
pub fn split(payload: &[u8]) -> Result<(u32, &[u8]), String> {
    match payload {
        [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        [] => Err("the payload is empty, and a schema registry's header is expected".into()),
        [0, ..] => Err(format!("the payload ends within a schema registry's header: it has {} bytes", payload.len())),
        [first, ..] => Err(format!("the payload begins with byte {first}, not with a schema registry's header (a zero byte and the id of a schema)")),
    }
}

/// The header of payloads written with a schema.
pub fn header(id: u32) -> [u8; LENGTH] {
    let [a, b, c, d] = id.to_be_bytes();
    [0, a, b, c, d]
}
