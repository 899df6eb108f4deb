//! `CREATE OR REPLACE CONTINUOUS VIEW` over a view that is there.
//!
//! The catalog notes the new definition beside the old one. It is the view's from when on a checkpoint holds its state, which is also how
//! a restart tells: after a crash there is the old view, whose replacement begins anew, or the new one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    catch_up::{Advance, Behind, Tried, last_stretch},
    engine::Engine,
};
use crate::{
    access::Caller,
    catalog::{Definition, Object, SourceDef, ViewDef},
    error::{Error, Result},
    stream::{
        driver::{Beginning, Driver},
        failpoints::{self, Point},
        pipeline::Pipeline,
        plan::ViewPlan,
        replace::{Kept, compare},
        side_rows::late_schema,
        view::ViewRuntime,
    },
};

/// What could not be made durable is tried again after so long.
const RETRY: Duration = Duration::from_millis(500);
/// So long a statement waits until its view is durable.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether two statements say the same, however they are written.
fn same_definition(a: &ViewDef, b: &ViewDef) -> bool {
    (&a.name, &a.query, a.emit, &a.options) == (&b.name, &b.query, b.emit, &b.options)
}

impl Engine {
    /// Replaces a view; the caller holds the lock over declarations. What tells how it went, where the sources are read again.
    pub(super) async fn replace_view(
        self: &Arc<Self>,
        caller: &Caller,
        def: ViewDef,
        object: Object,
        old: Arc<ViewDef>,
    ) -> Result<Option<oneshot::Receiver<Tried>>> {
        let name = def.name.clone();
        if object.paused {
            return Err(Error::Invalid(format!("view {name} is paused: RESUME VIEW {name} first, then replace it")));
        }
        if let Some(late) = &def.options.late_to
            && self.late_view(late).is_none_or(|view| view.name != name)
            && object.replacement.as_ref().is_none_or(|r| !matches!(&r.definition, Definition::View(view) if view.options.late_to.as_ref() == Some(late)))
        {
            self.is_taken_for(caller, late, false)?;
        }
        let plan = Arc::new(self.plan_view_for(caller, &def, None).await?);
        self.check_views_read(&def, &plan)?;
        let reads = self.reads_of(&def, &plan)?;
        let dependents = self.catalog.dependents(&name);
        if let Some(own) = reads.iter().find(|read| **read == name || dependents.contains(read)) {
            return Err(Error::Invalid(match *own == name {
                true => format!("view {name} can't read itself"),
                false => format!("view {name} can't read {own}, which reads {name}"),
            }));
        }
        let standing = self.driver_of(&name).and_then(|driver| Some(driver.board().current().views.get(&name)?.id));
        if object.replacement.as_ref().is_some_and(|replacement| Some(replacement.id) == standing) {
            return Err(Error::External(format!("view {name} was replaced and is not durable yet: replace it again when SHOW VIEWS says that it is")));
        }
        if same_definition(&def, &old) && self.sees_the_same(&plan, object.id) {
            let what = match &object.replacement {
                Some(replacement) => {
                    self.catalog.end_replacement(&name, replacement.id, false)?;
                    self.forget_replacing(&name, None);
                    "the definition is what it was: the replacement that was under way is not made"
                }
                None => "the definition is what it was: nothing was done",
            };
            self.replaced.write().insert(name, what.into());
            return Ok(None);
        }
        if let Some(sink) = self.sinks_of(&name).first() {
            return Err(Error::Invalid(format!(
                "view {name} can't be replaced, since sink {sink} writes what it gives: DROP SINK {sink} first and create it anew, or give the new view another name"
            )));
        }
        let def = Arc::new(def);
        let Some(driver) = self.driver_of(&name) else {
            if !self.is_waiting(&name) {
                return Err(Error::External(format!("view {name} is not running and can't be replaced: SHOW VIEWS says why, or drop it and create it anew")));
            }
            if !dependents.is_empty() {
                return Err(Error::Invalid(format!(
                    "view {name} is still catching up, and {} read{} it: replace it when SHOW VIEWS says that it is running",
                    dependents.join(", "),
                    if dependents.len() == 1 { "s" } else { "" }
                )));
            }
            return self.replace_unfinished(&object, def, plan, reads).await;
        };
        let published = driver.board().current();
        let running = published.views.get(&name).ok_or_else(|| Error::External(format!("view {name} is not running: SHOW VIEWS says why")))?;
        let kept = self.kept(&object, running.failure.is_some(), &running.plan, &plan)?;
        self.check_dependents(&name, &dependents, &running.plan, &plan, &kept)?;
        let mut sources = self.sources_of(&running.plan);
        sources.extend(self.sources_of(&plan));
        sources.sort();
        sources.dedup();
        self.unite(&sources).await?;
        self.forget_replacing(&name, None);
        let id = self.catalog.begin_replacement(&name, Definition::View(def.clone()), reads)?;
        failpoints::pass(Point::ReplacementNoted);
        self.begin_replacing(def, id, plan, kept).await
    }

