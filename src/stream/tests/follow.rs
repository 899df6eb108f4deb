//! What a follower of a view has when it adds up what it gets.

use std::collections::BTreeMap;

use arrow::{array::AsArray, datatypes::Int64Type};
use futures::FutureExt;

use super::batch::{Bag, bag};
use crate::stream::{changes::Follower, view::PublishedView};

pub struct Followed {
    follower: Follower,
    /// Changes up to this epoch have been taken.
    epoch: u64,
    columns: usize,
    rows: BTreeMap<String, i64>,
}

impl Followed {
    /// Follows a view from an epoch on, at which it has these rows.
    pub fn from(view: &PublishedView, epoch: u64, rows: &Bag) -> Self {
        let rows = rows.iter().map(|(row, n)| (row.clone(), *n as i64)).collect();
        Self { follower: view.changes.follow(), epoch, columns: view.plan.schema.fields().len(), rows }
    }

    /// Takes what has come since, change by change: a row and its weight.
    pub fn take(&mut self) -> Result<Vec<(String, i64)>, String> {
        let mut taken = vec![];
        while let Some(changes) = self.follower.next(self.epoch).now_or_never() {
            for change in changes.map_err(|e| e.to_string())?.ok_or("the follower fell behind")? {
                self.epoch = change.epoch;
                for batch in change.batches.iter() {
                    let weights = (batch.num_columns() > self.columns).then(|| batch.column(self.columns).as_primitive::<Int64Type>());
                    let visible = batch.project(&(0..self.columns).collect::<Vec<_>>()).unwrap();
                    for row in 0..batch.num_rows() {
                        let text = bag([visible.slice(row, 1)]).into_keys().next().unwrap();
                        let weight = weights.map_or(1, |weights| weights.value(row));
                        let held = self.rows.entry(text.clone()).or_default();
                        *held += weight;
                        if *held < 0 {
                            return Err(format!("a row was taken away that nobody has: {text}"));
                        }
                        taken.push((text, weight));
                    }
                }
            }
        }
        self.rows.retain(|_, held| *held > 0);
        Ok(taken)
    }

    /// What has been added up.
    pub fn rows(&self) -> Bag {
        self.rows.iter().map(|(row, held)| (row.clone(), *held as usize)).collect()
    }
}
