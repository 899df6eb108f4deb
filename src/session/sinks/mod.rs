//! Sinks: a query over one view, whose changes are written to a topic or a folder. `plan` says what a sink's query gives, `maker` makes records of
//! it for a topic, `worker` writes it on a thread of the sink's own, `show` tells how far it is.
//!
//! A sink takes what it writes from its outbox, which belongs to its view ([`crate::stream::outbox`]): it holds nobody up but itself.

mod maker;
mod plan;
mod show;
mod worker;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::engine::{Engine, blocking};
use crate::{
    access::Caller,
    catalog::{Definition, Object, SinkDef, SinkTarget},
    durable,
    error::{Error, Result},
    source::kafka::{configure, partitions_of},
    stream::{
        outbox::{Lag, Outbox, OutboxOptions},
        pipeline::OutboxChange,
        side_rows::letter_schema,
    },
};

pub use show::{columns, rows};

/// A sink that stops is waited for so long; then it ends when its broker answers.
const STOPPING: Duration = Duration::from_secs(5);

/// The sinks that run.
#[derive(Debug)]
pub struct Sinks {
    /// What no other server has: part of the names by which Kafka knows this one's sinks.
    server: String,
    /// By number.
    running: Mutex<BTreeMap<u64, Arc<Running>>>,
}

/// A sink that runs, or has failed.
#[derive(Debug, Default)]
pub(super) struct Running {
    stopped: AtomicBool,
    records: AtomicU64,
    bytes: AtomicU64,
    state: Mutex<State>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// How a sink is doing.
#[derive(Debug, Clone, Default)]
pub(super) enum State {
    /// It has not written yet.
    #[default]
    Starting,
    /// It writes.
    Running,
    /// Something is away; it is tried again.
    Retrying(String),
    /// It stands still.
    Failed(String),
}

impl Running {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
    }
}

impl Sinks {
    /// The sinks of a server with this data directory.
    pub fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("server.id");
        let failed = |e: std::io::Error| Error::External(format!("{} can't be used: {e}", file.display()));
        let server = match std::fs::read_to_string(&file) {
            Ok(text) => text.trim().to_string(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let id = uuid::Uuid::new_v4().simple().to_string()[..12].to_string();
                durable::replace(&file, id.as_bytes()).map_err(failed)?;
                id
            }
            Err(error) => return Err(failed(error)),
        };
        if server.is_empty() || !server.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::External(format!(
                "{} does not hold a server's id: restore it from a backup; exactly-once sinks find their cursors by it",
                file.display()
            )));
        }
        Ok(Self { server, running: Mutex::default() })
    }

    fn get(&self, id: u64) -> Option<Arc<Running>> {
        self.running.lock().get(&id).cloned()
    }

    /// Stops a sink and waits for it, though not for ever.
    async fn stop(&self, id: u64) {
        let Some(running) = self.running.lock().remove(&id) else { return };
        running.stopped.store(true, Ordering::Release);
        let Some(thread) = running.thread.lock().take() else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(STOPPING, ended).await.is_err() {
            tracing::warn!(sink = id, "a sink's broker does not answer: the sink ends when it does");
        }
    }

    /// Stops all of them.
    pub async fn stop_all(&self) {
        let ids: Vec<u64> = self.running.lock().keys().copied().collect();
        ids.iter().filter_map(|id| self.get(*id)).for_each(|running| running.stopped.store(true, Ordering::Release));
        futures::future::join_all(ids.into_iter().map(|id| self.stop(id))).await;
    }
}

