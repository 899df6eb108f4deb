//! The durable catalog: what has been declared, in one file that is replaced as a whole.
//!
//! An object is kept as the statement that made it; opening the catalog parses it again with the parser that is handed in, since
//! the catalog stands below the dialect. A statement that holds secrets is kept twice: as it may be shown, and encrypted as it is.
//! Ids are never reused. Every change is on disk before its call returns.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{ConnectionDef, KafkaDef, Keeper, KeySource, PlainViewDef, Seal, SecretDef, SinkDef, SourceDef, TableDef, ViewDef, ViewOptions};
use crate::{
    durable,
    error::{Error, Result},
};

/// The file's format where nothing in it is encrypted.
const PLAIN: u32 = 1;
/// The file's format where something is: older versions must not take what is shown in its place for what it is.
const SEALED: u32 = 2;

/// What kind of object a statement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A source.
    Source,
    /// A view, continuous or plain.
    View,
    /// A table.
    Table,
    /// A connection.
    Connection,
    /// A secret.
    Secret,
    /// A sink.
    Sink,
}

impl ObjectKind {
    /// The noun in a sentence, and the word in a statement.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Source => ("source", "SOURCE"),
            Self::View => ("view", "VIEW"),
            Self::Table => ("table", "TABLE"),
            Self::Connection => ("connection", "CONNECTION"),
            Self::Secret => ("secret", "SECRET"),
            Self::Sink => ("sink", "SINK"),
        }
    }
}

/// What an object is.
#[derive(Debug, Clone)]
pub enum Definition {
    /// A source.
    Source(Arc<SourceDef>),
    /// A continuous view.
    View(Arc<ViewDef>),
    /// A plain view.
    PlainView(Arc<PlainViewDef>),
    /// A table.
    Table(Arc<TableDef>),
    /// A connection.
    Connection(Arc<ConnectionDef>),
    /// A secret.
    Secret(Arc<SecretDef>),
    /// A sink.
    Sink(Arc<SinkDef>),
}

impl Definition {
    /// The object's name.
    pub fn name(&self) -> &str {
        match self {
            Definition::Source(def) => &def.name,
            Definition::View(def) => &def.name,
            Definition::PlainView(def) => &def.name,
            Definition::Table(def) => &def.name,
            Definition::Connection(def) => &def.name,
            Definition::Secret(def) => &def.name,
            Definition::Sink(def) => &def.name,
        }
    }

    /// What it is, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Definition::Source(_) => "source",
            Definition::View(_) => "continuous view",
            Definition::PlainView(_) => "view",
            Definition::Table(_) => "table",
            Definition::Connection(_) => "connection",
            Definition::Secret(_) => "secret",
            Definition::Sink(_) => "sink",
        }
    }

    /// Which word `DROP` and `SHOW CREATE` name it by.
    pub fn object_kind(&self) -> ObjectKind {
        match self {
            Definition::Source(_) => ObjectKind::Source,
            Definition::View(_) | Definition::PlainView(_) => ObjectKind::View,
            Definition::Table(_) => ObjectKind::Table,
            Definition::Connection(_) => ObjectKind::Connection,
            Definition::Secret(_) => ObjectKind::Secret,
            Definition::Sink(_) => ObjectKind::Sink,
        }
    }

    /// Whether it has rows that a query can name.
    pub fn has_rows(&self) -> bool {
        !matches!(self, Definition::Connection(_) | Definition::Secret(_) | Definition::Sink(_))
    }

    /// The connections and secrets that it names itself.
    pub fn links(&self) -> Vec<String> {
        match self {
            Definition::Source(def) => def.kafka.link.names(),
            Definition::Sink(def) => def.kafka().map(|kafka| kafka.link.names()).unwrap_or_default(),
            Definition::Connection(def) => def.secrets(),
            Definition::View(_) | Definition::PlainView(_) | Definition::Table(_) | Definition::Secret(_) => vec![],
        }
    }

    /// The same, knowing whom to ask for connections and secrets.
    fn asking(self, keeper: &Arc<dyn Keeper>) -> Self {
        let wants = |kafka: &KafkaDef| !kafka.link.names().is_empty() && !kafka.link.is_asking();
        match self {
            Definition::Source(def) if wants(&def.kafka) => {
                let kafka = KafkaDef { link: def.kafka.link.clone().asking(keeper.clone()), ..def.kafka.clone() };
                Definition::Source(Arc::new(SourceDef { kafka, ..(*def).clone() }))
            }
            Definition::Sink(def) if def.kafka().is_some_and(wants) => {
                let mut asking = (*def).clone();
                if let Some(kafka) = asking.kafka_mut() {
                    kafka.link = kafka.link.clone().asking(keeper.clone());
                }
                Definition::Sink(Arc::new(asking))
            }
            other => other,
        }
    }

    /// The statement that made it.
    pub fn text(&self) -> &str {
        match self {
            Definition::Source(def) => &def.text,
            Definition::View(def) => &def.text,
            Definition::PlainView(def) => &def.text,
            Definition::Table(def) => &def.text,
            Definition::Connection(def) => &def.text,
            Definition::Secret(def) => &def.text,
            Definition::Sink(def) => &def.text,
        }
    }
}

