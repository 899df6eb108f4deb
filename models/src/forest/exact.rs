//! Numbers in the durable form: one text with a space between two numbers.
//!
//! A JSON number would do if every reader read it exactly; ours, at its default, may be off by one in the last bit, and scores are
//! promised to the bit. Rust writes the shortest decimal that reads back as the same `f64`, and reads exactly.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes numbers as one text.
pub(super) fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    let texts: Vec<String> = numbers.iter().map(|number| format!("{number:?}")).collect();
    serializer.serialize_str(&texts.join(" "))
}

/// Reads numbers from one text.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = |text: &str| text.parse().map_err(|_| D::Error::custom(format!("'{text}' is no number")));
    text.split_ascii_whitespace().map(number).collect()
}
