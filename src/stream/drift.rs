//! How a source's records have differed from its declaration since the server started: figures, in no checkpoint.
//!
//! They go with their source from one pipeline to another. The lock is taken once for each slice that has anything to tell.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::decode::{Drift, DriftKind, FieldPath, MOST_FIELDS};

/// How a source's records have differed.
#[derive(Debug, Default)]
pub struct DriftFigures {
    /// By [`DriftKind::ALL`].
    kinds: Mutex<[KindFigures; DriftKind::ALL.len()]>,
}

/// How they have differed in one way.
#[derive(Debug, Default)]
struct KindFigures {
    records: u64,
    fields: HashMap<FieldPath, Seen>,
    /// Those that are not told apart.
    others: Option<Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    records: u64,
    first_ms: i64,
    last_ms: i64,
    example: Option<String>,
}

/// Records that differ, by how they do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DriftTotals {
    /// Records with fields that the declaration doesn't know.
    pub new: u64,
    /// Records that lack declared fields.
    pub missing: u64,
    /// Bad records with a field that is none of its type.
    pub retyped: u64,
}

/// A field in which records have differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFigures {
    /// How.
    pub kind: DriftKind,
    /// Which field; `None`: all that are not told apart.
    pub path: Option<FieldPath>,
    /// How many records; of fields that are not told apart a record counts once for each.
    pub records: u64,
    /// When the first of them was read, in milliseconds since 1970,
    pub first_ms: i64,
    /// and the last.
    pub last_ms: i64,
    /// The field's value in the first of them, if it has one that can be shown.
    pub example: Option<String>,
}

impl DriftFigures {
    /// Adds what a run of records had, which was read at this time.
    pub fn add(&self, drift: &Drift, now_ms: i64) {
        if drift.is_empty() {
            return;
        }
        for (figures, (_, drifted)) in self.kinds.lock().iter_mut().zip(drift.kinds()) {
            figures.records += drifted.records;
            let mut others = drifted.others;
            for field in &drifted.fields {
                let room = figures.fields.len() < MOST_FIELDS;
                match figures.fields.get_mut(&field.path) {
                    Some(seen) => seen.add(field.records, now_ms),
                    None if room => {
                        let seen = Seen { records: field.records, first_ms: now_ms, last_ms: now_ms, example: field.example.clone() };
                        figures.fields.insert(field.path.clone(), seen);
                    }
                    None => others += field.records,
                }
            }
            if others > 0 {
                let none = Seen { records: 0, first_ms: now_ms, last_ms: now_ms, example: None };
                figures.others.get_or_insert(none).add(others, now_ms);
            }
        }
    }

    /// How many records have differed.
    pub fn totals(&self) -> DriftTotals {
        let [new, missing, retyped] = &*self.kinds.lock();
        DriftTotals { new: new.records, missing: missing.records, retyped: retyped.records }
    }

    /// In which fields, in the order in which they came.
    pub fn fields(&self) -> Vec<FieldFigures> {
        let mut all = vec![];
        for (figures, kind) in self.kinds.lock().iter().zip(DriftKind::ALL) {
            let told_apart = figures.fields.iter().map(|(path, seen)| (Some(path), seen));
            for (path, seen) in told_apart.chain(figures.others.iter().map(|seen| (None, seen))) {
                let Seen { records, first_ms, last_ms, example } = seen.clone();
                all.push(FieldFigures { kind, path: path.cloned(), records, first_ms, last_ms, example });
            }
        }
        all.sort_by(|a, b| a.first_ms.cmp(&b.first_ms).then_with(|| parts(a).cmp(&parts(b))));
        all
    }
}

impl Seen {
    fn add(&mut self, records: u64, now_ms: i64) {
        self.records += records;
        self.last_ms = now_ms;
    }
}

fn parts(field: &FieldFigures) -> Option<&[String]> {
    field.path.as_ref().map(|path| path.parts.as_slice())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decode::{Drifted, DriftedField};

    fn field(name: &str, records: u64) -> DriftedField {
        let path = FieldPath { in_key: false, parts: vec![name.into()] };
        DriftedField { path, records, example: Some(format!("{name} {records}")) }
    }

    #[test]
    fn fields_add_up_and_are_bounded() {
        let figures = DriftFigures::default();
        figures.add(&Drift::default(), 1);
        assert_eq!((figures.totals(), figures.fields()), (DriftTotals::default(), vec![]));
        let new = |fields: Vec<DriftedField>, records, others| Drift { new: Drifted { records, fields, others }, ..Drift::default() };
        figures.add(&new((0..70).map(|n| field(&format!("f{n}"), 2)).collect(), 5, 0), 1_000);
        figures.add(&new((40..140).map(|n| field(&format!("f{n}"), 3)).collect(), 7, 4), 3_000);
        let retyped = Drifted { records: 1, fields: vec![field("f0", 1)], others: 0 };
        figures.add(&Drift { retyped, ..Drift::default() }, 2_000);
        assert_eq!(figures.totals(), DriftTotals { new: 12, missing: 0, retyped: 1 });
        let fields = figures.fields();
        let of = |name: &str, kind| fields.iter().find(|f| f.kind == kind && parts(f).is_some_and(|parts| parts == [name])).unwrap();
        let f50 = of("f50", DriftKind::New);
        assert_eq!((f50.records, f50.first_ms, f50.last_ms, f50.example.as_deref()), (5, 1_000, 3_000, Some("f50 2")));
        assert_eq!((of("f0", DriftKind::New).last_ms, of("f0", DriftKind::Retyped).first_ms), (1_000, 2_000));
        // A hundred names, those of all others together, and the one of another kind.
        assert_eq!(fields.len(), MOST_FIELDS + 2);
        let others = fields.iter().find(|f| f.path.is_none()).unwrap();
        assert_eq!((others.records, others.first_ms, others.example.as_deref()), (40 * 3 + 4, 3_000, None));
    }
}
