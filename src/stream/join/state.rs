//! Both sides of a join between epochs, and what an epoch makes of them.
//!
//! With L and R as they were and ΔL and ΔR as they come, the pairs that come and go are ΔL⋈R + L⋈ΔR + ΔL⋈ΔR, weights multiplied. A row of a
//! preserved side is shown by how many rows it matches, at the epoch's start and at its end: what would come and go in between is never seen.
//!
//! A row that is done with leaves silently: what it was joined to stays. Where the other side is preserved, its rows remember how many
//! such matches they have had, so that they are never taken for rows that match nothing.

use std::{
    any::Any,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    record_batch::RecordBatch,
};
use datafusion::common::JoinType;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    delta::{Delta, batch_of, taken},
    output::{From, Output, Pairs, Shown, marks, padding},
    side::{Side, StagedSide},
    spec::{JoinSpec, SideSpec},
};
use crate::{
    error::{Error, Result},
    stream::{
        epoch::{LateRow, OperatorState},
        key_map::{KeyHash, KeyMap},
        segments::{RowId, SegmentLog},
        time::{BEGINNING, WatermarkStep},
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// So many candidates are looked at by a join's condition at once.
const CHUNK: usize = 8192;

/// Both sides of a join.
#[derive(Debug)]
pub struct JoinState {
    spec: Arc<JoinSpec>,
    sides: [Side; 2],
    progress: Progress,
    staged: Option<Staged>,
}

/// What a checkpoint holds beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// For each side, before which instant its rows are late, in nanoseconds since 1970: what they could have matched may be gone.
    floors: [i64; 2],
    /// Rows of the right side, ever, and those whose key is NULL: what `NOT IN` asks for.
    right_rows: i64,
    right_nulls: i64,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    sides: [StagedSide; 2],
    progress: Progress,
}

/// Stored rows that an epoch takes away.
#[derive(Debug, Default)]
struct Gone {
    /// Each with the epoch's row that says so.
    rows: Vec<(RowId, u32)>,
    ids: HashSet<RowId>,
    /// How many were found for each of the epoch's rows.
    found: Vec<i64>,
}

/// How many matches are counted that the other side does not hold: of stored rows, and of the epoch's, in their order.
type LostMatches = (Vec<(RowId, i64)>, Vec<i64>);

/// What an epoch does to the rows of a preserved side.
#[derive(Debug, Default)]
struct Touched {
    shown: Vec<Shown>,
    /// New counts of stored rows.
    counts: Vec<(RowId, i64)>,
    /// Counts of the epoch's rows.
    fresh: Vec<i64>,
}

/// Which rows of a side come to its log, and which leave it.
#[derive(Debug, Default)]
struct Storage {
    /// In order of their ids.
    removed: Vec<RowId>,
    /// Rows that are done with, likewise.
    expired: Vec<RowId>,
    /// The epoch's rows that are to be held, by place.
    kept: Vec<u32>,
    /// For each of the epoch's rows, how much it counts for what it matches without being held.
    unheld: Vec<i64>,
}

impl JoinState {
    /// No rows.
    pub fn new(spec: Arc<JoinSpec>) -> Result<Self> {
        let side = |side: &SideSpec| Side::new(side, SegmentLog::new(side.stored.clone()));
        let sides = [side(&spec.sides[0])?, side(&spec.sides[1])?];
        Ok(Self { spec, sides, progress: Progress { floors: [BEGINNING; 2], right_rows: 0, right_nulls: 0 }, staged: None })
    }

    /// Takes an epoch's rows of both sides in and returns what is emitted. `steps` is how far each side's time has come. Takes effect with
    /// `commit`.
    pub fn stage(&mut self, arriving: [Vec<RecordBatch>; 2], steps: [Option<WatermarkStep>; 2], late: &mut Vec<LateRow>) -> Result<Vec<RecordBatch>> {
        let spec = self.spec.clone();
        let (mut judged, mut floors) = (self.progress.floors, self.progress.floors);
        for side in 0..2 {
            if let (Some(clock), Some(step)) = (&spec.sides[side].clock, steps[side]) {
                let less = |watermark: i64| watermark.saturating_sub(clock.lag).saturating_sub(spec.lateness);
                // What the logged watermark said before the epoch, and not what this epoch's rows say.
                judged[side] = judged[side].max(less(step.before));
                floors[side] = judged[side].max(less(step.after));
            }
        }
        let mut delta = |at: usize| {
            let (side, held) = (&spec.sides[at], &self.sides[at]);
            Delta::arriving(side, &held.index, held.by_value.as_ref(), spec.null_equals_null, &arriving[at], judged[at], late)
        };
        let deltas = [delta(0)?, delta(1)?];
        let mut progress = Progress { floors, ..self.progress };
        if spec.null_aware {
            progress.right_rows += deltas[1].weights.iter().sum::<i64>();
            progress.right_nulls += deltas[1].weights.iter().zip(&deltas[1].null_keys).filter(|(_, null)| **null).map(|(weight, _)| weight).sum::<i64>();
        }
        let gone = [self.gone(0, &deltas[0], judged[1])?, self.gone(1, &deltas[1], judged[0])?];
        let fresh = [&deltas[0], &deltas[1]];
        let parts =
            [self.meet([From::Fresh, From::Stored], fresh)?, self.meet([From::Stored, From::Fresh], fresh)?, self.meet([From::Fresh, From::Fresh], fresh)?];
        let touched = [self.touch(0, &deltas[0], &parts, &gone[0], &progress)?, self.touch(1, &deltas[1], &parts, &gone[1], &progress)?];
        let output = self.output(&deltas, &parts, &touched)?;
        #[cfg(test)]
        let floors = if Mutant::JoinDroppedEarly.is_on() { floors.map(|floor| floor.saturating_add(1)) } else { floors };
        let storage = [self.storage(0, &deltas[0], &gone[0], &touched[0], floors[1])?, self.storage(1, &deltas[1], &gone[1], &touched[1], floors[0])?];
        let staged = |at: usize| self.staged_side(at, &deltas, &parts, &touched[at], &storage);
        self.staged = Some(Staged { sides: [staged(0)?, staged(1)?], progress });
        Ok(output)
    }

    /// The stored rows that an epoch's rows take away. One whose time is over may have left already.
    fn gone(&self, side: usize, delta: &Delta, over: i64) -> Result<Gone> {
        let mut gone = Gone { found: vec![0; delta.len()], ..Gone::default() };
        let Some(index) = &self.sides[side].by_value else { return Ok(gone) };
        let mut taking = index.taking();
        for (row, weight) in delta.weights.iter().enumerate() {
            if *weight > 0 || !self.is_held(side, delta, row) {
                continue;
            }
            for _ in 0..weight.unsigned_abs() {
                match taking.take(delta.hashes[row]) {
                    Some(id) => {
                        gone.rows.push((id, row as u32));
                        gone.ids.insert(id);
                        gone.found[row] += 1;
                    }
                    None if delta.expiries[row] < over => break,
                    None => return Err(Error::Internal("a join was told to take away a row that it does not hold".into())),
                }
            }
        }
        Ok(gone)
    }

    /// Whether a row of a side is one to be held: what matches nothing is not, except where `NOT IN` shows it as long as the right side is empty.
    fn is_held(&self, side: usize, delta: &Delta, row: usize) -> bool {
        delta.matches[row] || (self.spec.null_aware && side == 0)
    }

    /// Pairs of rows that match: the rows of a side are those of `fresh`, or those that the side holds.
    fn meet(&self, from: [From; 2], fresh: [&Delta; 2]) -> Result<Pairs> {
        let mut meeting = Meeting { state: self, fresh, found: Pairs::new(from), chunk: Pairs::new(from) };
        match from {
            [From::Fresh, From::Fresh] => {
                if fresh[0].is_empty() || fresh[1].is_empty() {
                    return Ok(meeting.found);
                }
                // The shorter side is looked up.
                let short = usize::from(fresh[1].len() <= fresh[0].len());
                let mut by_key: KeyMap<Vec<u32>> = KeyMap::default();
                for row in (0..fresh[short].len()).filter(|row| fresh[short].matches[*row]) {
                    by_key.entry(fresh[short].keys[row]).or_default().push(row as u32);
                }
                for row in (0..fresh[1 - short].len()).filter(|row| fresh[1 - short].matches[*row]) {
                    for other in by_key.get(fresh[1 - short].keys[row]).into_iter().flatten() {
                        let [left, right] = if short == 1 { [row as u32, *other] } else { [*other, row as u32] };
                        meeting.push(left, right, fresh[0].weights[left as usize] * fresh[1].weights[right as usize])?;
                    }
                }
            }
            [From::Fresh, From::Stored] => {
                for left in (0..fresh[0].len()).filter(|row| fresh[0].matches[*row]) {
                    for right in self.sides[1].index.get(fresh[0].keys[left]) {
                        meeting.push(left as u32, right, fresh[0].weights[left])?;
                    }
                }
            }
            [From::Stored, From::Fresh] => {
                for right in (0..fresh[1].len()).filter(|row| fresh[1].matches[*row]) {
                    for left in self.sides[0].index.get(fresh[1].keys[right]) {
                        meeting.push(left, right as u32, fresh[1].weights[right])?;
                    }
                }
            }
            [From::Stored, From::Stored] => return Err(Error::Internal("a join was to join all that it holds".into())),
        }
        meeting.finish()
    }

    /// How an epoch changes what the rows of a preserved side match, and so which of them are shown.
    fn touch(&self, side: usize, delta: &Delta, parts: &[Pairs; 3], gone: &Gone, to: &Progress) -> Result<Touched> {
        if !self.spec.sides[side].preserved {
            return Ok(Touched::default());
        }
        let other = 1 - side;
        // By what was there, and by what comes.
        let (mut before, mut coming) = (vec![0; delta.len()], vec![0; delta.len()]);
        let mut moved: Vec<(RowId, i64)> = vec![];
        for part in parts {
            for (row, weight) in part.rows[side].iter().zip(&part.weights) {
                match (part.from[side], part.from[other]) {
                    (From::Stored, _) => moved.push((*row, *weight)),
                    (From::Fresh, From::Stored) => before[*row as usize] += weight / delta.weights[*row as usize],
                    (From::Fresh, From::Fresh) => coming[*row as usize] += weight / delta.weights[*row as usize],
                }
            }
        }
        let held = &self.sides[side];
        let (was, is) = (self.progress, *to);
        // A row with a NULL for its key meets none: it changes only where the right side as a whole does.
        let mut null_rows = HashSet::new();
        let (nulls, any) = ((was.right_nulls > 0) != (is.right_nulls > 0), (was.right_rows > 0) != (is.right_rows > 0));
        if self.spec.null_aware && (nulls || any) {
            null_rows = self.null_rows()?;
            match nulls {
                true => moved.extend(held.index.rows().map(|row| (row, 0))),
                false => moved.extend(null_rows.iter().map(|row| (*row, 0))),
            }
        }
        let mut touched = Touched::default();
        for (row, more) in summed(moved) {
            if gone.ids.contains(&row) {
                continue;
            }
            let (old, new) = (held.count(row), held.count(row) + more);
            if new < 0 {
                return Err(Error::Internal("a row of a join matches fewer rows than none".into()));
            }
            let is_null = null_rows.contains(&row);
            let (hidden, shown) = (self.shown(side, old, is_null, &was), self.shown(side, new, is_null, &is));
            if hidden != shown {
                let mut show = |mark: Option<bool>, weight: i64| touched.shown.extend(mark.map(|mark| Shown { from: From::Stored, row, mark, weight }));
                #[cfg(test)]
                let hidden = hidden.filter(|_| !Mutant::PadNotTakenBack.is_on());
                show(hidden, -1);
                show(shown, 1);
            }
            if old != new {
                touched.counts.push((row, new));
            }
        }
        let mut old_counts: HashMap<u32, Vec<i64>> = HashMap::new();
        for (id, row) in &gone.rows {
            old_counts.entry(*row).or_default().push(held.count(*id));
        }
        for (row, weight) in delta.weights.iter().enumerate() {
            let is_null = delta.null_keys[row];
            let mut show = |mark: Option<bool>, weight: i64| {
                touched.shown.extend(mark.filter(|_| weight != 0).map(|mark| Shown { from: From::Fresh, row: row as u32, mark, weight }));
            };
            if *weight > 0 {
                show(self.shown(side, before[row] + coming[row], is_null, &is), *weight);
            } else {
                let known = old_counts.remove(&(row as u32)).unwrap_or_default();
                // Those that had left already matched what is there still, and nothing else: nothing of the other side that could match them has gone.
                show(self.shown(side, before[row], is_null, &was), weight + known.len() as i64);
                for count in known {
                    show(self.shown(side, count, is_null, &was), -1);
                }
            }
            touched.fresh.push(before[row] + coming[row]);
        }
        Ok(touched)
    }

    /// Whether a row of a preserved side with so many matches is shown, and if so as one that matches something.
    fn shown(&self, side: usize, count: i64, null_key: bool, at: &Progress) -> Option<bool> {
        use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        let matched = count > 0;
        match self.spec.kind {
            LeftSemi | RightSemi => matched.then_some(true),
            LeftMark | RightMark => Some(matched),
            LeftAnti if self.spec.null_aware => (!matched && at.right_nulls == 0 && (!null_key || at.right_rows == 0)).then_some(false),
            LeftAnti | RightAnti => (!matched).then_some(false),
            Full => (!matched).then_some(false),
            Left => (!matched && side == 0).then_some(false),
            Right => (!matched && side == 1).then_some(false),
            Inner => None,
        }
    }

    /// Left rows with a NULL for what must not be in the right side.
    fn null_rows(&self) -> Result<HashSet<RowId>> {
        let Some(key) = self.spec.sides[0].keys.first() else { return Ok(HashSet::new()) };
        let null = arrow::array::new_null_array(&key.data_type(&self.spec.sides[0].rows)?, 1);
        let index = &self.sides[0].index;
        Ok(index.hashes_of(&[null], 1)?.into_iter().flat_map(|hash| index.get(hash)).collect())
    }

    /// Which rows are to be held, and which no longer. `floor` is before which instant rows of this side are done with.
    fn storage(&self, side: usize, delta: &Delta, gone: &Gone, touched: &Touched, floor: i64) -> Result<Storage> {
        let (spec, held) = (&self.spec, &self.sides[side]);
        let mut storage = Storage { unheld: vec![0; delta.len()], expired: held.expired(floor), ..Storage::default() };
        storage.expired.retain(|row| !gone.ids.contains(row));
        let is_over = |row: RowId| gone.ids.contains(&row) || storage.expired.binary_search(&row).is_ok();
        let mut removed = storage.expired.clone();
        removed.extend(&gone.ids);
        if spec.settles(side) {
            removed.extend(touched.counts.iter().filter(|(row, count)| *count > 0 && !is_over(*row)).map(|(row, _)| *row));
        }
        // Where one row a key is enough, it is the one that lasts longest.
        let mut lasting: HashMap<KeyHash, u32> = HashMap::new();
        for row in 0..delta.len() {
            let weight = delta.weights[row];
            if weight < 0 {
                storage.unheld[row] = weight + gone.found[row];
                continue;
            }
            if spec.complete || !self.is_held(side, delta, row) || (spec.settles(side) && touched.fresh[row] > 0) {
                continue;
            }
            if delta.expiries[row] < floor {
                storage.unheld[row] = weight;
                continue;
            }
            if spec.one_a_key(side) {
                let longest = lasting.entry(delta.keys[row]).or_insert(row as u32);
                if delta.expiries[*longest as usize] < delta.expiries[row] {
                    *longest = row as u32;
                }
                continue;
            }
            storage.kept.extend(std::iter::repeat_n(row as u32, weight as usize));
        }
        for (key, row) in lasting {
            match held.index.first(key).filter(|held| !is_over(*held)) {
                Some(known) if held.expiry(known) >= delta.expiries[row as usize] => continue,
                Some(known) => removed.push(known),
                None => {}
            }
            storage.kept.push(row);
        }
        storage.kept.sort_unstable();
        removed.sort_unstable();
        removed.dedup();
        storage.removed = removed;
        Ok(storage)
    }

    /// What an epoch does to a side.
    fn staged_side(&self, side: usize, deltas: &[Delta; 2], parts: &[Pairs; 3], touched: &Touched, storage: &[Storage; 2]) -> Result<StagedSide> {
        let (spec, delta, own) = (&self.spec.sides[side], &deltas[side], &storage[side]);
        let (more, fresh_kept) = if spec.remembers { self.lost_matches(side, deltas, parts, storage)? } else { (vec![], vec![]) };
        let stays = |row: &RowId| own.removed.binary_search(row).is_err();
        let more: Vec<(RowId, i64)> = more.into_iter().filter(|(row, more)| *more != 0 && stays(row)).collect();
        let (rewritten, rewritten_rows) = match more.is_empty() {
            true => (vec![], RecordBatch::new_empty(spec.stored.clone())),
            false => self.sides[side].rewritten(spec, &more)?,
        };
        let kept = own.kept.iter().map(|row| fresh_kept.get(*row as usize).copied().unwrap_or_default()).collect();
        let fresh = own.kept.iter().map(|row| *row as usize).map(|row| delta.fresh(row, touched.fresh.get(row).copied().unwrap_or_default()));
        Ok(StagedSide {
            removed: own.removed.clone(),
            rewritten,
            rewritten_rows,
            appended: Side::stored(spec, &taken(&delta.rows, &own.kept)?, kept)?,
            fresh: fresh.collect(),
            counts: touched.counts.iter().filter(|(row, _)| stays(row)).copied().collect(),
        })
    }

    /// How many matches of a side's rows are counted that the other side does not hold: of stored rows, and of the epoch's.
    fn lost_matches(&self, side: usize, deltas: &[Delta; 2], parts: &[Pairs; 3], storage: &[Storage; 2]) -> Result<LostMatches> {
        let other = 1 - side;
        let unheld = &storage[other].unheld;
        let expired: HashSet<RowId> = storage[other].expired.iter().copied().collect();
        let (mut more, mut fresh) = (vec![], vec![0; deltas[side].len()]);
        for part in parts {
            for (row, partner) in part.rows[side].iter().zip(&part.rows[other]) {
                match (part.from[side], part.from[other]) {
                    (From::Stored, _) => more.push((*row, unheld[*partner as usize])),
                    (From::Fresh, From::Fresh) => fresh[*row as usize] += unheld[*partner as usize],
                    (From::Fresh, From::Stored) => fresh[*row as usize] += i64::from(expired.contains(partner)),
                }
            }
        }
        let over = self.sides[other].described(&self.spec.sides[other], self.spec.null_equals_null, &storage[other].expired)?;
        let (from, rows) = match side {
            0 => ([From::Stored, From::Fresh], [&deltas[0], &over]),
            _ => ([From::Fresh, From::Stored], [&over, &deltas[1]]),
        };
        more.extend(self.meet(from, rows)?.rows[side].iter().map(|row| (*row, 1)));
        Ok((summed(more), fresh))
    }

    /// What is emitted.
    fn output(&self, deltas: &[Delta; 2], parts: &[Pairs; 3], touched: &[Touched; 2]) -> Result<Vec<RecordBatch>> {
        use JoinType::{Full, Inner, Left, LeftMark, Right, RightMark};
        let spec = &self.spec;
        let mut output = Output::new(spec);
        let pairs = matches!(spec.kind, Inner | Left | Right | Full);
        if pairs {
            for part in parts.iter().filter(|part| part.len() > 0) {
                let mut columns = self.columns(0, deltas, part.from[0], &part.rows[0])?;
                columns.extend(self.columns(1, deltas, part.from[1], &part.rows[1])?);
                output.push(columns, part.weights.clone())?;
            }
        }
        for (side, touched) in touched.iter().enumerate() {
            for from in [From::Stored, From::Fresh] {
                let shown: Vec<&Shown> = touched.shown.iter().filter(|shown| shown.from == from).collect();
                if shown.is_empty() {
                    continue;
                }
                let rows: Vec<u32> = shown.iter().map(|shown| shown.row).collect();
                let mut columns = self.columns(side, deltas, from, &rows)?;
                if pairs {
                    let padding = padding(spec, 1 - side, rows.len());
                    columns = if side == 0 { [columns, padding].concat() } else { [padding, columns].concat() };
                }
                if matches!(spec.kind, LeftMark | RightMark) {
                    columns.push(marks(&shown));
                }
                output.push(columns, shown.iter().map(|shown| shown.weight).collect())?;
            }
        }
        output.finish(spec)
    }

    /// A side's columns of rows.
    fn columns(&self, side: usize, deltas: &[Delta; 2], from: From, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = match from {
            From::Fresh => taken(&deltas[side].rows, rows)?,
            From::Stored => self.sides[side].log.gather_columns(rows, &(0..self.spec.sides[side].rows.fields().len()).collect::<Vec<_>>())?,
        };
        Ok(rows.columns().to_vec())
    }

    /// Counts what the rows of a preserved side match of what the other side holds.
    fn recount(&mut self, side: usize) -> Result<()> {
        if !self.spec.sides[side].preserved {
            return Ok(());
        }
        let other = 1 - side;
        let parts = self.sides[side].log.live().collect::<Result<Vec<_>>>()?;
        let width = self.spec.sides[side].rows.fields().len();
        for (ids, batch) in parts {
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let of_side = Delta::of(&self.spec.sides[side], &self.sides[side].index, None, self.spec.null_equals_null, rows, vec![1; ids.len()])?;
            if self.spec.filter.is_none() {
                for (row, id) in ids.into_iter().enumerate().filter(|(row, _)| of_side.matches[*row]) {
                    let count = self.sides[other].index.get(of_side.keys[row]).count() as i64;
                    self.sides[side].add_count(id, count);
                }
                continue;
            }
            let none = Delta::of(
                &self.spec.sides[other],
                &self.sides[other].index,
                None,
                self.spec.null_equals_null,
                RecordBatch::new_empty(self.spec.sides[other].rows.clone()),
                vec![],
            )?;
            let pairs = match side {
                0 => self.meet([From::Fresh, From::Stored], [&of_side, &none])?,
                _ => self.meet([From::Stored, From::Fresh], [&none, &of_side])?,
            };
            for row in &pairs.rows[side] {
                self.sides[side].add_count(ids[*row as usize], 1);
            }
        }
        Ok(())
    }
}

/// Candidates on their way to pairs.
struct Meeting<'a> {
    state: &'a JoinState,
    fresh: [&'a Delta; 2],
    found: Pairs,
    chunk: Pairs,
}

impl Meeting<'_> {
    fn push(&mut self, left: u32, right: u32, weight: i64) -> Result<()> {
        #[cfg(test)]
        if Mutant::RetractionLost.is_on() && weight < 0 {
            return Ok(());
        }
        if self.state.spec.filter.is_none() {
            self.found.push(left, right, weight);
            return Ok(());
        }
        self.chunk.push(left, right, weight);
        if self.chunk.len() == CHUNK { self.look() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Pairs> {
        self.look()?;
        Ok(self.found)
    }

    /// Moves the candidates on that satisfy the condition.
    fn look(&mut self) -> Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Pairs::new(self.found.from));
        let Some(filter) = self.state.spec.filter.as_ref().filter(|_| chunk.len() > 0) else { return Ok(()) };
        let mut columns: Vec<ArrayRef> = vec![];
        for side in 0..2 {
            let (wanted, rows) = (&filter.columns[side], &chunk.rows[side]);
            let of_side = match chunk.from[side] {
                From::Fresh => taken(&self.fresh[side].rows.project(wanted)?, rows)?,
                From::Stored => self.state.sides[side].log.gather_columns(rows, wanted)?,
            };
            columns.extend_from_slice(of_side.columns());
        }
        let holds = filter.expr.evaluate(&batch_of(filter.schema.clone(), columns, chunk.len())?)?.into_array(chunk.len())?;
        let holds = holds.as_boolean();
        for row in (0..chunk.len()).filter(|row| holds.is_valid(*row) && holds.value(*row)) {
            self.found.push(chunk.rows[0][row], chunk.rows[1][row], chunk.weights[row]);
        }
        Ok(())
    }
}