/// An object of the catalog.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its number: names its files, and is never given to another.
    pub id: u64,
    /// What it is.
    pub definition: Definition,
    /// The user who made it; `None`: nobody in particular, it is the admins'.
    pub owner: Option<String>,
    /// Names of the objects that it reads.
    pub reads: Vec<String>,
    /// For a source: where readers without a checkpoint start, by partition; others start at the oldest record.
    pub start_offsets: BTreeMap<i32, i64>,
    /// A continuous view or a sink that stands still until it is resumed.
    pub paused: bool,
    /// Why, if not since somebody wished it.
    pub paused_because: Option<String>,
    /// For a view whose memory limit was altered: the limit in bytes, which its definition has, too.
    pub memory_limit: Option<usize>,
    /// For a source: the pipeline that reads it, by the number of one of the pipeline's sources.
    pub pipeline: u64,
    /// For a source: a number for each of its last columns, which were added after it was made. Objects with smaller numbers do not see them.
    pub added: Vec<u64>,
    /// For a continuous view: the definition that is about to take its place.
    pub replacement: Option<Replacement>,
}

/// A definition that is about to take another one's place: whose it is from when on a checkpoint holds it under its number.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The number that the object will have.
    pub id: u64,
    /// What it will be.
    pub definition: Definition,
    /// Names of the objects that it reads.
    pub reads: Vec<String>,
}

impl Object {
    /// Names of the objects that it reads, or is about to.
    pub fn all_reads(&self) -> impl Iterator<Item = &String> {
        self.reads.iter().chain(self.replacement.iter().flat_map(|replacement| &replacement.reads))
    }

    /// A source as the object of this number sees it: without the columns that were added later. `None` for what is no source.
    pub fn source_seen_by(&self, id: u64) -> Option<Arc<SourceDef>> {
        let Definition::Source(def) = &self.definition else { return None };
        let later = self.added.iter().filter(|added| **added > id).count();
        if later == 0 {
            return Some(def.clone());
        }
        let columns = def.columns[..def.columns.len().saturating_sub(later)].to_vec();
        Some(Arc::new(SourceDef { columns, ..(**def).clone() }))
    }
}

/// Turns a statement back into what it declares.
pub type ParseDefinition = dyn Fn(&str) -> Result<Definition>;

/// Gives a statement as it may be shown.
pub type Redact = fn(&str) -> String;

/// How statements with secrets are kept.
#[derive(Debug, Clone)]
pub struct Sealing {
    /// Where the master key comes from.
    pub key: KeySource,
    /// A statement as it may be shown.
    pub shown: Redact,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    next_id: u64,
    objects: Vec<StoredObject>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredObject {
    id: u64,
    statement: String,
    /// The statement as it is, encrypted, where what stands above is only what may be shown of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default)]
    reads: Vec<String>,
    #[serde(default)]
    start_offsets: BTreeMap<i32, i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused_because: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_limit: Option<usize>,
    /// `None`: the pipeline of its own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pipeline: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    added: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replacement: Option<StoredReplacement>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredReplacement {
    id: u64,
    statement: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    reads: Vec<String>,
}

#[derive(Debug, Clone)]
struct State {
    next_id: u64,
    /// In the order they were made.
    objects: Vec<Object>,
}

impl State {
    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn add(&mut self, id: u64, owner: Option<String>, definition: Definition, reads: Vec<String>, start_offsets: BTreeMap<i32, i64>) -> Result<u64> {
        let name = definition.name();
        if let Some(taken) = self.objects.iter().find(|o| o.definition.name() == name) {
            return Err(Error::AlreadyExists(format!("{} {name} exists already: choose another name, or drop it first", taken.definition.kind())));
        }
        self.objects.push(Object {
            id,
            definition,
            owner,
            reads,
            start_offsets,
            paused: false,
            paused_because: None,
            memory_limit: None,
            pipeline: id,
            added: vec![],
            replacement: None,
        });
        Ok(id)
    }
}

/// Everything that has been declared. One name space for sources, tables, continuous views, plain views, connections and secrets.
#[derive(Debug)]
pub struct Catalog {
    file: PathBuf,
    state: Arc<RwLock<State>>,
    seal: Option<(Seal, Redact)>,
    /// Some statements are known as they may be shown only: nothing may be written.
    blind: bool,
}

/// Answers from the catalog what a link asks for, as long as there is the catalog.
struct Book(Weak<RwLock<State>>);

impl Book {
    fn look<T>(&self, name: &str, part: impl FnOnce(&Definition) -> Option<T>) -> Option<T> {
        let state = self.0.upgrade()?;
        let state = state.read();
        state.objects.iter().find(|o| o.definition.name() == name).and_then(|o| part(&o.definition))
    }
}

impl Keeper for Book {
    fn connection(&self, name: &str) -> Option<Arc<ConnectionDef>> {
        self.look(name, |definition| match definition {
            Definition::Connection(def) => Some(def.clone()),
            _ => None,
        })
    }

