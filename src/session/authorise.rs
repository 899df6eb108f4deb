//! Who may do what with what has been declared. What somebody may not see does not exist for them.
//!
//! The owner of an object (who made it) and admins may do everything with it. Others may read it with SELECT and add rows with INSERT, on it or
//! on the schema; either lets them see it. Names of queries are resolved in `names`, which asks here; declarations ask when they hold the lock
//! under which they change something, so that nothing comes between.

use std::collections::BTreeSet;

use datafusion::logical_expr::{DmlStatement, WriteOp, dml::InsertOp};

use super::engine::Engine;
use crate::{
    access::{Access, Caller, On, Outcome, Privilege, Who, audit},
    catalog::{Definition, Object, ObjectKind},
    error::{Error, Result},
};

impl Engine {
    /// Users, roles and grants.
    pub fn access(&self) -> &std::sync::Arc<Access> {
        &self.access
    }

    /// Whether they may change an object or drop it: its owner, and admins.
    pub(super) fn owns(&self, who: &Who, object: &Object) -> bool {
        let access = &self.access;
        access.is_admin(who) || (access.is_current(who) && who.name().is_some() && who.name() == object.owner.as_deref())
    }

    /// Whether they may do this with an object.
    pub(super) fn may(&self, who: &Who, privilege: Privilege, object: &Object) -> bool {
        // What may be read in the schema says nothing of what has no rows.
        let fits = object.definition.has_rows() != (privilege == Privilege::Usage);
        self.owns(who, object) || fits && self.access.allows(who, privilege, &On::Object(object.definition.name().into()))
    }

    /// Whether there is such an object for them.
    pub(super) fn sees(&self, who: &Who, object: &Object) -> bool {
        self.may(who, Privilege::Select, object) || self.may(who, Privilege::Insert, object) || self.may(who, Privilege::Usage, object)
    }

    /// The object of this name, if there is one for them.
    pub(super) fn seen(&self, who: &Who, name: &str) -> Option<Object> {
        self.catalog().get(name).filter(|object| self.sees(who, object))
    }

    /// All objects that there are for them, in the order they were made.
    pub(super) fn all_seen(&self, who: &Who) -> Vec<Object> {
        self.catalog().list().into_iter().filter(|object| self.sees(who, object)).collect()
    }

    /// Whether there is an object of this name for them.
    pub(super) fn sees_name(&self, who: &Who, name: &str) -> bool {
        self.access.is_admin(who) || self.seen(who, name).is_some()
    }

    /// The object of this name, if there is one for them, to be read.
    pub(super) fn readable(&self, caller: &Caller, name: &str) -> Result<Option<Object>> {
        let allowed = |object: &Object| self.may(&caller.who, Privilege::Select, object);
        self.for_this(caller, name, "read", allowed, || format!("{} may not read {name}: ask its owner for GRANT SELECT ON {name} TO {0}", caller.who))
    }

    /// The object of this name, if there is one for them, to be changed.
    pub(super) fn changeable(&self, caller: &Caller, name: &str) -> Result<Option<Object>> {
        let allowed = |object: &Object| self.owns(&caller.who, object);
        self.for_this(caller, name, "change", allowed, || format!("{} may not change {name}: its owner and admins may", caller.who))
    }

    /// The connection or secret of this name, if there is one for them, to be used in what they make.
    pub(super) fn usable(&self, caller: &Caller, kind: ObjectKind, name: &str) -> Result<Object> {
        let (noun, word) = kind.words();
        let allowed = |object: &Object| self.may(&caller.who, Privilege::Usage, object);
        let denied = || format!("{} may not use {name}: ask its owner for GRANT USAGE ON {word} {name} TO {0}", caller.who);
        let found = self.for_this(caller, name, "use", allowed, denied)?;
        found.filter(|object| object.definition.object_kind() == kind).ok_or_else(|| Error::NotFound(format!("there is no {noun} {name}")))
    }

