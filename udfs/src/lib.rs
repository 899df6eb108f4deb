//! Window and JSON functions over Arrow arrays, for any DataFusion program.

pub mod json;
pub mod window;
