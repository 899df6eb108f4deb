//! One query over one view's changes, run once an epoch for all who subscribe with it: a thousand subscribers cost one plan.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::query::ViewQuery;
use crate::{
    error::Result,
    stream::changes::{ChangeLog, EpochChanges, Follower},
};

/// What makes two subscriptions the same: the view's number, and what runs. Nothing of whoever subscribes is in that: `current_user` is for
/// queries alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The view's number: another definition of the same name has another one.
    pub view: u64,
    /// The plan as bytes.
    pub plan: Vec<u8>,
    /// The result's columns may be NULL.
    pub nullable: bool,
}

/// The queries that are subscribed to, by what they are.
#[derive(Debug, Default)]
pub struct Hubs {
    running: Mutex<HashMap<Key, Weak<Hub>>>,
}

/// A query's results, epoch by epoch. It goes with the last who holds it.
#[derive(Debug)]
pub(super) struct Hub {
    /// The results, ready to be sent.
    pub changes: Arc<ChangeLog>,
    /// Its worker ends when this is gone.
    _stop: oneshot::Sender<()>,
}

impl Hubs {
    /// The hub of a query, which begins with the view's newest changes if it is the first.
    pub(super) fn of(&self, key: Key, query: &Arc<ViewQuery>, changes: &Arc<ChangeLog>) -> Arc<Hub> {
        let mut running = self.running.lock();
        if let Some(hub) = running.get(&key).and_then(Weak::upgrade).filter(|hub| !hub.changes.has_ended()) {
            return hub;
        }
        running.retain(|_, hub| hub.strong_count() > 0);
        let (stop, stopped) = oneshot::channel();
        // Follow first, then look: what comes after this epoch is seen.
        let follower = changes.follow();
        let begin = changes.newest();
        let results = Arc::new(ChangeLog::new(begin));
        let hub = Arc::new(Hub { changes: results.clone(), _stop: stop });
        running.insert(key, Arc::downgrade(&hub));
        tokio::spawn(work(query.clone(), follower, begin, results, stopped));
        hub
    }

    /// How many queries are run for subscribers.
    pub fn count(&self) -> usize {
        self.running.lock().values().filter(|hub| hub.strong_count() > 0).count()
    }
}

async fn work(query: Arc<ViewQuery>, mut follower: Follower, mut epoch: u64, results: Arc<ChangeLog>, stopped: oneshot::Receiver<()>) {
    let worked = async {
        loop {
            let Some(changes) = follower.next(epoch).await? else {
                // Slower than the view: everybody behind it has missed something.
                epoch = follower.newest();
                results.skip(epoch);
                continue;
            };
            for change in changes {
                epoch = change.epoch;
                let batches = query.changes(&change).await?;
                if !batches.is_empty() {
                    results.push(EpochChanges { epoch, batches: batches.into() });
                }
            }
        }
    };
    tokio::select! {
        ended = worked => {
            let ended: Result<()> = ended;
            results.end(ended.err().map_or_else(String::new, |error| error.to_string()));
        }
        // Nobody sends anything: the last subscriber has gone.
        _ = stopped => {}
    }
}
