//! The durable catalog: one name space for sources, continuous views and plain views.
//!
//! Every change is on disk before it is seen, and is seen as a whole. Changes wait for each other; readers never wait for the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{
    Definition, Object, ObjectKind,
    file::{CatalogFile, Content, Entry},
};
use crate::error::{Error, Result};

/// The catalog of one data directory.
#[derive(Debug)]
pub struct Catalog {
    file: CatalogFile,
    /// What readers see: replaced as a whole once it is on disk.
    state: RwLock<Arc<State>>,
    /// Held through a change, over its writing.
    changing: Mutex<()>,
}

#[derive(Debug, Clone)]
struct State {
    next_id: u64,
    /// By id, which is the order of creation.
    objects: BTreeMap<u64, Arc<Object>>,
}

/// What [`Catalog::replace`] did.
#[derive(Debug, Clone)]
pub struct Replaced {
    /// The new object.
    pub new: Arc<Object>,
    /// What had the name before; its id is gone for good.
    pub old: Option<Arc<Object>>,
}

impl Catalog {
    /// Opens the catalog of a data directory; `parse` reads the text of a declaration.
    pub fn open(data_dir: &Path, parse: impl Fn(&str) -> Result<Definition>) -> Result<Self> {
        let file = CatalogFile::new(data_dir)?;
        let content = file.load()?;
        let mut state = State { next_id: content.next_id, objects: BTreeMap::new() };
        for entry in content.objects {
            let definition = parse(&entry.statement).map_err(|e| file.damaged(&format!("object {} can't be read: {e}", entry.id)))?;
            if state.named(definition.name()).is_some() || state.objects.contains_key(&entry.id) || entry.id >= state.next_id {
                return Err(file.damaged(&format!("{} is there twice, or has an id that was never given", definition.name())));
            }
            if let Some(missing) = entry.reads.iter().find(|name| state.named(name).is_none()) {
                return Err(file.damaged(&format!("{} reads {missing}, which isn't declared before it", definition.name())));
            }
            let object = Object { id: entry.id, definition, reads: entry.reads, start_offsets: entry.start_offsets };
            state.objects.insert(entry.id, Arc::new(object));
        }
        Ok(Self { file, state: RwLock::new(Arc::new(state)), changing: Mutex::new(()) })
    }

    /// Adds a declaration that reads the named objects.
    pub fn create(&self, definition: Definition, reads: Vec<String>) -> Result<Arc<Object>> {
        self.change(|state| {
            state.refuse_taken(&definition)?;
            state.add(definition, reads)
        })
    }

    /// Adds a view, or puts it in the place of the view of the same kind that has its name and that nothing reads.
    pub fn replace(&self, definition: Definition, reads: Vec<String>) -> Result<Replaced> {
        self.change(|state| {
            let old = state.named(definition.name()).cloned();
            if let Some(old) = &old {
                if old.definition.describe() != definition.describe() || definition.kind() != ObjectKind::View {
                    state.refuse_taken(&definition)?;
                }
                state.refuse_read(old, "replaced", "drop them first")?;
                state.objects.remove(&old.id);
            }
            Ok(Replaced { new: state.add(definition, reads)?, old })
        })
    }

    /// Removes the object of that name and kind; with `cascade` also all that reads it, directly or not.
    /// Gives what was removed, readers before what they read.
    pub fn drop(&self, name: &str, kind: ObjectKind, cascade: bool) -> Result<Vec<Arc<Object>>> {
        self.change(|state| {
            let object = state.require(name, kind)?.clone();
            if !cascade {
                state.refuse_read(&object, "dropped", "drop them first, or write CASCADE")?;
            }
            let mut gone = state.readers(name);
            gone.reverse();
            gone.push(object);
            gone.iter().for_each(|object| {
                state.objects.remove(&object.id);
            });
            Ok(gone)
        })
    }