impl Engine {
    /// Declares a sink and starts it.
    pub(super) async fn create_sink(self: &Arc<Self>, caller: &Caller, def: SinkDef, if_not_exists: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        self.check_create(caller, &def.name)?;
        if self.is_taken_for(caller, &def.name, if_not_exists)? {
            return Ok(());
        }
        let view = match &def.errors_of {
            Some(source) => match self.readable(caller, source)? {
                Some(Object { definition: Definition::Source(_), .. }) => source.clone(),
                _ => return Err(Error::NotFound(format!("sink {}: there is no source {source}", def.name))),
            },
            None => self.plan_sink(caller, &def).await?.shape.view,
        };
        if self.is_paused(&view) {
            return Err(Error::Invalid(format!("view {view}, which {} reads, is paused: RESUME VIEW {view} first", def.name)));
        }
        if self.catalog.get(&view).is_some_and(|object| object.replacement.is_some()) {
            return Err(Error::Invalid(format!("view {view}, which {} reads, is being replaced: try again when SHOW VIEWS says that it was", def.name)));
        }
        let mut links = vec![];
        if let Some(kafka) = def.kafka() {
            links = self.usable_links(caller, kafka.link.connection.as_ref(), kafka.link.secrets.values().cloned())?;
        }
        let def = self.catalog.sink_asking(def);
        match &def.target {
            SinkTarget::Kafka(sink) => {
                let kafka = sink.kafka.clone();
                configure::check(&kafka.settings()?, &format!("sink {}", def.name))?;
                if let Err(error) = blocking(move || partitions_of(&kafka)).await? {
                    // A broker that is down may come back.
                    if !matches!(error, Error::External(_)) {
                        return Err(error);
                    }
                    tracing::warn!(sink = def.name, "declared, but not reachable yet: {error}");
                }
            }
            SinkTarget::Folder(folder) => {
                self.check_admin(caller, "make a sink that writes files")?;
                check_folder(&self.config().allowed_paths, &folder.path)?;
                let same = |object: &Object| matches!(&object.definition, Definition::Sink(other) if matches!(&other.target, SinkTarget::Folder(other) if other.path == folder.path));
                if let Some(other) = self.catalog.list().into_iter().find(same) {
                    return Err(Error::Invalid(format!("the folder {} is that of sink {}: name another one", folder.path, other.definition.name())));
                }
            }
        }
        let mut reads = self.named_objects(&def.query)?;
        reads.push(view.clone());
        reads.extend(links);
        reads.sort();
        reads.dedup();
        let name = def.name.clone();
        self.create_object(caller, Definition::Sink(Arc::new(def)), reads, BTreeMap::new())?;
        if let Some(object) = self.catalog.get(&name)
            && let Definition::Sink(def) = &object.definition
        {
            // From now on changes wait for it, whatever becomes of it next.
            if let Err(error) = self.open_outbox(&object, def, &view).await {
                tracing::warn!(sink = name, "begins later: {error}");
            }
            self.start_sink(&object, false)?;
        }
        Ok(())
    }

    /// An outbox for a sink that has none, at the view or source that it reads; an error: that is not running.
    async fn open_outbox(&self, sink: &Object, def: &SinkDef, reads: &str) -> Result<Arc<Outbox>> {
        let away = || {
            Error::External(match def.errors_of {
                Some(_) => format!("no view reads source {reads}, so its records are not looked at"),
                None => format!("view {reads} is not running: SHOW VIEWS says why"),
            })
        };
        let (driver, columns) = match def.errors_of {
            Some(_) => (self.pipeline(reads).ok_or_else(away)?, Arc::new(letter_schema())),
            None => {
                let driver = self.driver_of(reads).ok_or_else(away)?;
                let columns = driver.board().current().views.get(reads).map(|view| view.plan.schema.clone()).ok_or_else(away)?;
                (driver, columns)
            }
        };
        let outbox = Outbox::new(sink.id, outbox_options(def), &columns);
        driver.outbox(reads, OutboxChange::Add(Arc::new(outbox), def.errors_of.is_none() && def.lag.snapshot)).await?;
        self.outbox_of(sink).map(|(_, outbox)| outbox).ok_or_else(away)
    }

    /// Starts the sinks that the catalog has.
    pub(super) fn resume_sinks(self: &Arc<Self>) {
        for object in self.catalog.list() {
            if matches!(object.definition, Definition::Sink(_))
                && !object.paused
                && let Err(error) = self.start_sink(&object, false)
            {
                tracing::error!(sink = object.definition.name(), "not started: {error}");
            }
        }
    }

    /// Whether there is a sink of this number.
    pub(super) fn is_sink(&self, id: u64) -> bool {
        self.catalog.list().iter().any(|object| object.id == id && matches!(object.definition, Definition::Sink(_)))
    }

    /// The sinks that write what a view gives.
    pub(super) fn sinks_of(&self, view: &str) -> Vec<String> {
        let reads = |object: &Object| matches!(object.definition, Definition::Sink(_)) && object.reads.iter().any(|read| read == view);
        self.catalog.list().into_iter().filter(reads).map(|object| object.definition.name().to_string()).collect()
    }

