//! The engine against DataFusion's batch answer, over random data.

mod oracle;
