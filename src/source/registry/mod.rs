//! A schema registry's client: which schema has an id, which is a subject's newest, and under which id one is kept there.
//!
//! What an id stands for never changes, so an answer is kept for as long as the process lives, for all who ask the same registry. Readers ask before they hand records on
//! ([`Needs`]), so that decoding looks up what is known ([`Registry::known`]) and never waits. A registry that can't be reached is an error
//! that says so, to be tried again; that it knows no such schema is an answer.

mod http;
mod needs;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use self::http::Answer;
pub use self::needs::Needs;
use super::avro::AvroSchema;
use crate::{
    catalog::RegistryDef,
    error::{Error, Result},
};

/// How many schemas one may refer to, itself or through others.
const MOST_REFERENCES: usize = 200;
/// For how long "there is no such schema" is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// How many ids are remembered that stand for nothing: more than there are records between a reader and its decoder.
const MOST_NOTHING: usize = 4_000_000;

/// A schema as a registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub id: u32,
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub kind: String,
    /// Its text.
    pub text: String,
    /// The schemas that it refers to, each before those that refer to it.
    pub references: Vec<Reference>,
}

/// A schema that another refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What it is called there.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What an id stands for.
#[derive(Debug, Clone)]
pub enum Found {
    /// A schema.
    Schema(Arc<Registered>),
    /// The registry says that it knows none.
    Nothing,
}

/// A registry, as somebody asks it.
#[derive(Debug)]
pub struct Registry {
    def: RegistryDef,
    answers: Arc<Answers>,
}

/// What a registry has answered so far. That depends on its address alone, not on who asks.
#[derive(Debug, Default)]
struct Answers {
    known: RwLock<HashMap<u32, Arc<Registered>>>,
    nothing: Mutex<Nothing>,
    /// By subject and text: the id.
    written: Mutex<HashMap<(String, String), u32>>,
}

/// Ids that stand for nothing, and when that was heard; of two generations, so that the oldest can be forgotten.
#[derive(Debug, Default)]
struct Nothing {
    young: HashMap<u32, Instant>,
    old: HashMap<u32, Instant>,
}

impl Nothing {
    fn heard(&self, id: u32) -> Option<Instant> {
        self.young.get(&id).or_else(|| self.old.get(&id)).copied()
    }

    fn remember(&mut self, id: u32) {
        if self.young.len() >= MOST_NOTHING {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, Instant::now());
    }
}

/// By address.
static ALL: LazyLock<Mutex<HashMap<String, Arc<Answers>>>> = LazyLock::new(Mutex::default);

/// Requests run here, whoever waits for them: a reader's own thread, or one of a pool.
static RUNTIME: LazyLock<std::io::Result<tokio::runtime::Runtime>> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("registry").enable_all().build());

/// Does something on the runtime of requests.
fn spawn<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<tokio::task::JoinHandle<Result<T>>> {
    match &*RUNTIME {
        Ok(runtime) => Ok(runtime.spawn(work)),
        Err(error) => Err(Error::Internal(format!("no thread for requests to schema registries: {error}"))),
    }
}

impl Registry {
    /// The registry of a definition. All who name its address share what it answers.
    pub fn of(def: &RegistryDef) -> Arc<Self> {
        let answers = ALL.lock().entry(def.url.clone()).or_default().clone();
        Arc::new(Self { def: def.clone(), answers })
    }

    /// The same, asked as another definition says, whose answers go where those of this one do.
    fn asked_as(&self, def: RegistryDef) -> Arc<Self> {
        Arc::new(Self { def, answers: self.answers.clone() })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.def.url
    }

    /// What is known of an id; `None`: nobody has asked.
    pub fn known(&self, id: u32) -> Option<Found> {
        if let Some(schema) = self.answers.known.read().get(&id) {
            return Some(Found::Schema(schema.clone()));
        }
        self.answers.nothing.lock().heard(id).map(|_| Found::Nothing)
    }

    /// Whether the registry is to be asked for an id.
    fn is_open(&self, id: u32) -> bool {
        !self.answers.known.read().contains_key(&id) && self.answers.nothing.lock().heard(id).is_none_or(|heard| heard.elapsed() > BELIEVED)
    }