    /// `PAUSE SINK` and `RESUME SINK`. What a sink has still to write waits meanwhile, as far as it may. One that has failed is resumed, too.
    pub(super) async fn pause_sink(self: &Arc<Self>, caller: &Caller, name: &str, pause: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let object = match self.changeable(caller, name)? {
            Some(object) if matches!(object.definition, Definition::Sink(_)) => object,
            Some(object) => return Err(Error::Invalid(format!("{name} is a {} and no sink", object.definition.kind()))),
            None => return Err(Error::NotFound(format!("there is no sink {name}"))),
        };
        if pause {
            self.catalog.set_paused(name, true, None)?;
            self.sinks.stop(object.id).await;
            return Ok(());
        }
        let failed = self.sinks.get(object.id).is_some_and(|running| matches!(*running.state.lock(), State::Failed(_)));
        if !object.paused && !failed {
            return Ok(());
        }
        self.sinks.stop(object.id).await;
        if let Some((view, outbox)) = self.outbox_of(&object)
            && outbox.failure().is_some()
        {
            let driver = self.driver_of(&view).or_else(|| self.pipeline(&view));
            let driver = driver.ok_or_else(|| Error::External(format!("view {view} is not running: SHOW VIEWS says why")))?;
            driver.outbox(&view, OutboxChange::BeginAgain(object.id)).await?;
        }
        self.catalog.set_paused(name, false, None)?;
        self.start_sink(&object, true)
    }

    /// Stops a sink that the catalog no longer has, and forgets what it had still to write.
    pub(super) async fn stop_sink(&self, object: &Object) {
        self.sinks.stop(object.id).await;
        for view in &object.reads {
            // Where the view is not running, its outbox goes when the view is read back.
            if let Some(driver) = self.driver_of(view).or_else(|| self.pipeline(view))
                && let Err(error) = driver.outbox(view, OutboxChange::Remove(object.id)).await
            {
                tracing::debug!("a dropped sink's view has gone: {error}");
            }
        }
    }

    /// The view of a sink, and its outbox there, if the view is to be seen.
    pub(super) fn outbox_of(&self, sink: &Object) -> Option<(String, Arc<Outbox>)> {
        sink.reads.iter().find_map(|view| {
            if let Some(driver) = self.pipeline(view) {
                let published = driver.board().current();
                let outbox = published.sources.get(view)?.outboxes.iter().find(|outbox| outbox.sink == sink.id)?.clone();
                return Some((view.clone(), outbox));
            }
            let (board, _) = self.board_of(view)?;
            let published = board.current();
            let outbox = published.views.get(view)?.outboxes.iter().find(|outbox| outbox.sink == sink.id)?.clone();
            Some((view.clone(), outbox))
        })
    }

    /// How far a sink is.
    fn lag_of(&self, sink: &Object) -> Option<Lag> {
        self.outbox_of(sink).map(|(_, outbox)| outbox.lag())
    }
}

fn outbox_options(def: &SinkDef) -> OutboxOptions {
    OutboxOptions { limit: def.lag.max_bytes, restart: def.lag.restart, interval: def.lag.commit_interval }
}

/// Whether SQL may write below this folder. A bucket is the server's, by its own credentials.
fn check_folder(allowed: &[PathBuf], place: &str) -> Result<()> {
    if place.starts_with("s3://") {
        return Ok(());
    }
    let refused = || {
        let advice = match allowed.is_empty() {
            true => "start the server with --allow-path DIR to allow a folder".to_string(),
            false => format!("allowed folders: {}", allowed.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")),
        };
        Error::Invalid(format!("SQL may not write to {place}: {advice}"))
    };
    let path = Path::new(place);
    if !path.is_absolute() || place.contains("://") || path.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        return Err(refused());
    }
    // What is there already, links followed; the rest is made.
    let there = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    let below = |folder: &Path| allowed.iter().filter_map(|allowed| allowed.canonicalize().ok()).any(|allowed| folder.starts_with(allowed));
    match there {
        Some(folder) if below(&folder) && folder.is_dir() => Ok(()),
        _ => Err(refused()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_below_allowed_folders() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in"), root.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let allowed = vec![inside.clone()];
        let check = |path: PathBuf| check_folder(&allowed, path.to_str().unwrap());
        assert!(check(inside.join("new/deep")).is_ok() && check(inside.clone()).is_ok());
        for bad in [outside.join("x"), inside.join("../out"), inside.join("link/x"), "in".into(), "/etc".into()] {
            assert!(check(bad.clone()).is_err(), "{}", bad.display());
        }
        assert!(check_folder(&[], "/tmp/x").unwrap_err().to_string().contains("--allow-path"));
    }

    #[test]
    fn a_server_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let first = Sinks::open(folder.path()).unwrap().server;
        assert_eq!(Sinks::open(folder.path()).unwrap().server, first);
        std::fs::write(folder.path().join("server.id"), "").unwrap();
        assert!(Sinks::open(folder.path()).is_err());
    }
}
