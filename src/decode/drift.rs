//! How records differ from what their source declares: fields that it does not know, declared ones that are not there, values of another type.
//!
//! Readers count what is new and what is missing while they read; what is retyped is told by the bad records. It is counted for a record whose
//! payload has the structure of its format, good or bad, as far as that was read, and has no say in what becomes of it. Counts of fields are
//! exact as long as there are not more fields than are told apart.

/// How many fields of a kind are told apart; the others are counted together, so that keys that are data cost no more than that.
pub const MOST_FIELDS: usize = 100;

/// How many characters of a value are shown.
const SHOWN: usize = 100;

/// What became of a run of records, or of all records of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftKind {
    /// The record has a field that the declaration does not know.
    New,
    /// It lacks a declared one.
    Missing,
    /// It is bad, since a field's value is none of the declared type.
    Retyped,
}

impl DriftKind {
    /// All of them.
    pub const ALL: [DriftKind; 3] = [DriftKind::New, DriftKind::Missing, DriftKind::Retyped];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            DriftKind::New => "new",
            DriftKind::Missing => "missing",
            DriftKind::Retyped => "retyped",
        }
    }
}

/// Which field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath {
    /// Whether it is one of the record's key.
    pub in_key: bool,
    /// Names from the top on. A cell of CSV is named by its position from 1, a field of Protobuf that has no name by its number; none at all:
    /// the whole payload.
    pub parts: Vec<String>,
}

impl FieldPath {
    /// A field of the payload.
    pub(super) fn of(parts: &[String]) -> Self {
        Self { in_key: false, parts: parts.to_vec() }
    }

    /// A field at the top of the payload.
    pub(super) fn top(name: impl Into<String>) -> Self {
        Self { in_key: false, parts: vec![name.into()] }
    }
}

/// How the records of a run differ from the declaration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Fields that it does not know.
    pub new: Drifted,
    /// Declared fields that are not there.
    pub missing: Drifted,
    /// Fields whose value made their record bad.
    pub retyped: Drifted,
}

/// Differences of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drifted {
    /// Records that have any.
    pub records: u64,
    /// The fields, at most [`MOST_FIELDS`].
    pub fields: Vec<DriftedField>,
    /// Records that have another field, once for each such field.
    pub others: u64,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriftedField {
    /// Which one.
    pub path: FieldPath,
    /// Records that differ in it.
    pub records: u64,
    /// The value in the first of them, if there is one that can be shown.
    pub example: Option<String>,
}

/// A field whose value made its record bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retyped {
    /// Which one.
    pub path: FieldPath,
    /// The value, if it can be shown.
    pub example: Option<String>,
}

impl Drift {
    /// What differs in each way.
    pub fn kinds(&self) -> [(DriftKind, &Drifted); 3] {
        [(DriftKind::New, &self.new), (DriftKind::Missing, &self.missing), (DriftKind::Retyped, &self.retyped)]
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|(_, drifted)| drifted.records == 0)
    }
}

impl Drifted {
    /// So many records have a field, whose value in the first of them is this.
    pub(super) fn add(&mut self, path: FieldPath, records: u64, example: Option<String>) {
        let room = self.fields.len() < MOST_FIELDS;
        match self.fields.iter_mut().find(|field| field.path == path) {
            Some(field) => field.records += records,
            None if room => self.fields.push(DriftedField { path, records, example }),
            None => self.others += records,
        }
    }
}

/// A value as it is shown: the beginning of its text.
pub(super) fn shown(text: &[u8]) -> String {
    // No character has more than four bytes; one that is cut in two lies behind those that are shown.
    let enough = &text[..text.len().min(4 * (SHOWN + 1))];
    String::from_utf8_lossy(enough).chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_fields_are_told_apart() {
        let mut drifted = Drifted::default();
        for name in (0..150).chain(0..150) {
            drifted.add(FieldPath::top(name.to_string()), 2, Some(name.to_string()));
        }
        assert_eq!((drifted.fields.len(), drifted.others), (MOST_FIELDS, 200));
        assert!(drifted.fields.iter().all(|field| field.records == 4 && field.example.as_ref() == field.path.parts.first()));
    }

    #[test]
    fn values_are_cut_between_characters() {
        assert_eq!(shown("🦤".repeat(300).as_bytes()), "🦤".repeat(100));
        assert_eq!(shown(format!("x{}", "€".repeat(99)).as_bytes()), format!("x{}", "€".repeat(99)));
        assert_eq!(shown(b"\"a\""), "\"a\"");
    }
}