    fn secret(&self, name: &str) -> Option<Arc<SecretDef>> {
        self.look(name, |definition| match definition {
            Definition::Secret(def) => Some(def.clone()),
            _ => None,
        })
    }
}

/// What something sealed belongs to.
fn about(id: u64) -> String {
    format!("object {id}")
}

impl Catalog {
    /// Opens the catalog of a data directory to look at it; an empty one if there is none yet. Secrets stay what may be shown of them, and
    /// where there are any, nothing can be changed.
    pub fn open(folder: &Path, parse: &ParseDefinition) -> Result<Self> {
        Self::open_sealed(folder, parse, None)
    }

    /// Opens the catalog of a data directory; an empty one if there is none yet. A file that can't be understood is left as it is.
    pub fn open_sealed(folder: &Path, parse: &ParseDefinition, sealing: Option<Sealing>) -> Result<Self> {
        let file = folder.join("catalog.json");
        let broken = |why: String| {
            Error::External(format!("the catalog {} can't be read: {why}; restore it from a backup, or move it away to start empty", file.display()))
        };
        let stored = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Stored { version: PLAIN, next_id: 1, objects: vec![] },
            Err(error) => return Err(broken(error.to_string())),
            Ok(text) => {
                let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
                if value["version"] != PLAIN && value["version"] != SEALED {
                    return Err(broken(format!("it has format {}, this version reads formats {PLAIN} and {SEALED}", value["version"])));
                }
                serde_json::from_value(value).map_err(|e| broken(e.to_string()))?
            }
        };
        let any_sealed = stored.version == SEALED;
        let seal = match sealing {
            Some(Sealing { key, shown }) => Some((Seal::open(&key, folder, any_sealed)?, shown)),
            None => None,
        };
        let state = Arc::new(RwLock::new(State { next_id: stored.next_id, objects: vec![] }));
        let keeper: Arc<dyn Keeper> = Arc::new(Book(Arc::downgrade(&state)));
        let statement = |id: u64, statement: String, sealed: Option<String>| match (&seal, sealed) {
            // The key may be the wrong one, and then nothing in the file is broken.
            (Some((seal, _)), Some(sealed)) => seal.unseal(&sealed, &about(id)),
            _ => Ok(statement),
        };
        let mut objects = vec![];
        for object in stored.objects {
            let text = statement(object.id, object.statement, object.sealed)?;
            let definition = parse(&text).map_err(|e| broken(format!("statement of object {}: {e}", object.id)))?;
            let definition = limited(definition, object.memory_limit).asking(&keeper);
            let replacement = match object.replacement {
                None => None,
                Some(StoredReplacement { id, statement: text, sealed, reads }) => {
                    let text = statement(id, text, sealed)?;
                    let definition = parse(&text).map_err(|e| broken(format!("statement {id}, which is to replace object {}: {e}", object.id)))?;
                    Some(Replacement { id, definition: definition.asking(&keeper), reads })
                }
            };
            objects.push(Object {
                id: object.id,
                definition,
                owner: object.owner,
                reads: object.reads,
                start_offsets: object.start_offsets,
                paused: object.paused,
                paused_because: object.paused_because,
                memory_limit: object.memory_limit,
                pipeline: object.pipeline.unwrap_or(object.id),
                added: object.added,
                replacement,
            });
        }
        state.write().objects = objects;
        let catalog = Self { file, state, blind: any_sealed && seal.is_none(), seal };
        // An older version has written secrets as they are.
        let shown = catalog.seal.as_ref().map(|(_, shown)| shown);
        if !any_sealed && shown.is_some_and(|shown| catalog.list().iter().any(|o| shown(o.definition.text()) != o.definition.text())) {
            catalog.change(|_| Ok(()))?;
        }
        Ok(catalog)
    }

    /// A definition that knows whom to ask for the connections and secrets that it names.
    pub fn asking(&self, definition: Definition) -> Definition {
        let keeper: Arc<dyn Keeper> = Arc::new(Book(Arc::downgrade(&self.state)));
        definition.asking(&keeper)
    }

    /// The same for what a source says of its topic.
    pub fn kafka_asking(&self, kafka: &KafkaDef) -> KafkaDef {
        KafkaDef { link: self.link_asking(kafka.link.clone()), ..kafka.clone() }
    }

    /// The same for a sink.
    pub fn sink_asking(&self, mut sink: SinkDef) -> SinkDef {
        if let Some(kafka) = sink.kafka_mut() {
            *kafka = self.kafka_asking(kafka);
        }
        sink
    }

    /// The same for a link alone.
    pub fn link_asking(&self, link: super::Link) -> super::Link {
        link.asking(Arc::new(Book(Arc::downgrade(&self.state))))
    }

    /// Puts another definition of the same kind in an object's place: its number, owner and all that stands on it stay.
    pub fn redefine(&self, definition: Definition) -> Result<()> {
        self.change(|state| {
            let (name, kind) = (definition.name().to_string(), definition.object_kind());
            let reads = definition.links();
            match state.objects.iter_mut().find(|o| o.definition.name() == name && o.definition.object_kind() == kind) {
                Some(object) => {
                    (object.definition, object.reads) = (definition, reads);
                    Ok(())
                }
                None => Err(Error::NotFound(format!("there is no {} {name}", kind.words().0))),
            }
        })
    }