    /// What `OR REPLACE` would do, for `EXPLAIN`: a sentence.
    pub(super) fn would_replace(&self, def: &ViewDef, plan: &ViewPlan) -> Result<String> {
        let (object, old) = match self.catalog.get(&def.name) {
            None => return Ok("there is no such view: it would be made".into()),
            Some(object) => match object.definition.clone() {
                Definition::View(old) => (object, old),
                _ => return Err(super::engine::not_replaced(&object, "continuous view")),
            },
        };
        if same_definition(def, &old) && self.sees_the_same(plan, object.id) {
            return Ok("the definition is what it is: nothing would be done".into());
        }
        let driver = self.driver_of(&def.name);
        let published = driver.map(|driver| driver.board().current());
        let Some(running) = published.as_ref().and_then(|published| published.views.get(&def.name)) else {
            return Ok("the view does not run: SHOW VIEWS says why".into());
        };
        let kept = self.kept(&object, running.failure.is_some(), &running.plan, plan)?;
        self.check_dependents(&def.name, &self.catalog.dependents(&def.name), &running.plan, plan, &kept)?;
        Ok(match kept {
            Kept::Whole => "the state and the rows that are there would be kept".into(),
            Kept::Part => "the state that is there would be kept, and the rows come from that".into(),
            Kept::Nothing(reason) => format!("the sources would be read again, since {reason}"),
        })
    }

    /// Goes on with a replacement that a restart found unfinished.
    pub(super) async fn replace_again(self: &Arc<Self>, name: &str) {
        let _declaring = self.declaring.lock().await;
        let Some(object) = self.catalog.get(name) else { return };
        let Some((replacement, Definition::View(def))) = object.replacement.clone().map(|replacement| (replacement.id, replacement.definition)) else { return };
        let begun = async {
            let plan = Arc::new(self.plan_view(&def, Some(replacement)).await?);
            let published = self.driver_of(name).map(|driver| driver.board().current());
            let kept = match published.as_ref().and_then(|published| published.views.get(name)) {
                Some(running) => self.kept(&object, running.failure.is_some(), &running.plan, &plan)?,
                None => Kept::Nothing("it had not caught up".into()),
            };
            self.begin_replacing(def, replacement, plan, kept).await
        };
        if let Err(error) = begun.await {
            tracing::error!(view = name, "the replacement that a restart has found is not made: {error}");
            if !matches!(error, Error::Cancelled(_)) {
                self.give_up(name, replacement, &error.to_string());
            }
        }
    }

    /// How much of a view that runs is kept.
    fn kept(&self, object: &Object, failed: bool, old: &ViewPlan, new: &ViewPlan) -> Result<Kept> {
        if failed {
            return Ok(Kept::Nothing("the view has failed".into()));
        }
        let late = |plan: &ViewPlan, view: Option<u64>| {
            let readings = self.readings(plan, view);
            late_schema(&readings.iter().map(|reading| reading.seen.as_ref()).collect::<Vec<&SourceDef>>())
        };
        match compare(old, new)? {
            Kept::Whole | Kept::Part if late(old, Some(object.id)) != late(new, None) => Ok(Kept::Nothing("its sources have other columns now".into())),
            kept => Ok(kept),
        }
    }

