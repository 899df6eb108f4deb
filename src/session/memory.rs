//! What views and queries may hold in memory: one pool for all of them, a limit of its own for a view that has one. A view that holds more is
//! paused where it stands; one that can't be paused, since views read it or it reads views, stands still.

use std::sync::Arc;

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use tokio::sync::mpsc;

use super::engine::Engine;
use crate::{
    catalog::Definition,
    error::{Error, Result},
    stream::pipeline::OverBudget,
};

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
        let engine = Arc::downgrade(self);
        self.handle().spawn(async move {
            while let Some(over) = told.recv().await {
                let Some(engine) = engine.upgrade() else { return };
                if let Err(error) = engine.pause_over_budget(&over).await {
                    tracing::error!("view {} holds more than it may and could not be paused: {error}", over.view);
                }
            }
        });
    }

    async fn pause_over_budget(self: &Arc<Self>, over: &OverBudget) -> Result<()> {
        tracing::error!(view = over.view, "the view is paused: {}", over.reason);
        let because = format!("{}, then RESUME VIEW {}", over.reason, over.view);
        match self.pause(&over.view, Some(over.id), Some(&because)).await {
            Ok(()) => Ok(()),
            // The disk may have room again later: the pipeline asks anew after its next epoch.
            Err(error @ Error::External(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                Err(error)
            }
            Err(error) => {
                let reason = format!("{}; it can't be paused ({error}): drop it and those that read it, and create them again", over.reason);
                let driver = self.running_pipelines().into_values().find(|d| d.board().current().views.contains_key(&over.view));
                match driver {
                    Some(driver) => driver.fail(OverBudget { reason, ..over.clone() }).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// `ALTER VIEW name SET (memory_limit = '…')`.
    pub(super) async fn set_memory_limit(self: &Arc<Self>, name: &str, limit: usize) -> Result<()> {
        let _declaring = self.declare().await;
        match self.catalog().get(name).map(|object| object.definition) {
            Some(Definition::View(_)) => {}
            Some(other) => return Err(Error::Invalid(format!("{name} is a {}: only a continuous view has a memory limit", other.kind()))),
            None => return Err(Error::NotFound(format!("there is no view {name}"))),
        }
        let def = self.catalog().set_memory_limit(name, limit)?;
        let driver = self.running_pipelines().into_values().find(|d| d.board().current().views.contains_key(name));
        match driver {
            Some(driver) => driver.limit(def).await,
            // One that stands still, or catches up, minds it when it goes on.
            None => Ok(()),
        }
    }
}