    /// The object of this name.
    pub fn get(&self, name: &str) -> Option<Object> {
        self.state.read().objects.iter().find(|o| o.definition.name() == name).cloned()
    }

    /// All objects in the order they were made.
    pub fn list(&self) -> Vec<Object> {
        self.state.read().objects.clone()
    }

    /// Names of what reads an object, directly or through others, or is about to: each behind those that it reads, else in the order they were made.
    pub fn dependents(&self, name: &str) -> Vec<String> {
        let state = self.state.read();
        let reads = |object: &Object, read: &str| object.all_reads().any(|r| r == read);
        let mut found = vec![name.to_string()];
        let mut at = 0;
        while at < found.len() {
            for object in &state.objects {
                if reads(object, &found[at]) && !found.iter().any(|known| known == object.definition.name()) {
                    found.push(object.definition.name().to_string());
                }
            }
            at += 1;
        }
        // A view that was replaced may read what was made later than itself.
        let mut rest: Vec<&Object> = state.objects.iter().filter(|o| o.definition.name() != name && found.iter().any(|f| f == o.definition.name())).collect();
        let mut ordered: Vec<String> = vec![];
        while !rest.is_empty() {
            let free = |object: &&Object| !rest.iter().any(|other| reads(object, other.definition.name()));
            let at = rest.iter().position(free).unwrap_or_default();
            ordered.push(rest.remove(at).definition.name().to_string());
        }
        ordered
    }

    /// Adds an object of nobody's.
    pub fn create(&self, definition: Definition, reads: Vec<String>, start_offsets: BTreeMap<i32, i64>) -> Result<u64> {
        self.create_owned(None, definition, reads, start_offsets)
    }

    /// Adds an object that reads these others, and returns its id. `start_offsets`: see [`Object::start_offsets`].
    pub fn create_owned(&self, owner: Option<&str>, definition: Definition, reads: Vec<String>, start_offsets: BTreeMap<i32, i64>) -> Result<u64> {
        self.change(|state| {
            let id = state.take_id();
            state.add(id, owner.map(String::from), definition, reads, start_offsets)
        })
    }

    /// Puts another object in the place of the one of this name, under a new id: after a crash there is the one or the other. What
    /// reads it must have gone first.
    pub fn replace(&self, name: &str, definition: Definition, reads: Vec<String>) -> Result<u64> {
        self.check_unread(name)?;
        self.change(|state| {
            let owner = state.objects.iter().find(|o| o.definition.name() == name).and_then(|o| o.owner.clone());
            state.objects.retain(|o| o.definition.name() != name);
            let id = state.take_id();
            state.add(id, owner, definition, reads, BTreeMap::new())
        })
    }

    /// A number for what is made before it is declared.
    pub fn reserve(&self) -> Result<u64> {
        self.change(|state| Ok(state.take_id()))
    }

    /// Adds an object under a number that was reserved for it, in the place of the one of its name if there is one and `replace` says so.
    pub fn create_reserved(&self, id: u64, owner: Option<&str>, definition: Definition, reads: Vec<String>, replace: bool) -> Result<()> {
        let name = definition.name().to_string();
        if replace {
            self.check_unread(&name)?;
        }
        self.change(|state| {
            let mut owner = owner.map(String::from);
            if replace {
                // Whoever replaces it, it stays its owner's.
                owner = state.objects.iter().find(|o| o.definition.name() == name).map_or(owner, |o| o.owner.clone());
                state.objects.retain(|o| o.definition.name() != name);
            }
            state.add(id, owner, definition, reads, BTreeMap::new()).map(|_| ())
        })
    }

    fn check_unread(&self, name: &str) -> Result<()> {
        match self.dependents(name) {
            dependents if dependents.is_empty() => Ok(()),
            dependents => Err(Error::Invalid(format!("{name} can't be replaced: {} read it", dependents.join(", ")))),
        }
    }

    /// Notes what is about to take an object's place, instead of what was to before, and returns the number that it will have.
    pub fn begin_replacement(&self, name: &str, definition: Definition, reads: Vec<String>) -> Result<u64> {
        self.change(|state| {
            let id = state.next_id;
            state.next_id += 1;
            match state.objects.iter_mut().find(|o| o.definition.name() == name) {
                Some(object) => {
                    object.replacement = Some(Replacement { id, definition, reads });
                    Ok(id)
                }
                None => Err(Error::NotFound(format!("there is no view {name}"))),
            }
        })
    }

    /// What was about to take an object's place under this number has taken it, or will not, if not `done`. Whether it was still to.
    pub fn end_replacement(&self, name: &str, id: u64, done: bool) -> Result<bool> {
        if self.get(name).is_none_or(|object| object.replacement.is_none_or(|replacement| replacement.id != id)) {
            return Ok(false);
        }
        self.change(|state| {
            let object = state.objects.iter_mut().find(|o| o.replacement.as_ref().is_some_and(|r| r.id == id));
            let Some(object) = object else { return Ok(false) };
            if let Some(Replacement { id, definition, reads }) = object.replacement.take().filter(|_| done) {
                // Where it stands among the others, it stays.
                (object.id, object.definition, object.reads, object.memory_limit) = (id, definition, reads, None);
            }
            Ok(true)
        })
    }