    /// Asks for ids that are not known, and waits on this thread, which is none that runs tasks. Errors are to be tried again.
    pub fn fetch_blocking(self: &Arc<Self>, ids: &HashSet<u32>) -> Result<()> {
        let open: Vec<u32> = ids.iter().copied().filter(|id| self.is_open(*id)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let (this, (tell, told)) = (self.clone(), std::sync::mpsc::channel());
        spawn(async move {
            let mut all = Ok(());
            for id in open {
                all = this.fetch(id).await;
                if all.is_err() {
                    break;
                }
            }
            // Whoever has asked may have gone.
            _ = tell.send(all);
            Ok(())
        })?;
        told.recv().map_err(|_| Error::Internal("a request to a schema registry ended early".into()))?
    }

    async fn fetch(&self, id: u32) -> Result<()> {
        match self.get(&["schemas", "ids", &id.to_string()]).await? {
            Answer::Found(value) => {
                let schema = self.registered(id, &value).await?;
                self.answers.known.write().insert(id, Arc::new(schema));
            }
            Answer::Nothing(_) => self.answers.nothing.lock().remember(id),
        }
        Ok(())
    }

    /// The newest version of a subject.
    pub async fn latest(self: &Arc<Self>, subject: &str) -> Result<Registered> {
        let (this, subject) = (self.clone(), subject.to_string());
        joined(spawn(async move {
            match this.get(&["subjects", &subject, "versions", "latest"]).await? {
                Answer::Found(value) => {
                    let id = id_of(&value).ok_or_else(|| this.odd("a version has no id"))?;
                    let schema = this.registered(id, &value).await?;
                    this.answers.known.write().insert(id, Arc::new(schema.clone()));
                    Ok(schema)
                }
                Answer::Nothing(said) => Err(Error::NotFound(format!(
                    "the schema registry at {} has no subject {subject} ({said}): register a schema, name another with 'schema.registry.subject', or give what it says in the statement",
                    this.def.url
                ))),
            }
        })?)
        .await
    }

    /// The id of an Avro schema in a subject; registers it there if it has none yet.
    pub async fn register(self: &Arc<Self>, subject: &str, schema: &str) -> Result<u32> {
        let key = (subject.to_string(), schema.to_string());
        if let Some(id) = self.answers.written.lock().get(&key) {
            return Ok(*id);
        }
        let (this, subject, schema) = (self.clone(), subject.to_string(), schema.to_string());
        let id = joined(spawn(async move {
            let value = this.post(&["subjects", &subject, "versions"], &json!({ "schema": schema })).await?;
            id_of(&value).ok_or_else(|| this.odd("a registered schema has no id"))
        })?)
        .await?;
        self.answers.written.lock().insert(key, id);
        Ok(id)
    }

    /// The id under which a schema was registered by [`Registry::register`] in this process.
    pub fn written(&self, subject: &str, schema: &str) -> Option<u32> {
        self.answers.written.lock().get(&(subject.to_string(), schema.to_string())).copied()
    }

    /// A schema of an answer, with those that it refers to.
    async fn registered(&self, id: u32, value: &Value) -> Result<Registered> {
        let text = value["schema"].as_str().ok_or_else(|| self.odd("a schema has no text"))?.to_string();
        let kind = value["schemaType"].as_str().unwrap_or("AVRO").to_string();
        // Depth first: what a schema refers to comes before it. `true`: what it refers to has been looked at.
        let (mut references, mut seen) = (vec![], HashSet::new());
        let mut open: Vec<(String, String, Option<String>)> = referred(value).into_iter().rev().map(|(name, at)| (name, at, None)).collect();
        while let Some((name, at, text)) = open.pop() {
            if let Some(text) = text {
                references.push(Reference { name, text });
                continue;
            }
            if !seen.insert(at.clone()) {
                continue;
            }
            if seen.len() > MOST_REFERENCES {
                return Err(Error::Invalid(format!("schema {id} of {} refers to more than {MOST_REFERENCES} others", self.def.url)));
            }
            let (subject, version) = at.split_once('\n').unwrap_or_default();
            let Answer::Found(value) = self.get(&["subjects", subject, "versions", version]).await? else {
                return Err(self.odd(&format!("schema {id} refers to version {version} of subject {subject}, which is not there")));
            };
            let text = value["schema"].as_str().ok_or_else(|| self.odd("a schema has no text"))?.to_string();
            open.push((name, at.clone(), Some(text)));
            open.extend(referred(&value).into_iter().rev().map(|(name, at)| (name, at, None)));
        }
        Ok(Registered { id, kind, text, references })
    }

    fn odd(&self, what: &str) -> Error {
        Error::External(format!("the schema registry at {} gives an answer that can't be understood: {what}", self.def.url))
    }
}

impl Registered {
    /// The schema as Avro that refers to nothing beyond itself. The error is a sentence without a full stop.
    pub fn avro(&self) -> Result<String, String> {
        if self.kind != "AVRO" {
            return Err(format!("it is of type {}, not AVRO", self.kind));
        }
        let schema = AvroSchema::parse(&self.text, self.references.iter().map(|reference| reference.text.as_str()))?;
        Ok(if self.references.is_empty() { self.text.clone() } else { schema.to_json() })
    }
}

impl Registered {
    /// The schema as JSON Schema. The error is a sentence without a full stop.
    pub fn json(&self) -> Result<&str, String> {
        match self.kind.as_str() {
            "JSON" => Ok(&self.text),
            kind => Err(format!("it is of type {kind}, not JSON")),
        }
    }

    /// The schema as the text of one `.proto` file. The error is a sentence without a full stop.
    pub fn protobuf(&self) -> Result<String, String> {
        match (self.kind.as_str(), self.references.first()) {
            ("PROTOBUF", None) => Ok(self.text.clone()),
            ("PROTOBUF", Some(reference)) => {
                Err(format!("it imports {}, and a statement holds one file: give it with its imports as 'protobuf.descriptor'", reference.name))
            }
            (kind, _) => Err(format!("it is of type {kind}, not PROTOBUF")),
        }
    }
}

async fn joined<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    task.await.map_err(|error| Error::Internal(format!("a request to a schema registry panicked: {error}")))?
}

fn id_of(value: &Value) -> Option<u32> {
    value["id"].as_u64().and_then(|id| u32::try_from(id).ok())
}

/// What an answer's schema refers to: the name that it uses, and subject and version, a line each.
fn referred(value: &Value) -> Vec<(String, String)> {
    let listed = value["references"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one =
        |reference: &Value| Some((reference["name"].as_str()?.to_string(), format!("{}\n{}", reference["subject"].as_str()?, reference["version"].as_i64()?)));
    listed.iter().filter_map(one).collect()
}