/// One entry a row, in order of the rows.
fn summed(mut entries: Vec<(RowId, i64)>) -> Vec<(RowId, i64)> {
    entries.sort_unstable_by_key(|(row, _)| *row);
    entries.dedup_by(|next, first| {
        let same = next.0 == first.0;
        if same {
            first.1 += next.1;
        }
        same
    });
    entries
}

impl OperatorState for JoinState {
    fn commit(&mut self) -> Result<()> {
        let Some(Staged { sides, progress }) = self.staged.take() else { return Ok(()) };
        for (side, staged) in self.sides.iter_mut().zip(sides) {
            side.commit(staged)?;
        }
        self.progress = progress;
        Ok(())
    }

    fn abort(&mut self) {
        self.staged = None;
    }

    fn logs(&self) -> Vec<&SegmentLog> {
        self.sides.iter().map(|side| &side.log).collect()
    }

    fn meta(&self) -> serde_json::Value {
        json!(self.progress)
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> Result<()> {
        self.progress = Progress::deserialize(meta).map_err(|e| Error::Internal(format!("a checkpoint's join lacks how far it had come: {e}")))?;
        let logs: [SegmentLog; 2] = logs.try_into().map_err(|_| Error::Internal("a checkpoint's join does not have two sides".into()))?;
        self.staged = None;
        for (at, log) in logs.into_iter().enumerate() {
            #[cfg(test)]
            let log = if Mutant::StateForgotten.is_on() { SegmentLog::new(log.schema().clone()) } else { log };
            self.sides[at] = Side::new(&self.spec.sides[at], log)?;
            self.sides[at].rebuild(&self.spec.sides[at], self.spec.null_equals_null)?;
        }
        self.recount(0)?;
        self.recount(1)
    }

    fn has_open_windows(&self) -> bool {
        false
    }

    fn due(&self) -> Option<i64> {
        None
    }

    fn rows(&self) -> usize {
        self.sides.iter().map(|side| side.log.rows()).sum()
    }

    fn bytes(&self) -> usize {
        self.sides.iter().map(Side::bytes).sum()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::{
        array::Int64Array,
        datatypes::{DataType, Field, FieldRef, Int64Type, Schema},
    };
    use datafusion::{
        logical_expr::Operator,
        physical_expr::expressions::{BinaryExpr, Column},
    };
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::stream::{
        hidden::weight_field,
        join::spec::{FilterSpec, SideSpec},
        segments::StoredSegment,
    };

    const KINDS: [JoinType; 10] = [
        JoinType::Inner,
        JoinType::Left,
        JoinType::Right,
        JoinType::Full,
        JoinType::LeftSemi,
        JoinType::RightSemi,
        JoinType::LeftAnti,
        JoinType::RightAnti,
        JoinType::LeftMark,
        JoinType::RightMark,
    ];

    type Row = (Option<i64>, i64);
    type Bag = BTreeMap<Vec<Option<i64>>, i64>;

    /// Rows (k, v) of both sides, joined on k.
    fn spec(kind: JoinType, changing: bool, null_equals_null: bool, filtered: bool) -> Arc<JoinSpec> {
        use JoinType::{Full, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        let column = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
        let rows = Arc::new(Schema::new(vec![column("k"), column("v")]));
        let side = |preserved: bool| SideSpec {
            visible: vec![0, 1],
            rows: rows.clone(),
            stored: rows.clone(),
            weight: changing.then_some(2),
            locator: None,
            keys: vec![Arc::new(Column::new("k", 0))],
            preserved,
            remembers: false,
            expiry: None,
            null_matches: false,
            clock: None,
        };
        let both = Arc::new(Schema::new(vec![column("l"), column("r")]));
        let less = BinaryExpr::new(Arc::new(Column::new("l", 0)), Operator::Lt, Arc::new(Column::new("r", 1)));
        let mut output: Vec<FieldRef> = match kind {
            LeftSemi | RightSemi | LeftAnti | RightAnti => vec![column("k"), column("v")],
            LeftMark | RightMark => vec![column("k"), column("v"), Arc::new(Field::new("mark", DataType::Boolean, false))],
            _ => vec![column("k"), column("v"), column("rk"), column("rv")],
        };
        let stays = !changing && matches!(kind, JoinType::Inner | LeftSemi | RightSemi);
        if !stays {
            output.push(weight_field());
        }
        Arc::new(JoinSpec {
            kind,
            null_equals_null,
            null_aware: false,
            complete: false,
            sides: [side(matches!(kind, Left | Full | LeftSemi | LeftAnti | LeftMark)), side(matches!(kind, Right | Full | RightSemi | RightAnti | RightMark))],
            filter: filtered.then(|| FilterSpec { expr: Arc::new(less), columns: [vec![1], vec![1]], schema: both }),
            output: Arc::new(Schema::new(output)),
            changing: !stays,
            lateness: 0,
        })
    }

    fn batch(rows: &[(Row, i64)], changing: bool) -> RecordBatch {
        let mut fields: Vec<FieldRef> = ["k", "v"].map(|name| Arc::new(Field::new(name, DataType::Int64, true))).to_vec();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter(rows.iter().map(|(row, _)| row.0))), Arc::new(Int64Array::from_iter_values(rows.iter().map(|(row, _)| row.1)))];
        if changing {
            fields.push(weight_field());
            columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight))));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    /// The join worked out by looking at every pair.
    fn naive(kind: JoinType, null_equals_null: bool, filtered: bool, sides: &[BTreeMap<Row, i64>; 2]) -> Bag {
        let matches = |l: &Row, r: &Row| l.0 == r.0 && (l.0.is_some() || null_equals_null) && (!filtered || l.1 < r.1);
        let mut bag = Bag::new();
        let pairs = matches!(kind, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
        for (l, n) in &sides[0] {
            for (r, m) in sides[1].iter().filter(|(r, _)| pairs && matches(l, r)) {
                *bag.entry(vec![l.0, Some(l.1), r.0, Some(r.1)]).or_default() += n * m;
            }
        }
        for side in 0..2 {
            for (row, n) in &sides[side] {
                let matched = sides[1 - side].keys().any(|other| if side == 0 { matches(row, other) } else { matches(other, row) });
                let own = [row.0, Some(row.1)];
                let shown = match (kind, side) {
                    (JoinType::Left | JoinType::Full, 0) if !matched => [&own[..], &[None, None]].concat(),
                    (JoinType::Right | JoinType::Full, 1) if !matched => [&[None, None], &own[..]].concat(),
                    (JoinType::LeftSemi, 0) | (JoinType::RightSemi, 1) if matched => own.to_vec(),
                    (JoinType::LeftAnti, 0) | (JoinType::RightAnti, 1) if !matched => own.to_vec(),
                    (JoinType::LeftMark, 0) | (JoinType::RightMark, 1) => [&own[..], &[Some(i64::from(matched))]].concat(),
                    _ => continue,
                };
                *bag.entry(shown).or_default() += n;
            }
        }
        bag
    }

    /// Adds an output to what has been added up; rows that go come first, each once and never in vain.
    fn fold(bag: &mut Bag, batches: &[RecordBatch], changing: bool) {
        for batch in batches {
            let width = batch.num_columns() - usize::from(changing);
            let mut signs = vec![];
            for row in 0..batch.num_rows() {
                let cell = |column: usize| match batch.column(column).data_type() {
                    DataType::Boolean => Some(i64::from(batch.column(column).as_boolean().value(row))),
                    _ => batch.column(column).as_primitive::<Int64Type>().iter().nth(row).flatten(),
                };
                let weight = if changing { batch.column(width).as_primitive::<Int64Type>().value(row) } else { 1 };
                signs.push(weight);
                *bag.entry((0..width).map(cell).collect()).or_default() += weight;
            }
            assert!(signs.is_sorted() && signs.iter().all(|sign| sign.abs() == 1), "{signs:?}");
        }
        assert!(bag.values().all(|n| *n >= 0), "{bag:?}");
        bag.retain(|_, n| *n > 0);
    }

    fn restored(state: &JoinState, spec: &Arc<JoinSpec>) -> JoinState {
        let logs = state.logs().into_iter().map(|log| {
            let stored = log.segments().map(|(id, s)| StoredSegment { id, batch: s.batch.clone(), tombstones: s.tombstones().to_vec() }).collect();
            SegmentLog::restore(log.schema().clone(), stored).unwrap()
        });
        let mut again = JoinState::new(spec.clone()).unwrap();
        again.restore(logs.collect(), &state.meta()).unwrap();
        again
    }

    #[test]
    fn every_kind_equals_the_join_of_all_pairs() {
        for seed in 0..240_u64 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (kind, changing, nulls, filtered) = (KINDS[seed as usize % 10], seed / 10 % 2 == 0, seed / 20 % 2 == 0, seed / 40 % 2 == 0);
            let what = format!("seed {seed}: {kind}, changing {changing}, NULL = NULL {nulls}, filtered {filtered}");
            let spec = spec(kind, changing, nulls, filtered);
            let mut state = JoinState::new(spec.clone()).unwrap();
            let mut sides: [BTreeMap<Row, i64>; 2] = Default::default();
            let mut folded = Bag::new();
            for _ in 0..30 {
                let before = sides.clone();
                let arriving = [0, 1].map(|side: usize| {
                    let mut rows = vec![];
                    for _ in 0..rng.random_range(0..8) {
                        let row = ((!rng.random_bool(0.2)).then(|| rng.random_range(0..4)), rng.random_range(0..5));
                        let held = sides[side].entry(row).or_default();
                        let weight = if changing && *held > 0 && rng.random_bool(0.5) { -rng.random_range(1..=*held) } else { rng.random_range(1..3) };
                        let weight = if changing { weight } else { 1 };
                        *held += weight;
                        rows.push((row, weight));
                    }
                    sides[side].retain(|_, n| *n > 0);
                    vec![batch(&rows, changing)]
                });
                let output = state.stage(arriving, [None, None], &mut vec![]).unwrap();
                if rng.random_bool(0.1) {
                    // As if another operator of the view had failed.
                    state.abort();
                    sides = before;
                    continue;
                }
                state.commit().unwrap();
                fold(&mut folded, &output, spec.changing);
                assert_eq!(folded, naive(kind, nulls, filtered, &sides), "{what}");
                if rng.random_bool(0.1) {
                    state = restored(&state, &spec);
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_there_is_refused() {
        let mut state = JoinState::new(spec(JoinType::Inner, true, false, false)).unwrap();
        let error = state.stage([vec![batch(&[((Some(1), 1), -1)], true)], vec![]], [None, None], &mut vec![]).unwrap_err();
        assert!(error.to_string().contains("take away a row that it does not hold"), "{error}");
    }

    /// What has matched, and what says nothing new, is not kept where rows stay.
    #[test]
    fn a_semi_join_of_rows_that_stay_keeps_what_is_still_asked_for() {
        let mut state = JoinState::new(spec(JoinType::LeftSemi, false, false, false)).unwrap();
        let rows = |range: std::ops::Range<i64>, keys: i64| batch(&range.map(|v| ((Some(v % keys), v), 1)).collect::<Vec<_>>(), false);
        let mut shown = 0;
        for epoch in 0..20 {
            let output = state.stage([vec![rows(epoch * 100..epoch * 100 + 100, 10)], vec![rows(0..50, 5)]], [None, None], &mut vec![]).unwrap();
            shown += output.iter().map(RecordBatch::num_rows).sum::<usize>();
            state.commit().unwrap();
        }
        assert_eq!(shown, 1_000);
        assert_eq!(state.rows(), 1_000 + 5, "left rows that match nothing yet, and one right row a key");
    }
}