    /// Notes that a view is paused, or no longer; `because`, if not since somebody wished it.
    pub fn set_paused(&self, name: &str, paused: bool, because: Option<&str>) -> Result<()> {
        self.change(|state| match state.objects.iter_mut().find(|o| o.definition.name() == name) {
            Some(object) => {
                (object.paused, object.paused_because) = (paused, because.map(String::from));
                Ok(())
            }
            None => Err(Error::NotFound(format!("there is no view {name}"))),
        })
    }

    /// Lets a view hold so many bytes; its definition with that.
    pub fn set_memory_limit(&self, name: &str, limit: usize) -> Result<Arc<ViewDef>> {
        self.change(|state| {
            let object = state.objects.iter_mut().find(|o| o.definition.name() == name);
            let Some(object) = object else { return Err(Error::NotFound(format!("there is no view {name}"))) };
            object.memory_limit = Some(limit);
            object.definition = limited(object.definition.clone(), Some(limit));
            match &object.definition {
                Definition::View(def) => Ok(def.clone()),
                other => Err(Error::Invalid(format!("{name} is a {}: only a continuous view has a memory limit", other.kind()))),
            }
        })
    }

    /// Gives an object to another owner.
    pub fn set_owner(&self, name: &str, owner: &str) -> Result<()> {
        self.change(|state| match state.objects.iter_mut().find(|o| o.definition.name() == name) {
            Some(object) => {
                object.owner = Some(owner.into());
                Ok(())
            }
            None => Err(Error::NotFound(format!("there is no source or view {name}"))),
        })
    }

    /// Names of what somebody owns.
    pub fn owned_by(&self, owner: &str) -> Vec<String> {
        self.state.read().objects.iter().filter(|o| o.owner.as_deref() == Some(owner)).map(|o| o.definition.name().to_string()).collect()
    }

    /// Sources that one pipeline reads.
    pub fn sources_of_pipeline(&self, pipeline: u64) -> Vec<Object> {
        let of_pipeline = |o: &&Object| matches!(o.definition, Definition::Source(_)) && o.pipeline == pipeline;
        self.state.read().objects.iter().filter(of_pipeline).cloned().collect()
    }

    /// Lets one pipeline read all sources that these pipelines read.
    pub fn unite(&self, pipelines: &[u64], into: u64) -> Result<()> {
        self.change(|state| {
            state.objects.iter_mut().filter(|o| pipelines.contains(&o.pipeline)).for_each(|o| o.pipeline = into);
            Ok(())
        })
    }

    /// Lets a pipeline of its own read each source of one.
    pub fn disperse(&self, pipeline: u64) -> Result<()> {
        self.change(|state| {
            state.objects.iter_mut().filter(|o| o.pipeline == pipeline).for_each(|o| o.pipeline = o.id);
            Ok(())
        })
    }

    /// Puts a source with one column more, the last, in the place of the one of its name. Objects that are there do not see the column.
    pub fn add_column(&self, def: Arc<SourceDef>) -> Result<()> {
        self.change(|state| {
            let id = state.next_id;
            match state.objects.iter_mut().find(|o| o.definition.name() == def.name && matches!(o.definition, Definition::Source(_))) {
                Some(object) => {
                    object.definition = Definition::Source(def);
                    object.added.push(id);
                    state.next_id += 1;
                    Ok(())
                }
                None => Err(Error::NotFound(format!("there is no source {}", def.name))),
            }
        })
    }

    /// Removes an object. What reads it must have gone first.
    pub fn drop(&self, name: &str) -> Result<()> {
        let dependents = self.dependents(name);
        if !dependents.is_empty() {
            return Err(Error::Invalid(format!("{name} can't be dropped: {} read it", dependents.join(", "))));
        }
        self.change(|state| {
            state.objects.retain(|o| o.definition.name() != name);
            Ok(())
        })
    }

