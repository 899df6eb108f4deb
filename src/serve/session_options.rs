//! The session options of Flight (`SetSessionOptions`, `GetSessionOptions`, `CloseSession`): their messages and what they mean here.
//!
//! `arrow-flight` 59 does not have these messages; unlike the SQL actions they travel without an `Any` around them.

use std::collections::{BTreeMap, HashMap};

use tonic::Status;

use super::{sessions::ClientSession, status::invalid};
use crate::{error::Error, session::Outcome};

/// A value of a session option.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionValue {
    #[prost(oneof = "OneOption", tags = "1, 2, 3, 4, 5")]
    pub value: Option<OneOption>,
}

/// Its alternatives; none at all unsets the option.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OneOption {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

/// A list of texts.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// Asks for options to be set.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub options: HashMap<String, OptionValue>,
}

/// Says which could not be.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

/// Why an option could not be set.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionError {
    #[prost(enumeration = "OptionErrorCode", tag = "1")]
    pub code: i32,
}

/// The reasons that Flight knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum OptionErrorCode {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// Tells the options.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub options: HashMap<String, OptionValue>,
}

/// Tells what became of the session.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseSessionResult {
    #[prost(enumeration = "CloseSessionStatus", tag = "1")]
    pub status: i32,
}

/// The states that Flight knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CloseSessionStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

/// The one catalog.
pub(crate) const CATALOG: &str = "tidegate";
/// The schema that unqualified names are looked up in.
pub(crate) const SCHEMA: &str = "public";

/// Sets options; those that could not be set are in the result.
pub(crate) async fn set(session: &ClientSession, request: SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut errors = HashMap::new();
    for (name, value) in request.options {
        let outcome = match name.as_str() {
            "catalog" => fixed(&value, CATALOG),
            "schema" => fixed(&value, SCHEMA),
            setting if is_setting(setting) => set_setting(session, setting, &value).await,
            _ => Err(OptionErrorCode::InvalidName),
        };
        match outcome {
            Ok(()) if value.value.is_none() => drop(session.options.lock().remove(&name)),
            Ok(()) => drop(session.options.lock().insert(name, value)),
            Err(code) => drop(errors.insert(name, OptionError { code: code as i32 })),
        }
    }
    SetSessionOptionsResult { errors }
}

/// The options as they stand.
pub(crate) fn get(session: &ClientSession) -> GetSessionOptionsResult {
    let text = |text: &str| OptionValue { value: Some(OneOption::Text(text.to_owned())) };
    let mut options: BTreeMap<String, OptionValue> = session.options.lock().clone();
    options.insert("catalog".into(), text(CATALOG));
    options.insert("schema".into(), text(SCHEMA));
    GetSessionOptionsResult { options: options.into_iter().collect() }
}

/// There is one catalog and one default schema: naming it is fine, another is not.
fn fixed(value: &OptionValue, only: &str) -> Result<(), OptionErrorCode> {
    match &value.value {
        None => Ok(()),
        Some(OneOption::Text(text)) if text == only => Ok(()),
        Some(_) => Err(OptionErrorCode::InvalidValue),
    }
}

fn is_setting(name: &str) -> bool {
    name.strip_prefix("tidegate.").is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.'))
}

async fn set_setting(session: &ClientSession, name: &str, value: &OptionValue) -> Result<(), OptionErrorCode> {
    let text = match &value.value {
        Some(OneOption::Text(text)) => text.clone(),
        Some(OneOption::Bool(yes)) => yes.to_string(),
        Some(OneOption::Int(number)) => number.to_string(),
        Some(OneOption::Double(number)) => number.to_string(),
        Some(OneOption::Texts(texts)) => texts.values.join(","),
        None => return Err(OptionErrorCode::InvalidValue),
    };
    let statement = format!("SET {name} = '{}'", text.replace('\'', "''"));
    match session.frontend.execute(&statement, &[]).await {
        Ok(Outcome::Done(_)) => Ok(()),
        Ok(Outcome::Rows(_)) => Err(OptionErrorCode::Error),
        Err(Error::NotFound(_)) => Err(OptionErrorCode::InvalidName),
        Err(error) => {
            tracing::debug!(%error, %name, "a session option was refused");
            Err(OptionErrorCode::InvalidValue)
        }
    }
}

/// Decodes the body of a session action.
pub(crate) fn decode<M: prost::Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|error| invalid(format!("the action's body is not what its type says: {error}")))
}
