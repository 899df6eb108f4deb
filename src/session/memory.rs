//! What views and queries may hold in memory: one pool for all of them, a limit of its own for a view that has one. A view that holds more is
//! paused where it stands, and before it those that read it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use tokio::sync::mpsc;

use super::engine::Engine;
use crate::{
    access::Caller,
    error::{Error, Result},
    stream::pipeline::OverBudget,
};

/// What could not be paused is tried again after so long.
const RETRY: Duration = Duration::from_millis(500);

/// The pool of a server that may hold so many bytes.
pub(super) fn pool(limit: usize) -> Arc<dyn MemoryPool> {
    Arc::new(GreedyMemoryPool::new(limit))
}

/// What a server may hold if nobody says: three quarters of what this machine, or this process's control group, has.
pub fn usual_limit() -> usize {
    let kib = |text: &str| text.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).map(|kib| kib << 10);
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| text.lines().find(|line| line.starts_with("MemTotal:")).and_then(kib));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<usize>().ok());
    // Where neither can be told nothing is refused.
    machine.into_iter().chain(group).min().map_or(usize::MAX, |bytes| bytes / 4 * 3)
}

impl Engine {
    /// Pauses views that hold more than they may, as long as the engine lives.
    pub(super) fn watch_memory(self: &Arc<Self>, mut told: mpsc::UnboundedReceiver<OverBudget>) {
        let (engine, handle) = (Arc::downgrade(self), self.handle().clone());
        self.handle().spawn(async move {
            while let Some(over) = told.recv().await {
                tracing::error!(view = over.view, "the view is paused: {}", over.reason);
                handle.spawn(pause(engine.clone(), over));
            }
        });
    }

    /// Pauses a view, and before it those that read it. An error: that is to be tried again, since a disk may have room again later, and a
    /// replacement ends some time.
    async fn pause_over_budget(self: &Arc<Self>, over: &OverBudget) -> Result<()> {
        let view = &over.view;
        if self.driver_of(view).is_none() || self.failure_in(view).is_some() {
            return Ok(());
        }
        for reader in self.running_readers(view) {
            let because = format!("it reads view {view}, which holds too much and is paused: RESUME VIEW {view}, then RESUME VIEW {reader}");
            self.pause(None, &reader, None, Some(&because)).await?;
        }
        self.pause(None, view, Some(over.id), Some(&format!("{}, then RESUME VIEW {view}", over.reason))).await
    }

    /// `ALTER VIEW name SET (memory_limit = '…')`.
    pub(super) async fn set_memory_limit(self: &Arc<Self>, caller: &Caller, name: &str, limit: usize) -> Result<()> {
        let _declaring = self.declare().await;
        self.changeable(caller, name)?.ok_or_else(|| Error::NotFound(format!("there is no view {name}")))?;
        let def = self.catalog().set_memory_limit(name, limit)?;
        match self.driver_of(name) {
            Some(driver) => driver.limit(def).await,
            // One that stands still, or catches up, minds it when it goes on.
            None => Ok(()),
        }
    }
}

/// Tries until it is settled: the view's pipeline waits for it.
async fn pause(engine: Weak<Engine>, over: OverBudget) {
    while let Some(engine) = engine.upgrade() {
        match engine.pause_over_budget(&over).await {
            Ok(()) => return,
            Err(error) => tracing::error!("view {} holds more than it may and could not be paused, which is tried again: {error}", over.view),
        }
        drop(engine);
        tokio::time::sleep(RETRY).await;
    }
}