    /// Changes a copy, writes it, and only then lets it count.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.write();
        let mut next = state.clone();
        let result = change(&mut next)?;
        for object in &mut next.objects {
            object.definition = self.asking(object.definition.clone());
        }
        self.write(&next)?;
        *state = next;
        Ok(result)
    }

    fn write(&self, state: &State) -> Result<()> {
        if self.blind {
            return Err(Error::Internal("the catalog was opened without the key for its secrets, so it can't be changed".into()));
        }
        let mut version = PLAIN;
        // What may be shown of a statement, and all of it encrypted if that is not the same.
        let mut kept = |id: u64, text: &str| -> Result<(String, Option<String>)> {
            let Some((seal, shown)) = &self.seal else { return Ok((text.into(), None)) };
            let shown = shown(text);
            if shown == text {
                return Ok((shown, None));
            }
            version = SEALED;
            Ok((shown, Some(seal.seal(text, &about(id))?)))
        };
        let mut objects = vec![];
        for o in &state.objects {
            let (statement, sealed) = kept(o.id, o.definition.text())?;
            let replacement = match &o.replacement {
                None => None,
                Some(r) => {
                    let (statement, sealed) = kept(r.id, r.definition.text())?;
                    Some(StoredReplacement { id: r.id, statement, sealed, reads: r.reads.clone() })
                }
            };
            objects.push(StoredObject {
                id: o.id,
                statement,
                sealed,
                owner: o.owner.clone(),
                reads: o.reads.clone(),
                start_offsets: o.start_offsets.clone(),
                paused: o.paused,
                paused_because: o.paused_because.clone(),
                memory_limit: o.memory_limit,
                pipeline: (o.pipeline != o.id).then_some(o.pipeline),
                added: o.added.clone(),
                replacement,
            });
        }
        let stored = Stored { version, next_id: state.next_id, objects };
        let text = serde_json::to_string_pretty(&stored).map_err(|e| Error::Internal(format!("the catalog could not be written as JSON: {e}")))?;
        durable::replace(&self.file, text.as_bytes()).map_err(|e| Error::External(format!("the catalog {} could not be written: {e}", self.file.display())))
    }
}

