//! Credentials as clients send them. There are no users yet: whoever reaches the (loopback) port is let in, whatever they say.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use tonic::{Status, metadata::MetadataMap};

use super::sessions::new_key;

/// Go pads nothing, everyone else does: both are read.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What the `authorization` header holds.
#[derive(Debug, PartialEq)]
enum Credentials {
    /// No header.
    None,
    /// `Basic`: who says to be calling; the password is not looked at.
    User(String),
    /// `Bearer`: a token that the client brings.
    Token(String),
}

/// The token under which a client that shakes hands is to call from now on.
pub(crate) fn token(metadata: &MetadataMap) -> Result<String, Status> {
    match credentials(metadata)? {
        Credentials::None => Ok(new_key()),
        Credentials::User(user) => {
            tracing::debug!(%user, "handshake");
            Ok(new_key())
        }
        Credentials::Token(token) => Ok(token),
    }
}

fn credentials(metadata: &MetadataMap) -> Result<Credentials, Status> {
    let malformed = || Status::unauthenticated("the authorization header is neither 'Basic <base64 of user:password>' nor 'Bearer <token>'");
    let Some(header) = metadata.get("authorization") else { return Ok(Credentials::None) };
    let (scheme, value) = header.to_str().map_err(|_| malformed())?.split_once(' ').ok_or_else(malformed)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
        return Ok(Credentials::Token(value.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = String::from_utf8(BASE64.decode(value).map_err(|_| malformed())?).map_err(|_| malformed())?;
    // A password may hold colons, a user may not.
    let (user, _) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(Credentials::User(user.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Credentials, Status> {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", header.parse().unwrap());
        credentials(&metadata)
    }

    #[test]
    fn basic_is_read_with_and_without_padding() {
        for header in ["Basic YWxpY2U6cHc=", "Basic YWxpY2U6cHc", "basic YWxpY2U6cDp3"] {
            assert_eq!(read(header).unwrap(), Credentials::User("alice".into()));
        }
    }

    #[test]
    fn bearer_is_taken_as_it_is() {
        assert_eq!(read("Bearer abc").unwrap(), Credentials::Token("abc".into()));
        assert_eq!(credentials(&MetadataMap::new()).unwrap(), Credentials::None);
    }

    #[test]
    fn anything_else_is_refused() {
        for header in ["Digest x", "Basic", "Basic !!!", "Basic YWxpY2U", "Bearer "] {
            assert_eq!(read(header).unwrap_err().code(), tonic::Code::Unauthenticated, "{header}");
        }
    }
}
