//! Window functions: which tumbling window a timestamp falls in.
