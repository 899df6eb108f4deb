//! Faults that can be put into the engine of one thread, to see whether the tests beside them find faults at all.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use arrow::record_batch::RecordBatch;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The watermark follows the fastest partition.
    FastestPartition,
    /// The last row of a slice is lost.
    RowLost,
    /// A partial result counts twice.
    CountedTwice,
    /// An operator's state does not come back after a restart.
    StateForgotten,
    /// Windows close without their state going, so late rows come in.
    LateAccepted,
    /// A session forgets the one that it was merged with.
    SessionTorn,
    /// A temporal filter keeps rows whose time is over.
    ClockForgotten,
    /// A row that is taken away stays, or joins nothing.
    RetractionLost,
    /// A side of a join goes while a row that is not late could match it.
    JoinDroppedEarly,
    /// A row that stood alone stays when it is joined.
    PadNotTakenBack,
    /// A record without a payload deletes nothing.
    TombstoneIgnored,
    /// Of an epoch's records of one key the first counts.
    OlderWins,
    /// Rows that an order leaves equal stand the other way round in every second process.
    TiesFlip,
    /// What one view gives comes an epoch later to those that read it.
    ArmDelayed,
}

impl Mutant {
    /// Those that batch equivalence has to find.
    pub const ALL: [Mutant; 6] =
        [Mutant::FastestPartition, Mutant::RowLost, Mutant::CountedTwice, Mutant::StateForgotten, Mutant::LateAccepted, Mutant::SessionTorn];

    /// Puts the fault into this thread's engine until the guard goes.
    pub fn on(self) -> Guard {
        ACTIVE.set(Some(self));
        Guard
    }

    /// Whether this thread's engine has the fault.
    pub fn is_on(self) -> bool {
        ACTIVE.get() == Some(self)
    }
}

/// A new process begins in this thread: with [`Mutant::TiesFlip`] they take turns, and what another held back is gone.
pub fn next_process() {
    FORWARDS.set(!FORWARDS.get());
    HELD_BACK.with_borrow_mut(HashMap::clear);
}

/// Whether ties are broken as they should be.
pub fn ties_ascend() -> bool {
    !Mutant::TiesFlip.is_on() || FORWARDS.get()
}

/// With [`Mutant::ArmDelayed`]: what the view `v0` gives now, in exchange for what it gave an epoch before.
pub fn delayed(view: &str, now: Vec<RecordBatch>) -> Vec<RecordBatch> {
    if view != "v0" {
        return now;
    }
    HELD_BACK.with_borrow_mut(|held| held.insert(view.into(), now).unwrap_or_default())
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    static FORWARDS: Cell<bool> = const { Cell::new(true) };
    static HELD_BACK: RefCell<HashMap<String, Vec<RecordBatch>>> = RefCell::default();
}

/// Takes the fault out again.
pub struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        ACTIVE.set(None);
        FORWARDS.set(true);
        HELD_BACK.with_borrow_mut(HashMap::clear);
    }
}
