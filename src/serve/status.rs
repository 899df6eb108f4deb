//! Errors as gRPC statuses: the right code and one sentence, short enough for every client's header limit.

use std::error::Error as StdError;

use datafusion::{arrow::error::ArrowError, error::DataFusionError, sql::sqlparser::parser::ParserError};
use tonic::{Code, Status};

use crate::error::Error;

/// A message longer than this is cut: nobody reads more, and a plan's dump would hide the sentence.
const MAX_CHARS: usize = 2000;

/// The message travels percent-encoded in a header; grpc-java takes 8 KiB of headers in all.
const MAX_ENCODED_BYTES: usize = 6000;

/// What the client is told of an error.
pub(crate) fn status(error: Error) -> Status {
    let (code, message) = describe(&error);
    if code == Code::Internal {
        tracing::error!(%message, "statement failed");
    } else {
        tracing::debug!(?code, %message, "statement refused");
    }
    Status::new(code, cut(&message))
}

/// As [`status`], for whatever can become our error.
pub(crate) fn status_of(error: impl Into<Error>) -> Status {
    status(error.into())
}

/// A request that makes no sense.
pub(crate) fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(cut(&message.into()))
}

fn describe(error: &Error) -> (Code, String) {
    let code = match error {
        // A statement that is understood but not supported is the client's to change; UNIMPLEMENTED would say that the *call* is unknown.
        Error::Invalid(_) | Error::Unsupported(_) => Code::InvalidArgument,
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::Denied(_) => Code::PermissionDenied,
        Error::External(_) => Code::Unavailable,
        Error::Exhausted(_) => Code::ResourceExhausted,
        Error::Timeout(_) => Code::DeadlineExceeded,
        Error::Cancelled(_) => Code::Cancelled,
        Error::Internal(_) => Code::Internal,
        Error::DataFusion(inner) => return describe_engine(inner),
    };
    (code, error.to_string())
}

fn describe_engine(error: &DataFusionError) -> (Code, String) {
    // An error of ours may come back from under several layers of the engine's.
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(layer) = next {
        if let Some(ours) = layer.downcast_ref::<Error>()
            && !matches!(ours, Error::DataFusion(_))
        {
            return describe(ours);
        }
        next = layer.source();
    }

    let root = error.find_root();
    let message = match root {
        DataFusionError::SQL(syntax, _) => match syntax.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => format!("syntax error: {text}"),
            ParserError::RecursionLimitExceeded => "syntax error: the statement is nested too deeply".to_owned(),
        },
        _ => root.message().into_owned(),
    };
    let code = match root {
        DataFusionError::Plan(text) if text.starts_with("table '") && text.ends_with("not found") => Code::NotFound,
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Execution(_) => Code::InvalidArgument,
        DataFusionError::ResourcesExhausted(_) => Code::ResourceExhausted,
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => Code::Unavailable,
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            // What a value makes go wrong, and so what the statement can be written to avoid.
            ArrowError::CastError(_)
            | ArrowError::ParseError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
            | ArrowError::InvalidArgumentError(_)
            | ArrowError::NotYetImplemented(_) => Code::InvalidArgument,
            ArrowError::IoError(..) => Code::Unavailable,
            _ => Code::Internal,
        },
        _ => Code::Internal,
    };
    (code, message)
}

/// The message without a backtrace, cut on a character boundary.
fn cut(message: &str) -> String {
    let message = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message).trim();
    let mut encoded = 0;
    for (count, (at, character)) in message.char_indices().enumerate() {
        encoded += if character.is_ascii_alphanumeric() { 1 } else { 3 * character.len_utf8() };
        if count == MAX_CHARS || encoded > MAX_ENCODED_BYTES {
            return format!("{}…", &message[..at]);
        }
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_comes_back_from_under_the_engine() {
        let ours = DataFusionError::External(Box::new(Error::Cancelled("view v was dropped".into())));
        let wrapped = ArrowError::ExternalError(Box::new(DataFusionError::Context("while reading".into(), Box::new(ours))));
        let status = status(Error::from(wrapped));
        assert_eq!((status.code(), status.message()), (Code::Cancelled, "view v was dropped"));
    }

    #[test]
    fn codes() {
        let check = |error: Error, code| assert_eq!(status(error).code(), code);
        check(Error::Unsupported("x".into()), Code::InvalidArgument);
        check(Error::AlreadyExists("x".into()), Code::AlreadyExists);
        check(Error::External("x".into()), Code::Unavailable);
        check(Error::Exhausted("x".into()), Code::ResourceExhausted);
        check(Error::Timeout("x".into()), Code::DeadlineExceeded);
        check(DataFusionError::Plan("table 'a.b.c' not found".into()).into(), Code::NotFound);
        check(DataFusionError::ResourcesExhausted("x".into()).into(), Code::ResourceExhausted);
        check(ArrowError::DivideByZero.into(), Code::InvalidArgument);
        check(DataFusionError::Internal("x".into()).into(), Code::Internal);
    }

    #[test]
    fn long_messages_are_cut_on_a_character() {
        let ascii = cut(&"a".repeat(5000));
        assert_eq!(ascii.chars().count(), MAX_CHARS + 1);
        let wide = cut(&"é".repeat(5000));
        assert!(wide.chars().count() <= MAX_ENCODED_BYTES / 6 + 1);
        assert_eq!(cut("short"), "short");
    }
}
