//! One who follows a view: what is there at one epoch, then every change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{compute::concat_batches, record_batch::RecordBatch};
use tokio::sync::mpsc;

use super::{
    hub::Hub,
    ops::{gap, with_weights},
    query::ViewQuery,
};
use crate::{
    error::{Error, Result},
    sql::{SubscribeOptions, WhenBehind},
    stream::changes::{ChangeLog, EpochChanges, Follower, RETAINED_BYTES, consolidate},
};

/// Changes of several epochs travel together up to so many rows: a reader who is a little slow catches up with few messages.
const TOGETHER: usize = 8192;

/// One who follows a view through a query over it.
pub(super) struct FollowView {
    /// The query.
    pub query: Arc<ViewQuery>,
    /// The view's changes.
    pub changes: Arc<ChangeLog>,
    /// How they come.
    pub feed: Feed,
    /// How it begins, and what becomes of it if it is too slow.
    pub options: SubscribeOptions,
    /// Where rows go.
    pub output: mpsc::Sender<Result<RecordBatch>>,
}

/// How a view's changes come.
pub(super) enum Feed {
    /// Each epoch's, run through the query for all who subscribe with it.
    Shared(Arc<Hub>),
    /// Together, each time so much time has passed.
    Every(Duration),
}

/// Where following begins.
#[derive(Debug, Clone, Copy)]
enum Begin {
    /// With what is there.
    Snapshot,
    /// With the next change.
    Now,
    /// With the changes after this epoch.
    After(u64),
}

/// Why one round of following is over.
enum Over {
    /// Nobody listens any more.
    Gone,
    /// What came after this epoch is no longer held.
    Behind(u64),
}

impl FollowView {
    /// Follows until nobody listens any more, or the view ends.
    pub async fn run(self) {
        let output = self.output.clone();
        tokio::select! {
            result = self.follow() => if let Err(error) = result {
                // The client may have gone.
                let _ = output.send(Err(error)).await;
            },
            () = output.closed() => {}
        }
    }

    async fn follow(self) -> Result<()> {
        let mut begin = match self.options.after {
            Some(epoch) => Begin::After(epoch),
            None if self.options.snapshot => Begin::Snapshot,
            None => Begin::Now,
        };
        loop {
            match self.round(begin).await? {
                Over::Gone => return Ok(()),
                Over::Behind(epoch) => match self.options.when_behind {
                    WhenBehind::Fail => {
                        return Err(Error::Cancelled(format!(
                            "the subscription fell too far behind: changes after epoch {epoch} are no longer held ({} MiB a view); subscribe again, or WITH (when_behind = 'skip')",
                            RETAINED_BYTES >> 20
                        )));
                    }
                    WhenBehind::Skip => begin = Begin::Snapshot,
                },
            }
            if !self.send(gap(&self.query.schema, self.query.board.current().epoch)?).await {
                return Ok(());
            }
        }
    }

    async fn round(&self, begin: Begin) -> Result<Over> {
        let name = &self.query.view;
        // Follow first, then look: every change after the epoch that is seen is held from now on.
        let own = self.changes.follow();
        let follower = match &self.feed {
            Feed::Shared(hub) => hub.changes.follow(),
            Feed::Every(_) => self.changes.follow(),
        };
        let published = self.query.board.current();
        let view = published.views.get(name).ok_or_else(|| Error::Cancelled(format!("view {name} was dropped")))?;
        if let Some(failure) = &view.failure {
            return Err(Error::Cancelled(format!("view {name} failed in epoch {}: {}", failure.epoch, failure.reason)));
        }
        let mut epoch = published.epoch;
        let mut given = false;
        match begin {
            Begin::Now => {}
            Begin::Snapshot => {
                for rows in view.contents.batches() {
                    if let Some(batch) = self.query.rows(&rows?, epoch).await? {
                        given = true;
                        if !self.send(batch).await {
                            return Ok(Over::Gone);
                        }
                    }
                }
            }
            Begin::After(seen) => {
                if seen > epoch {
                    return Err(Error::Invalid(format!("epoch {seen} is still to come: view {name} is at epoch {epoch}")));
                }
                let held = self.changes.can_resume(seen).then(|| own.held(seen)).flatten();
                let Some((changes, upto)) = held else {
                    return Err(Error::Invalid(format!(
                        "the changes of view {name} after epoch {seen} are no longer held: subscribe without AS OF EPOCH, which begins with what is there"
                    )));
                };
                epoch = upto;
                for change in changes {
                    for batch in self.query.changes(&change).await? {
                        given = true;
                        if !self.send(batch).await {
                            return Ok(Over::Gone);
                        }
                    }
                }
            }
        }
        drop(published);
        // Whoever waits for the first batch knows that the subscription stands.
        if !given && !self.send(RecordBatch::new_empty(self.query.schema.clone())).await {
            return Ok(Over::Gone);
        }
        drop(own);
        match self.feed {
            Feed::Shared(_) => self.hand_on(follower, epoch).await,
            Feed::Every(interval) => self.gather(follower, epoch, interval).await,
        }
    }