    /// Whether they may use all connections and secrets that a definition names; their names.
    pub(super) fn usable_links(&self, caller: &Caller, connection: Option<&String>, secrets: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
        let mut names = vec![];
        if let Some(name) = connection {
            self.usable(caller, ObjectKind::Connection, name)?;
            names.push(name.clone());
        }
        for name in secrets {
            self.usable(caller, ObjectKind::Secret, &name)?;
            names.push(name);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether they may add rows to an object, if there is one for them.
    pub(super) fn insertable(&self, caller: &Caller, name: &str) -> Result<Option<Object>> {
        let allowed = |object: &Object| self.may(&caller.who, Privilege::Insert, object);
        self.for_this(caller, name, "insert", allowed, || format!("{} may not insert into {name}: ask its owner for GRANT INSERT ON {name} TO {0}", caller.who))
    }

    /// The object of this name for what is allowed. A denial goes to the audit; it is told only to those for whom there is such an object.
    fn for_this(
        &self,
        caller: &Caller,
        name: &str,
        doing: &'static str,
        allowed: impl Fn(&Object) -> bool,
        denied: impl FnOnce() -> String,
    ) -> Result<Option<Object>> {
        let Some(object) = self.catalog().get(name) else { return Ok(None) };
        if allowed(&object) {
            return Ok(Some(object));
        }
        audit(caller, doing, name, Outcome::Denied);
        if self.sees(&caller.who, &object) { Err(Error::Denied(denied())) } else { Ok(None) }
    }

    /// Whether they may change rows that are there: of a table its owner and admins, while a source's topic only gets more records.
    pub(super) fn check_change(&self, caller: &Caller, dml: &DmlStatement) -> Result<()> {
        let name = dml.table_name.table();
        let missing = || Error::NotFound(format!("table 'tidegate.public.{name}' not found"));
        match (self.seen(&caller.who, name), &dml.op) {
            (_, WriteOp::Insert(InsertOp::Append)) => Ok(()),
            (Some(Object { definition: Definition::Source(_), .. }), _) => self.insertable(caller, name)?.map(|_| ()).ok_or_else(missing),
            _ => self.changeable(caller, name)?.map(|_| ()).ok_or_else(missing),
        }
    }

    /// Whether they may make sources, views and tables.
    pub(super) fn check_create(&self, caller: &Caller, name: &str) -> Result<()> {
        if self.access.allows(&caller.who, Privilege::Create, &On::Schema) {
            return Ok(());
        }
        audit(caller, "create", name, Outcome::Denied);
        Err(Error::Denied(format!("{} may not create sources, views or tables: ask an admin for GRANT CREATE ON SCHEMA public TO {0}", caller.who)))
    }

    /// Whether they may do what admins do.
    pub(super) fn check_admin(&self, caller: &Caller, what: &str) -> Result<()> {
        if self.access.is_admin(&caller.who) {
            return Ok(());
        }
        audit(caller, "administer", what, Outcome::Denied);
        Err(Error::Denied(format!("only an admin may {what}")))
    }

    /// Whether they may read files below the folders that the server allows.
    pub(super) fn check_files(&self, caller: &Caller, name: &str) -> Result<()> {
        if self.access.allows(&caller.who, Privilege::ReadFiles, &On::Files) {
            return Ok(());
        }
        audit(caller, "read file", name, Outcome::Denied);
        Err(Error::Denied(format!("{} may not read files: ask an admin for GRANT READ FILES TO {0}", caller.who)))
    }

    /// Whether they may read the late rows of a view: they are rows of its sources, so both is needed.
    pub(super) fn reads_late(&self, caller: &Caller, view: &str) -> Result<Option<Object>> {
        let Some(object) = self.readable(caller, view)? else { return Ok(None) };
        for source in self.sources_below(view) {
            if self.catalog().get(&source).is_some_and(|source| !self.may(&caller.who, Privilege::Select, &source)) {
                audit(caller, "read late rows", view, Outcome::Denied);
                return Ok(None);
            }
        }
        Ok(Some(object))
    }

    /// Whose rights a plain view's query has: its owner's. What belongs to nobody here (to the admins, or to somebody whom an issuer vouches
    /// for) was checked when it was made.
    pub(super) fn definer(&self, object: &Object) -> Caller {
        let owner = object.owner.as_deref().and_then(|owner| self.access.who(owner));
        owner.map_or_else(Caller::server, |who| Caller { who, from: None })
    }

    /// Whether an object can be named in a list of tables without an error: a plain view's owner may still read what it reads.
    pub(super) fn is_listed(&self, who: &Who, object: &Object) -> bool {
        if !object.definition.has_rows() || !self.may(who, Privilege::Select, object) {
            return false;
        }
        let Definition::PlainView(_) = object.definition else { return true };
        let definer = self.definer(object).who;
        object.reads.iter().filter_map(|read| self.catalog().get(read)).all(|read| self.is_listed(&definer, &read))
    }

    /// An error of a declaration, told to somebody who need not know what else hangs on the object.
    pub(super) fn without_names(&self, caller: &Caller, name: &str, error: Error) -> Error {
        let dependents = self.catalog().dependents(name);
        let unseen = dependents.iter().filter(|dependent| !self.sees_name(&caller.who, dependent));
        match &error {
            Error::Invalid(said) if unseen.into_iter().any(|dependent| said.contains(dependent.as_str())) => {
                Error::Invalid(format!("{name} can't be changed like this, since what others own depends on it: ask an admin"))
            }
            _ => error,
        }
    }

    /// Ends statements of those who may no longer read what they read.
    pub(super) fn end_unauthorised(&self) {
        for query in self.queries.list() {
            let readable = |name: &String| self.catalog().get(name).is_none_or(|object| self.may(&query.caller.who, Privilege::Select, &object));
            if !self.access.is_current(&query.caller.who) || !query.reads.iter().all(readable) {
                audit(&query.caller, "go on reading", &query.reads.iter().cloned().collect::<Vec<_>>().join(", "), Outcome::Denied);
                self.queries.end(query.id, "may no longer read what it reads");
            }
        }
    }

    /// The objects that a statement reads: what its names hang on.
    pub(super) fn objects_named(&self, names: impl Iterator<Item = String>) -> BTreeSet<String> {
        names.map(|name| self.object_behind(&name)).filter(|name| self.catalog().get(name).is_some()).collect()
    }
}