    /// Records the offsets that reading a source began at.
    pub fn set_start_offsets(&self, id: u64, offsets: BTreeMap<i32, i64>) -> Result<()> {
        self.change(|state| {
            let Some(object) = state.objects.get_mut(&id) else {
                return Err(Error::NotFound(format!("the source with the id {id} is not in the catalog, it was dropped")));
            };
            *object = Arc::new(Object { start_offsets: offsets, ..object.as_ref().clone() });
            Ok(())
        })
    }

    /// The object of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Object>> {
        self.state.read().named(name).cloned()
    }

    /// The object of that name and kind, or a sentence about what is there in its place.
    pub fn require(&self, name: &str, kind: ObjectKind) -> Result<Arc<Object>> {
        self.state.read().require(name, kind).cloned()
    }

    /// The object with that id.
    pub fn by_id(&self, id: u64) -> Option<Arc<Object>> {
        self.state.read().objects.get(&id).cloned()
    }

    /// All objects in the order of their creation, so each comes after what it reads.
    pub fn list(&self) -> Vec<Arc<Object>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// All that reads the named object, directly or through others, in the order of creation.
    pub fn dependents(&self, name: &str) -> Vec<Arc<Object>> {
        self.state.read().readers(name)
    }

    /// Makes a change on a copy, writes that to disk, then lets it be seen.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _alone = self.changing.lock();
        let mut state = self.state.read().as_ref().clone();
        let result = change(&mut state)?;
        self.file.save(&state.content())?;
        *self.state.write() = Arc::new(state);
        Ok(result)
    }
}

impl State {
    fn named(&self, name: &str) -> Option<&Arc<Object>> {
        self.objects.values().find(|object| object.name() == name)
    }

    fn require(&self, name: &str, kind: ObjectKind) -> Result<&Arc<Object>> {
        let wanted = match kind {
            ObjectKind::Source => "source",
            ObjectKind::View => "view",
        };
        match self.named(name) {
            Some(object) if object.definition.kind() == kind => Ok(object),
            Some(other) => Err(Error::Invalid(format!(
                "{name} is a {}, not a {wanted}: write {} in place of {}",
                other.definition.describe(),
                other.definition.describe().to_uppercase(),
                wanted.to_uppercase()
            ))),
            None => Err(Error::NotFound(format!("there is no {wanted} called {name}: SHOW {}S lists them", wanted.to_uppercase()))),
        }
    }

    fn refuse_taken(&self, definition: &Definition) -> Result<()> {
        match self.named(definition.name()) {
            Some(taken) => {
                let (name, what) = (taken.name(), taken.definition.describe());
                Err(Error::AlreadyExists(format!("the name {name} is taken by a {what}: take another name, or drop the {what} first")))
            }
            None => Ok(()),
        }
    }

    fn refuse_read(&self, object: &Object, done: &str, advice: &str) -> Result<()> {
        let readers: Vec<_> = self.readers(object.name()).iter().map(|reader| reader.name().to_string()).collect();
        match readers.is_empty() {
            true => Ok(()),
            false => Err(Error::Invalid(format!("{} can't be {done}, since {} read it: {advice}", object.name(), readers.join(", ")))),
        }
    }

    /// Ids rise along reading, so one walk by id finds all readers.
    fn readers(&self, name: &str) -> Vec<Arc<Object>> {
        let mut read = BTreeSet::from([name]);
        let mut readers = vec![];
        for object in self.objects.values() {
            if object.reads.iter().any(|name| read.contains(name.as_str())) {
                read.insert(object.name());
                readers.push(object.clone());
            }
        }
        readers
    }

    fn add(&mut self, definition: Definition, mut reads: Vec<String>) -> Result<Arc<Object>> {
        reads.sort();
        reads.dedup();
        if let Some(missing) = reads.iter().find(|name| self.named(name).is_none()) {
            return Err(Error::NotFound(format!("{} reads {missing}, which was dropped or never declared: create {missing} first", definition.name())));
        }
        let object = Arc::new(Object { id: self.next_id, definition, reads, start_offsets: BTreeMap::new() });
        self.next_id += 1;
        self.objects.insert(object.id, object.clone());
        Ok(object)
    }