    /// Hands on what the hub gives.
    async fn hand_on(&self, mut shared: Follower, mut epoch: u64) -> Result<Over> {
        loop {
            let Some(changes) = shared.next(epoch).await? else { return Ok(Over::Behind(epoch)) };
            let mut together: Vec<&RecordBatch> = vec![];
            for batch in changes.iter().flat_map(|change| change.batches.iter()) {
                if together.iter().map(|batch| batch.num_rows()).sum::<usize>() + batch.num_rows() > TOGETHER && !self.send_all(&mut together).await? {
                    return Ok(Over::Gone);
                }
                together.push(batch);
            }
            if !self.send_all(&mut together).await? {
                return Ok(Over::Gone);
            }
            epoch = changes.last().map_or(epoch, |change| change.epoch);
        }
    }

    /// Gives what an interval has brought as one change.
    async fn gather(&self, mut own: Follower, mut epoch: u64, interval: Duration) -> Result<Over> {
        let mut last = Instant::now();
        loop {
            let Some(gathered) = gather(&mut own, epoch, last, interval).await? else { return Ok(Over::Behind(epoch)) };
            last = Instant::now();
            let Some(newest) = gathered.last().map(|change| change.epoch) else { continue };
            epoch = newest;
            let batches = gathered.iter().flat_map(|change| change.batches.iter());
            let batches = batches.map(|batch| with_weights(&self.query.columns, batch)).collect::<Result<Vec<_>>>()?;
            let change = EpochChanges { epoch, batches: consolidate(batches, true, self.query.key().as_deref())?.into() };
            for batch in self.query.changes(&change).await? {
                if !self.send(batch).await {
                    return Ok(Over::Gone);
                }
            }
        }
    }

    /// Whether anybody still listens.
    async fn send(&self, batch: RecordBatch) -> bool {
        self.output.send(Ok(batch)).await.is_ok()
    }

    async fn send_all(&self, batches: &mut Vec<&RecordBatch>) -> Result<bool> {
        Ok(match std::mem::take(batches).as_slice() {
            [] => true,
            [batch] => self.send((*batch).clone()).await,
            several => self.send(concat_batches(&self.query.schema, several.iter().copied())?).await,
        })
    }
}

/// The changes after an epoch until an interval since the last time is over, and on until there are any. `None`: they are no longer held.
async fn gather(follower: &mut Follower, mut epoch: u64, last: Instant, interval: Duration) -> Result<Option<Vec<EpochChanges>>> {
    let due = tokio::time::Instant::from_std(last + interval);
    let mut gathered = vec![];
    loop {
        let Ok(changes) = tokio::time::timeout_at(due, follower.next(epoch)).await else {
            if gathered.is_empty() {
                return follower.next(epoch).await;
            }
            return Ok(Some(gathered));
        };
        let Some(changes) = changes? else { return Ok(None) };
        epoch = changes.last().map_or(epoch, |change| change.epoch);
        gathered.extend(changes);
    }
}
