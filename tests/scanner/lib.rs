//! Modules of `src/decode`, as they are there.

#![allow(dead_code)]

/// What they know of the server's errors.
mod error {
    #[derive(Debug)]
    pub enum Error {
        Unsupported(String),
    }

    pub type Result<T> = std::result::Result<T, Error>;
}

#[path = "../../src/decode"]
mod decode {
    mod number;
    mod quote;

    mod json {
        mod fault;
        mod order;
        mod path;
        mod same;
        mod scan;
        mod value;
    }
}