    fn content(&self) -> Content {
        let entry = |object: &Arc<Object>| Entry {
            id: object.id,
            statement: object.definition.text().to_string(),
            reads: object.reads.clone(),
            start_offsets: object.start_offsets.clone(),
        };
        Content::new(self.next_id, self.objects.values().map(entry).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::catalog::{PlainViewDef, ViewDef, ViewOptions};

    /// A little language in place of SQL: `view a` or `plain b`.
    fn parse(text: &str) -> Result<Definition> {
        match text.split_once(' ') {
            Some(("view", name)) => {
                let def = ViewDef { name: name.into(), query: String::new(), emit: None, options: ViewOptions::default(), text: text.into() };
                Ok(Definition::View(Arc::new(def)))
            }
            Some(("plain", name)) => Ok(Definition::PlainView(Arc::new(PlainViewDef { name: name.into(), query: String::new(), text: text.into() }))),
            _ => Err(Error::Invalid(format!("no declaration: {text}"))),
        }
    }

    fn open(dir: &TempDir) -> Catalog {
        Catalog::open(dir.path(), parse).unwrap()
    }

    fn create(catalog: &Catalog, text: &str, reads: &[&str]) -> Result<u64> {
        Ok(catalog.create(parse(text)?, reads.iter().map(|r| r.to_string()).collect())?.id)
    }

    fn names(objects: &[Arc<Object>]) -> Vec<&str> {
        objects.iter().map(|o| o.name()).collect()
    }

    #[test]
    fn survives_a_restart_and_never_gives_an_id_twice() {
        let dir = TempDir::new().unwrap();
        let catalog = open(&dir);
        assert_eq!(create(&catalog, "view a", &[]).unwrap(), 1);
        assert_eq!(create(&catalog, "plain b", &["a", "a"]).unwrap(), 2);
        catalog.set_start_offsets(1, BTreeMap::from([(0, 7), (3, 9)])).unwrap();
        catalog.drop("b", ObjectKind::View, false).unwrap();
        let before = catalog.list();
        drop(catalog);
        let catalog = open(&dir);
        assert_eq!(catalog.list(), before);
        assert_eq!(catalog.by_id(1).unwrap().start_offsets, BTreeMap::from([(0, 7), (3, 9)]));
        assert_eq!(create(&catalog, "plain b", &["a"]).unwrap(), 3);
        assert!(catalog.set_start_offsets(2, BTreeMap::new()).unwrap_err().to_string().contains("was dropped"));
    }

    #[test]
    fn drops_with_what_reads_it() {
        let dir = TempDir::new().unwrap();
        let catalog = open(&dir);
        for (text, reads) in [("view a", vec![]), ("view b", vec!["a"]), ("plain c", vec!["b"]), ("view d", vec!["b", "a"]), ("view e", vec![])] {
            create(&catalog, text, &reads).unwrap();
        }
        assert_eq!(names(&catalog.dependents("a")), ["b", "c", "d"]);
        let refused = catalog.drop("a", ObjectKind::View, false).unwrap_err().to_string();
        assert_eq!(refused, "a can't be dropped, since b, c, d read it: drop them first, or write CASCADE");
        assert_eq!(names(&catalog.drop("a", ObjectKind::View, true).unwrap()), ["d", "c", "b", "a"]);
        assert_eq!(names(&open(&dir).list()), ["e"]);
        assert!(matches!(catalog.drop("a", ObjectKind::View, true), Err(Error::NotFound(_))));
        assert_eq!(
            catalog.drop("e", ObjectKind::Source, true).unwrap_err().to_string(),
            "e is a continuous view, not a source: write CONTINUOUS VIEW in place of SOURCE"
        );
    }

    #[test]
    fn one_name_space() {
        let dir = TempDir::new().unwrap();
        let catalog = open(&dir);
        create(&catalog, "view a", &[]).unwrap();
        let taken = create(&catalog, "plain a", &[]).unwrap_err();
        assert!(matches!(taken, Error::AlreadyExists(_)));
        assert_eq!(taken.to_string(), "the name a is taken by a continuous view: take another name, or drop the continuous view first");
        assert!(matches!(create(&catalog, "plain b", &["x"]), Err(Error::NotFound(_))));
        assert!(catalog.get("b").is_none());
    }

    #[test]
    fn replaces_views_of_the_same_kind() {
        let dir = TempDir::new().unwrap();
        let catalog = open(&dir);
        let first = catalog.replace(parse("view a").unwrap(), vec![]).unwrap();
        assert!(first.old.is_none());
        let second = catalog.replace(parse("view a").unwrap(), vec![]).unwrap();
        assert_eq!((second.old.unwrap().id, second.new.id), (1, 2));
        assert!(matches!(catalog.replace(parse("plain a").unwrap(), vec![]), Err(Error::AlreadyExists(_))));
        create(&catalog, "plain b", &["a"]).unwrap();
        assert!(catalog.replace(parse("view a").unwrap(), vec![]).unwrap_err().to_string().contains("since b read it"));
        assert_eq!(names(&open(&dir).list()), ["a", "b"]);
    }

    #[test]
    fn what_it_cannot_read_it_leaves_alone() {
        let object = |text: &str| format!(r#"{{"id": 1, "statement": "{text}", "reads": []}}"#);
        let file = |objects: &str| format!(r#"{{"format": "tidegate-catalog", "version": 1, "next_id": 2, "objects": [{objects}]}}"#);
        for (content, message) in [
            ("".to_string(), "is damaged"),
            ("{\"format\": \"tidegate-catalog\"".into(), "is damaged"),
            (file("").replace("tidegate-catalog", "shopping-list"), "it is a shopping-list file"),
            (file("").replace("\"version\": 1", "\"version\": 2"), "was written by a newer Tidegate"),
            (file("").replace("next_id", "newer_field"), "is damaged"),
            (file(&object("table a")), "object 1 can't be read: no declaration"),
            (file(&format!("{}, {}", object("view a"), object("view b"))), "is there twice"),
            (file(&object("view a").replace("[]", "[\"b\"]")), "reads b, which isn't declared"),
        ] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("catalog.json");
            fs::write(&path, &content).unwrap();
            let error = Catalog::open(dir.path(), parse).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("catalog.json"), "{content}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("catalog.json"), file(&object("view a"))).unwrap();
        // What a crash left half written beside it is of no account.
        fs::write(dir.path().join("catalog.json.new"), "{\"form").unwrap();
        let catalog = open(&dir);
        assert_eq!(names(&catalog.list()), ["a"]);
        create(&catalog, "view b", &[]).unwrap();
    }

    #[test]
    fn a_change_that_cannot_be_written_is_no_change() {
        let dir = TempDir::new().unwrap();
        let catalog = open(&dir);
        create(&catalog, "view a", &[]).unwrap();
        // A folder in the place of the file beside it: it can't be created, whoever runs this.
        fs::create_dir(dir.path().join("catalog.json.new")).unwrap();
        assert!(create(&catalog, "view b", &[]).unwrap_err().to_string().contains("nothing was changed"));
        assert_eq!(names(&catalog.list()), ["a"]);
        assert_eq!(names(&open(&dir).list()), ["a"]);
    }

    #[test]
    fn threads_take_one_name_each() {
        let dir = TempDir::new().unwrap();
        let catalog = open(&dir);
        let made: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let catalog = &catalog;
                    scope.spawn(move || (0..10).filter(|n| create(catalog, &format!("view v{n}"), &[]).is_ok()).count())
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(made, 10);
        let ids: BTreeSet<u64> = open(&dir).list().iter().map(|o| o.id).collect();
        assert_eq!(ids, (1..=10).collect());
    }
}
