//! The one error type. Its variant says whose move it is: the user's, somebody else's, or ours.

use datafusion::error::DataFusionError;

/// The result of everything that can fail in Tidegate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error is a sentence: what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement or setting is wrong: the user can mend it.
    #[error("{0}")]
    Invalid(String),
    /// The statement is understood but not supported; says what to write instead.
    #[error("{0}")]
    Unsupported(String),
    /// A name that nothing has.
    #[error("{0}")]
    NotFound(String),
    /// A name that something has already.
    #[error("{0}")]
    AlreadyExists(String),
    /// They may not.
    #[error("{0}")]
    Denied(String),
    /// Something outside failed: a broker, a disk, a port.
    #[error("{0}")]
    External(String),
    /// The server, or the statement's share of it, has no more room: later or with less it may work.
    #[error("{0}")]
    Exhausted(String),
    /// The statement took longer than it may.
    #[error("{0}")]
    Timeout(String),
    /// The statement was stopped: by its client, or since its view, source or server went away.
    #[error("{0}")]
    Cancelled(String),
    /// Tidegate broke one of its own promises.
    #[error("internal error: {0}; please report it")]
    Internal(String),
    /// What DataFusion said of a plan or its execution.
    #[error("{0}")]
    DataFusion(Box<DataFusionError>),
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        // An error of ours that travelled through a plan comes back as itself.
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(inner) => Error::DataFusion(Box::new(DataFusionError::External(inner))),
            },
            DataFusionError::Context(_, inner) if matches!(*inner, DataFusionError::External(_)) => Error::from(*inner),
            other => Error::DataFusion(Box::new(other)),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::DataFusion(inner) => *inner,
            ours => DataFusionError::External(Box::new(ours)),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::from(DataFusionError::from(error))
    }
}