/// A definition whose memory limit may have been altered.
fn limited(definition: Definition, limit: Option<usize>) -> Definition {
    match (definition, limit) {
        (Definition::View(def), Some(_)) => {
            let options = ViewOptions { memory_limit: limit, ..def.options.clone() };
            Definition::View(Arc::new(ViewDef { options, ..(*def).clone() }))
        }
        (definition, _) => definition,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use arrow::datatypes::DataType;

    use super::*;
    use crate::catalog::{ColumnDef, DataLoss, Format, Hidden, KafkaDef, Link, Metadata, OptionValue, Origin, Startup, Throttle};

    fn view(name: &str) -> Definition {
        Definition::PlainView(Arc::new(PlainViewDef { name: name.into(), query: "SELECT 1".into(), text: format!("view {name}") }))
    }

    fn parse(text: &str) -> Result<Definition> {
        match text.strip_prefix("view ") {
            Some(name) => Ok(view(name)),
            None => Err(Error::Invalid(format!("no statement: {text}"))),
        }
    }

    #[test]
    fn outlives_the_process_and_never_reuses_an_id() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        let a = catalog.create(view("a"), vec![], BTreeMap::from([(0, 7)])).unwrap();
        let b = catalog.create(view("b"), vec!["a".into()], BTreeMap::new()).unwrap();
        assert!(matches!(catalog.create(view("a"), vec![], BTreeMap::new()), Err(Error::AlreadyExists(_))));
        assert!(catalog.drop("a").unwrap_err().to_string().contains('b'));
        catalog.drop("b").unwrap();
        let again = Catalog::open(folder.path(), &parse).unwrap();
        assert_eq!(again.list().iter().map(|o| o.id).collect::<Vec<_>>(), [a]);
        assert_eq!(again.get("a").unwrap().start_offsets, BTreeMap::from([(0, 7)]));
        assert!(again.create(view("c"), vec![], BTreeMap::new()).unwrap() > b);
    }

    #[test]
    fn a_replacement_is_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        let old = catalog.create(view("a"), vec![], BTreeMap::new()).unwrap();
        catalog.set_paused("a", true, None).unwrap();
        assert!(Catalog::open(folder.path(), &parse).unwrap().get("a").unwrap().paused);
        let id = catalog.replace("a", view("a"), vec![]).unwrap();
        assert!(id > old);
        let again = Catalog::open(folder.path(), &parse).unwrap();
        assert_eq!(again.list().iter().map(|o| (o.id, o.paused)).collect::<Vec<_>>(), [(id, false)]);
        // One that can't be written changes nothing, neither on disk nor in memory.
        std::fs::create_dir(folder.path().join("catalog.json.new")).unwrap();
        assert!(catalog.replace("a", view("a"), vec![]).is_err());
        assert_eq!(catalog.get("a").unwrap().id, id);
        std::fs::remove_dir(folder.path().join("catalog.json.new")).unwrap();
        catalog.create(view("b"), vec!["a".into()], BTreeMap::new()).unwrap();
        assert!(catalog.replace("a", view("a"), vec![]).unwrap_err().to_string().contains("b read it"));
    }

    #[test]
    fn what_is_to_take_a_place_is_noted_until_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        let reopened = || Catalog::open(folder.path(), &parse).unwrap();
        for (name, reads) in [("a", vec![]), ("b", vec!["a"]), ("c", vec!["b"]), ("d", vec![])] {
            catalog.create(view(name), reads.into_iter().map(String::from).collect(), BTreeMap::new()).unwrap();
        }
        let old = catalog.get("b").unwrap().id;
        let given_up = catalog.begin_replacement("b", view("b"), vec!["a".into()]).unwrap();
        let id = catalog.begin_replacement("b", view("b"), vec!["d".into()]).unwrap();
        assert!(old < given_up && given_up < id);
        // The old one stands, and what the new one will read can't go either.
        let noted = reopened().get("b").unwrap();
        assert_eq!((noted.id, noted.reads.clone(), noted.replacement.as_ref().map(|r| r.id)), (old, vec!["a".to_string()], Some(id)));
        assert_eq!(reopened().dependents("d"), ["b", "c"]);
        assert!(catalog.drop("d").is_err());
        assert!(!catalog.end_replacement("b", given_up, true).unwrap(), "another one is under way");
        assert!(catalog.end_replacement("b", id, true).unwrap());
        let done = reopened();
        let object = done.get("b").unwrap();
        assert_eq!((object.id, object.reads, object.replacement.is_none()), (id, vec!["d".to_string()], true));
        // It reads what was made later than itself: that comes first, and nothing is named twice.
        assert!(done.dependents("a").is_empty());
        assert_eq!(done.dependents("d"), ["b", "c"]);
        let e = catalog.create(view("e"), vec!["d".into()], BTreeMap::new()).unwrap();
        let later = catalog.begin_replacement("b", view("b"), vec!["e".into(), "d".into()]).unwrap();
        assert!(e < later);
        assert_eq!(catalog.dependents("d"), ["e", "b", "c"]);
        assert!(catalog.end_replacement("b", later, false).unwrap());
        assert_eq!((reopened().get("b").unwrap().id, reopened().dependents("e")), (id, vec![]));
        assert!(!catalog.end_replacement("b", later, true).unwrap());
    }

    #[test]
    fn pipelines_are_united_and_dispersed_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        let ids: Vec<u64> = ["a", "b", "c"].map(|name| catalog.create(view(name), vec![], BTreeMap::new()).unwrap()).into();
        let pipelines = || Catalog::open(folder.path(), &parse).unwrap().list().iter().map(|o| o.pipeline).collect::<Vec<_>>();
        catalog.unite(&ids[..2], ids[0]).unwrap();
        assert_eq!(pipelines(), [ids[0], ids[0], ids[2]]);
        catalog.unite(&[ids[2], ids[0]], ids[2]).unwrap();
        assert_eq!(pipelines(), [ids[2]; 3]);
        catalog.disperse(ids[2]).unwrap();
        assert_eq!(pipelines(), ids[..]);
    }

    #[test]
    fn added_columns_are_seen_by_what_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        // A source's statement is the names of its columns here.
        let source = |columns: &str| {
            let column = |name: &str| ColumnDef { name: name.into(), data_type: DataType::Int64, origin: Origin::Metadata(Metadata::Offset) };
            let kafka = KafkaDef {
                topic: "t".into(),
                brokers: "b".into(),
                startup: Startup::Earliest,
                on_data_loss: DataLoss::Fail,
                properties: BTreeMap::new(),
                link: Link::default(),
                throttle: Throttle::default(),
            };
            Arc::new(SourceDef {
                name: "s".into(),
                columns: columns.split(' ').map(column).collect(),
                key: None,
                watermark: None,
                kafka,
                format: Format::Json,
                header_filter: None,
                idle_timeout: Duration::ZERO,
                max_future_skew: Duration::ZERO,
                max_drift: Duration::ZERO,
                error_rows: 0,
                text: columns.into(),
            })
        };
        let parse = move |text: &str| Ok(text.strip_prefix("view ").map_or_else(|| Definition::Source(source(text)), view));
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        let id = catalog.create(Definition::Source(source("a b")), vec![], BTreeMap::from([(0, 7)])).unwrap();
        let before = catalog.create(view("before"), vec!["s".into()], BTreeMap::new()).unwrap();
        catalog.add_column(source("a b c")).unwrap();
        let between = catalog.create(view("between"), vec!["s".into()], BTreeMap::new()).unwrap();
        catalog.add_column(source("a b c d")).unwrap();
        let after = catalog.create(view("after"), vec!["s".into()], BTreeMap::new()).unwrap();
        for catalog in [&catalog, &Catalog::open(folder.path(), &parse).unwrap()] {
            let object = catalog.get("s").unwrap();
            assert_eq!((object.id, object.definition.text(), &object.start_offsets), (id, "a b c d", &BTreeMap::from([(0, 7)])));
            for (view, columns) in [(before, 2), (between, 3), (after, 4)] {
                assert_eq!(object.source_seen_by(view).unwrap().columns.len(), columns, "{view}");
            }
            assert_eq!(catalog.dependents("s"), ["before", "between", "after"]);
            assert!(catalog.get("before").unwrap().source_seen_by(after).is_none());
        }
        let none = SourceDef { name: "before".into(), ..(*source("a")).clone() };
        assert!(matches!(catalog.add_column(Arc::new(none)), Err(Error::NotFound(_))));
    }

    #[test]
    fn owners_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        catalog.create(view("a"), vec![], BTreeMap::new()).unwrap();
        catalog.create_owned(Some("bob"), view("b"), vec![], BTreeMap::new()).unwrap();
        catalog.replace("b", view("b"), vec![]).unwrap();
        let id = catalog.begin_replacement("b", view("b"), vec![]).unwrap();
        catalog.end_replacement("b", id, true).unwrap();
        let again = Catalog::open(folder.path(), &parse).unwrap();
        assert_eq!((again.get("a").unwrap().owner, again.get("b").unwrap().owner.as_deref()), (None, Some("bob")));
        assert_eq!(again.owned_by("bob"), ["b"]);
        again.set_owner("b", "ann").unwrap();
        assert!(again.owned_by("bob").is_empty() && again.set_owner("c", "ann").is_err());
    }

    /// `secret name value`, `source name secret`, else a view; what is shown of a secret is its name.
    fn parse_secrets(text: &str) -> Result<Definition> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["secret", name, value] => {
                let (name, value) = (name.to_string(), Hidden(value.into()));
                Ok(Definition::Secret(Arc::new(SecretDef { name, value, text: text.into() })))
            }
            ["connection", name, secret] => Ok(Definition::Connection(Arc::new(ConnectionDef {
                name: name.into(),
                brokers: "b".into(),
                properties: BTreeMap::from([("sasl.password".to_string(), OptionValue::Secret(secret.into()))]),
                registry: BTreeMap::new(),
                options: vec![("sasl.password".into(), OptionValue::Secret(secret.into()))],
                text: text.into(),
            }))),
            _ => parse(text),
        }
    }

    fn shown(text: &str) -> String {
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["secret", name, _] => format!("secret {name} ***"),
            _ => text.into(),
        }
    }

    #[test]
    fn secrets_are_sealed_on_disk_and_known_to_those_who_ask() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.json");
        let on_disk = || std::fs::read_to_string(&file).unwrap();
        let open = |key: KeySource| Catalog::open_sealed(folder.path(), &parse_secrets, Some(Sealing { key, shown }));
        // As an older version has left it.
        Catalog::open(folder.path(), &parse_secrets).unwrap().create(parse_secrets("secret old geheim-1").unwrap(), vec![], BTreeMap::new()).unwrap();
        assert!(on_disk().contains("geheim-1") && on_disk().contains("\"version\": 1"));
        let catalog = open(KeySource::DataDir).unwrap();
        assert!(!on_disk().contains("geheim-1") && on_disk().contains("\"version\": 2"), "{}", on_disk());
        catalog.create(parse_secrets("secret pw geheim-2").unwrap(), vec![], BTreeMap::new()).unwrap();
        catalog.create(parse_secrets("connection c pw").unwrap(), vec!["pw".into()], BTreeMap::new()).unwrap();
        let link = Link::to(Some("c".into()), BTreeMap::from([("ssl.key.password".to_string(), "old".to_string())]));
        assert!(link.connection().is_err(), "nobody was told whom to ask");
        let asking = |catalog: &Catalog| catalog.link_asking(link.clone());
        let password =
            |catalog: &Catalog| asking(catalog).connection().unwrap().unwrap().settings(&asking(catalog)).unwrap().properties["sasl.password"].clone();
        assert_eq!((password(&catalog).as_str(), asking(&catalog).secret("old").unwrap().as_str()), ("geheim-2", "geheim-1"));
        let before = catalog.get("pw").unwrap().id;
        catalog.redefine(parse_secrets("secret pw geheim-3").unwrap()).unwrap();
        assert_eq!((password(&catalog).as_str(), catalog.get("pw").unwrap().id), ("geheim-3", before));
        assert!(catalog.redefine(parse_secrets("connection pw x").unwrap()).is_err(), "it is another thing");
        assert!(catalog.drop("pw").is_err());
        let again = open(KeySource::DataDir).unwrap();
        assert_eq!(password(&again), "geheim-3");
        assert!(!on_disk().contains("geheim"), "{}", on_disk());
        // To look at it no key is needed; nothing can be changed so.
        let blind = Catalog::open(folder.path(), &parse_secrets).unwrap();
        assert_eq!(blind.get("pw").unwrap().definition.text(), "secret pw ***");
        assert!(blind.drop("c").is_err());
        let other = KeySource::Given(Hidden("00".repeat(32)));
        assert!(open(other).unwrap_err().to_string().contains("encrypted with another key"));
        std::fs::remove_file(folder.path().join("secret.key")).unwrap();
        assert!(open(KeySource::DataDir).unwrap_err().to_string().contains("secret.key"));
    }

    #[test]
    fn dependents_are_found_through_others() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), &parse).unwrap();
        for (name, reads) in [("a", vec![]), ("b", vec!["a"]), ("c", vec!["b"]), ("d", vec![])] {
            catalog.create(view(name), reads.into_iter().map(String::from).collect(), BTreeMap::new()).unwrap();
        }
        assert_eq!(catalog.dependents("a"), ["b", "c"]);
        assert!(catalog.dependents("d").is_empty());
    }

    #[test]
    fn what_it_does_not_understand_it_leaves_alone() {
        for text in ["", "{", r#"{"version":3,"next_id":1,"objects":[]}"#, r#"{"version":1,"next_id":3,"objects":[{"id":1,"statement":"nonsense"}]}"#] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("catalog.json");
            std::fs::write(&file, text).unwrap();
            let error = Catalog::open(folder.path(), &parse).unwrap_err().to_string();
            assert!(error.contains("can't be read"), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