    /// Whether a view that is made now would see its sources as the one of this number does.
    fn sees_the_same(&self, plan: &ViewPlan, id: u64) -> bool {
        self.readings(plan, Some(id)).iter().all(|reading| reading.def.columns.len() == reading.seen.columns.len())
    }

    /// Views that read a view must be able to go on with what replaces it.
    fn check_dependents(&self, name: &str, dependents: &[String], old: &ViewPlan, new: &ViewPlan, kept: &Kept) -> Result<()> {
        let readers: Vec<&str> =
            dependents.iter().filter(|d| self.catalog.get(d).is_some_and(|o| o.all_reads().any(|r| r == name))).map(String::as_str).collect();
        if readers.is_empty() {
            return Ok(());
        }
        let continuous = readers.iter().any(|reader| matches!(self.catalog.get(reader), Some(Object { definition: Definition::View(_), .. })));
        let shape = |plan: &ViewPlan| plan.schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable())).collect::<Vec<_>>();
        let why = if shape(old) != shape(new) {
            "columns, their types, or whether they may be NULL, would be others"
        } else if !continuous {
            return Ok(());
        } else if (old.changing, new.changing) == (true, false) || (old.changing, new.changing) == (false, true) {
            "rows would come and go where they only came, or the other way round"
        } else if old.windows != new.windows || old.whole_windows != new.whole_windows {
            "columns that are windows would be others"
        } else if !old.changing && *kept != Kept::Whole {
            "rows that are final for them would change"
        } else {
            return Ok(());
        };
        Err(Error::Invalid(format!(
            "view {name} can't be replaced, since {} read{} it and {why}: drop {} first, or give the new view another name",
            readers.join(", "),
            if readers.len() == 1 { "s" } else { "" },
            if readers.len() == 1 { "that one" } else { "those" },
        )))
    }

    /// Lets a definition that the catalog has noted take its view's place, at once or when it has read its sources.
    async fn begin_replacing(self: &Arc<Self>, def: Arc<ViewDef>, id: u64, plan: Arc<ViewPlan>, kept: Kept) -> Result<Option<oneshot::Receiver<Tried>>> {
        let name = def.name.clone();
        let begun = async {
            let readings = self.readings(&plan, Some(id));
            let start = readings.iter().map(|reading| (reading.def.name.clone(), reading.start.clone())).collect::<BTreeMap<_, _>>();
            let own: Vec<&SourceDef> = readings.iter().map(|reading| reading.seen.as_ref()).collect();
            let blank = || ViewRuntime::new(def.clone(), id, plan.clone(), &own, start.clone(), 0);
            let (beginning, how) = match kept {
                Kept::Nothing(reason) => {
                    let tables = plan.table_rows().await?;
                    if !readings.is_empty() {
                        return self.catch_up(def.clone(), id, plan.clone(), tables, None, Some(reason)).map(Some);
                    }
                    let how = format!("it began with what the views that it reads hold, since {reason}");
                    (Beginning::Views(Box::new(blank()?.with_tables(tables))), how)
                }
                Kept::Whole => (Beginning::Kept(Box::new(blank()?), Kept::Whole), "its state and its rows were kept".to_string()),
                Kept::Part => (Beginning::Kept(Box::new(blank()?), Kept::Part), "its state was kept, and its rows come from that".to_string()),
            };
            self.take_place(&name, id, beginning, &how).await.map(|()| None)
        };
        let begun = begun.await;
        if let Err(error) = &begun {
            // One that the server's end has cut short goes on with the next start.
            if !matches!(error, Error::Cancelled(_)) {
                self.give_up(&name, id, &error.to_string());
            }
        }
        begun
    }

    /// A replacement is not made: the view stays what it is.
    fn give_up(&self, name: &str, id: u64, reason: &str) {
        match self.catalog.end_replacement(name, id, false) {
            Ok(true) => _ = self.replaced.write().insert(name.into(), format!("was not replaced: {reason}")),
            Ok(false) => {}
            Err(error) => tracing::error!(view = name, "{error}"),
        }
        self.forget_replacing(name, Some(id));
    }

    /// The swap itself, made durable. An error: the old view stands.
    async fn take_place(self: &Arc<Self>, name: &str, id: u64, beginning: Beginning, how: &str) -> Result<()> {
        let driver = self.driver_of(name).ok_or_else(|| Error::External(format!("view {name} does not run: SHOW VIEWS says why")))?;
        let epoch = driver.replace(beginning).await?;
        // From here on there is no way back: readers have seen the new view.
        failpoints::pass(Point::Replaced);
        tracing::info!(view = name, epoch, "replaced: {how}");
        self.forget_replacing(name, Some(id));
        self.replaced.write().insert(name.into(), format!("replaced with epoch {epoch}, and not durable yet: {how}"));
        let told = format!("replaced with epoch {epoch}: {how}");
        let (engine, name) = (self.clone(), name.to_string());
        let durable = tokio::spawn(async move { engine.make_durable(&name, id, &driver, told).await });
        // A disk that is full holds up neither the statement nor others for ever.
        let _ = tokio::time::timeout(PATIENCE, durable).await;
        Ok(())
    }

    /// Takes a checkpoint that holds a view in another one's place, until there is one, and lets the catalog know.
    async fn make_durable(&self, name: &str, id: u64, driver: &Driver, told: String) {
        let is_noted = || self.catalog.get(name).is_some_and(|object| object.replacement.is_some_and(|replacement| replacement.id == id));
        while is_noted() {
            let ended = match driver.checkpoint().await {
                Ok(()) => {
                    failpoints::pass(Point::ReplacedDurably);
                    self.catalog.end_replacement(name, id, true)
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(_) => {
                    self.replaced.write().insert(name.into(), told);
                    return;
                }
                Err(error) => {
                    tracing::error!(view = name, "replaced, but not durably yet: {error}");
                    // The next start tells by the checkpoints which view there is.
                    if matches!(error, Error::Cancelled(_)) || driver.status().failure.is_some() {
                        return;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A private pipeline has read what there is: its view takes its place.
    pub(super) async fn swap_in(
        self: &Arc<Self>,
        behind: &Behind,
        private: Pipeline,
        stretches: Vec<Advance>,
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Tried> {
        let _declaring = self.declaring.lock().await;
        let name = &behind.def.name;
        // Dropped, or replaced otherwise, meanwhile.
        if !wanted() {
            return Ok(Tried::Done);
        }
        let reason = behind.replaces.as_deref().unwrap_or_default();
        let lacks: Vec<String> = stretches.iter().filter_map(Advance::lacks).collect();
        let how = format!("its sources were read again, since {reason}{}", lacks.iter().map(|lacks| format!("; {lacks}")).collect::<String>());
        let driver = self.driver_of(name).ok_or_else(|| Error::External(format!("view {name} does not run yet: SHOW VIEWS says why")))?;
        let lost: Vec<_> = stretches.iter().map(Advance::lost).collect();
        let beginning = Beginning::Private(Box::new(private), last_stretch(stretches), name.clone(), behind.id);
        match self.take_place(name, behind.id, beginning, &how).await {
            Ok(()) => {
                lost.iter().for_each(|(source, lost)| driver.lost_behind(source, &lost.lock()));
                Ok(Tried::Done)
            }
            // It would fail again.
            Err(Error::Invalid(reason)) => {
                tracing::error!(view = name, "not replaced: {reason}");
                self.give_up(name, behind.id, &reason);
                Ok(Tried::Refused(reason))
            }
            Err(error) => Err(error),
        }
    }
}
