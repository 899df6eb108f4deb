//! Users, roles and grants: one file in the data directory (`access.json`), replaced as a whole. A change is on disk before its call returns.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{
    On, Privilege, Who,
    issuer::{Issuer, IssuerConfig},
    login::Logins,
    password,
    token::{Signer, random_text},
};
use crate::{
    durable,
    error::{Error, Result},
};

/// The file's format; another one is refused.
const VERSION: u32 = 1;

/// Names that mean something else.
const RESERVED: [&str; 5] = ["token", "public", "anyone", "server", "none"];

/// How access is checked.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// How long a token of this server counts.
    pub token_lifetime: Duration,
    /// An external issuer whose tokens count, too.
    pub issuer: Option<IssuerConfig>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { token_lifetime: Duration::from_secs(12 * 3600), issuer: None }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub id: u64,
    pub name: String,
    /// What is kept of the password.
    pub hash: String,
    /// Another text with each password: tokens name it.
    pub credential: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
}

/// A privilege that somebody has been granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// The user or role.
    pub to: String,
    /// What they may do.
    pub privilege: Privilege,
    /// On what.
    pub on: On,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    next_id: u64,
    users: Vec<User>,
    roles: BTreeSet<String>,
    grants: BTreeSet<Granted>,
}

impl State {
    fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User> {
        self.users.iter_mut().find(|user| user.name == name).ok_or_else(|| no_user(name))
    }

    fn is_known(&self, name: &str) -> bool {
        self.roles.contains(name) || self.user(name).is_some()
    }

    /// Somebody must be able to change who may what.
    fn check_admin_left(&self) -> Result<()> {
        match self.users.is_empty() || self.users.iter().any(|user| user.admin) {
            true => Ok(()),
            false => Err(Error::Invalid("one admin has to stay: make another user one first (ALTER USER name ADMIN)".into())),
        }
    }
}

/// A user, as others are told.
#[derive(Debug, Clone)]
pub struct UserInfo {
    /// The user's name.
    pub name: String,
    /// Whether they may do everything.
    pub admin: bool,
    /// Their roles.
    pub roles: BTreeSet<String>,
}

/// Users, roles and grants, and who is let in.
#[derive(Debug)]
pub struct Access {
    /// `None`: nothing is kept.
    file: Option<PathBuf>,
    state: RwLock<State>,
    pub(super) config: AccessConfig,
    pub(super) issuer: Option<Issuer>,
    pub(super) signer: Signer,
    pub(super) logins: Logins,
}

impl Access {
    /// What a data directory says; nobody if there is nothing yet. A file that can't be understood is left as it is, and keeps the server
    /// from starting: without it everybody would be let in.
    pub fn open(folder: &Path, config: AccessConfig) -> Result<Arc<Self>> {
        let file = folder.join("access.json");
        let broken = |why: String| Error::External(format!("the users in {} can't be read: {why}; restore the file from a backup", file.display()));
        let state = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::nobody(),
            Err(error) => return Err(broken(error.to_string())),
            Ok(text) => {
                let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
                if value["version"] != VERSION {
                    return Err(broken(format!("it has format {}, this version reads format {VERSION}", value["version"])));
                }
                serde_json::from_value(value).map_err(|e| broken(e.to_string()))?
            }
        };
        let signer = Signer::open(&folder.join("token.key"))?;
        Ok(Self::new(Some(file), state, config, signer))
    }

    /// No users, and nothing that outlives the process.
    pub fn fleeting(config: AccessConfig) -> Result<Arc<Self>> {
        Ok(Self::new(None, Self::nobody(), config, Signer::fleeting()?))
    }

    fn new(file: Option<PathBuf>, state: State, config: AccessConfig, signer: Signer) -> Arc<Self> {
        let issuer = config.issuer.clone().map(Issuer::new);
        Arc::new(Self { file, state: RwLock::new(state), config, issuer, signer, logins: Logins::default() })
    }

    fn nobody() -> State {
        State { version: VERSION, next_id: 1, users: vec![], roles: BTreeSet::new(), grants: BTreeSet::new() }
    }

    /// Whether whoever reaches the port is let in: nobody has been made a user, and no issuer vouches for anybody.
    pub fn is_open(&self) -> bool {
        self.issuer.is_none() && self.state.read().users.is_empty()
    }

    // Rights.

    /// Whether they may do everything.
    pub fn is_admin(&self, who: &Who) -> bool {
        match who {
            Who::Server => true,
            Who::Anyone => self.is_open(),
            Who::User { name, id } => self.state.read().user(name).is_some_and(|user| user.id == *id && user.admin),
            Who::External { .. } => false,
        }
    }

    /// Whether they may do this: as admins, or since it was granted to them or to one of their roles. Owners are not asked for here.
    pub fn allows(&self, who: &Who, privilege: Privilege, on: &On) -> bool {
        if self.is_admin(who) {
            return true;
        }
        let state = self.state.read();
        let granted = |to: &str| {
            let has = |on: On| state.grants.contains(&Granted { to: to.to_owned(), privilege, on });
            has(on.clone()) || (matches!(on, On::Object(_)) && has(On::Schema))
        };
        match who {
            Who::Server | Who::Anyone => false,
            Who::User { name, id } => state.user(name).is_some_and(|user| user.id == *id && (granted(name) || user.roles.iter().any(|role| granted(role)))),
            Who::External { roles, .. } => roles.iter().any(|role| state.roles.contains(role) && granted(role)),
        }
    }

    /// Whether they still are who they were: a user may have been dropped, and anyone is let in only while there are no users.
    pub fn is_current(&self, who: &Who) -> bool {
        match who {
            Who::Server | Who::External { .. } => true,
            Who::Anyone => self.is_open(),
            Who::User { name, id } => self.state.read().user(name).is_some_and(|user| user.id == *id),
        }
    }

    /// The user of this name.
    pub fn who(&self, name: &str) -> Option<Who> {
        self.state.read().user(name).map(|user| Who::User { name: user.name.as_str().into(), id: user.id })
    }

    /// Whether there is a role of this name.
    pub fn is_role(&self, name: &str) -> bool {
        self.state.read().roles.contains(name)
    }

    /// The roles that somebody has.
    pub fn roles_of(&self, who: &Who) -> BTreeSet<String> {
        match who {
            Who::Server | Who::Anyone => BTreeSet::new(),
            Who::User { name, id } => self.state.read().user(name).filter(|user| user.id == *id).map(|user| user.roles.clone()).unwrap_or_default(),
            Who::External { roles, .. } => roles.iter().filter(|role| self.is_role(role)).cloned().collect(),
        }
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<UserInfo> {
        let mut users: Vec<UserInfo> =
            self.state.read().users.iter().map(|user| UserInfo { name: user.name.clone(), admin: user.admin, roles: user.roles.clone() }).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// All roles.
    pub fn roles(&self) -> BTreeSet<String> {
        self.state.read().roles.clone()
    }

    /// All grants, by who has them.
    pub fn grants(&self) -> Vec<Granted> {
        self.state.read().grants.iter().cloned().collect()
    }

    /// What a login is checked against: the hash of a user's password, the credential, and who that is.
    pub(super) fn credential(&self, name: &str) -> Option<(String, String, Who)> {
        let state = self.state.read();
        let user = state.user(name)?;
        Some((user.hash.clone(), user.credential.clone(), Who::User { name: user.name.as_str().into(), id: user.id }))
    }

    // Changes. Hashing takes a while: those that do it are called where a thread may wait.

    /// Makes a user; tells whether there was none of the name. The first one is to be an admin: nobody else could make others.
    pub fn create_user(&self, name: &str, password: &str, admin: bool, if_not_exists: bool) -> Result<bool> {
        check_name("a user", name)?;
        password::check(password)?;
        let hash = password::hash(password)?;
        let credential = random_text()?;
        self.change(|state| {
            if state.user(name).is_some() && if_not_exists {
                return Ok(false);
            }
            if state.is_known(name) {
                return Err(Error::AlreadyExists(format!("there is a user or role {name} already: choose another name")));
            }
            if state.users.is_empty() && !admin {
                return Err(Error::Invalid(format!(
                    "the first user has to be an admin, since from then on nobody else could make users: CREATE USER {name} WITH PASSWORD '…' ADMIN"
                )));
            }
            let id = state.next_id;
            state.next_id += 1;
            state.users.push(User { id, name: name.into(), hash, credential, admin, roles: BTreeSet::new() });
            Ok(true)
        })
    }

    /// Gives a user another password; tokens that were given for the old one end.
    pub fn set_password(&self, name: &str, password: &str) -> Result<()> {
        password::check(password)?;
        let hash = password::hash(password)?;
        let credential = random_text()?;
        self.change(|state| {
            let user = state.user_mut(name)?;
            (user.hash, user.credential) = (hash, credential);
            Ok(())
        })
    }

    /// Makes a user an admin, or no longer one.
    pub fn set_admin(&self, name: &str, admin: bool) -> Result<()> {
        self.change(|state| {
            state.user_mut(name)?.admin = admin;
            state.check_admin_left()
        })
    }

    /// Removes a user and what was granted to them; tells whether there was one.
    pub fn drop_user(&self, name: &str, if_exists: bool) -> Result<bool> {
        self.change(|state| {
            if state.user(name).is_none() {
                return if if_exists { Ok(false) } else { Err(no_user(name)) };
            }
            state.users.retain(|user| user.name != name);
            state.grants.retain(|grant| grant.to != name);
            state.check_admin_left().map(|()| true)
        })
    }

    /// Makes a role; tells whether there was none of the name.
    pub fn create_role(&self, name: &str, if_not_exists: bool) -> Result<bool> {
        check_name("a role", name)?;
        self.change(|state| {
            if state.roles.contains(name) && if_not_exists {
                return Ok(false);
            }
            if state.is_known(name) {
                return Err(Error::AlreadyExists(format!("there is a user or role {name} already: choose another name")));
            }
            Ok(state.roles.insert(name.into()))
        })
    }

    /// Removes a role, from all who have it as well; tells whether there was one.
    pub fn drop_role(&self, name: &str, if_exists: bool) -> Result<bool> {
        self.change(|state| {
            if !state.roles.remove(name) {
                return if if_exists { Ok(false) } else { Err(Error::NotFound(format!("there is no role {name}"))) };
            }
            state.grants.retain(|grant| grant.to != name);
            state.users.iter_mut().for_each(|user| _ = user.roles.remove(name));
            Ok(true)
        })
    }

    /// Gives users these roles, or takes them away.
    pub fn set_roles(&self, roles: &[String], users: &[String], give: bool) -> Result<()> {
        self.change(|state| {
            if let Some(unknown) = roles.iter().find(|role| !state.roles.contains(*role)) {
                return Err(Error::NotFound(format!("there is no role {unknown}: CREATE ROLE {unknown} first")));
            }
            for name in users {
                if state.roles.contains(name) {
                    return Err(Error::Invalid(format!("{name} is a role: roles are given to users only")));
                }
                let user = state.user_mut(name)?;
                match give {
                    true => user.roles.extend(roles.iter().cloned()),
                    false => user.roles.retain(|role| !roles.contains(role)),
                }
            }
            Ok(())
        })
    }

    /// Grants users or roles these privileges on something.
    pub fn grant(&self, privileges: &[Privilege], on: &On, to: &[String]) -> Result<()> {
        self.change_grants(privileges, on, to, |grants, granted| _ = grants.insert(granted))
    }

    /// Takes what was granted away again.
    pub fn revoke(&self, privileges: &[Privilege], on: &On, from: &[String]) -> Result<()> {
        self.change_grants(privileges, on, from, |grants, granted| _ = grants.remove(&granted))
    }

    fn change_grants(&self, privileges: &[Privilege], on: &On, names: &[String], change: impl Fn(&mut BTreeSet<Granted>, Granted)) -> Result<()> {
        self.change(|state| {
            if let Some(unknown) = names.iter().find(|name| !state.is_known(name)) {
                return Err(Error::NotFound(format!("there is no user or role {unknown}")));
            }
            for to in names {
                for &privilege in privileges {
                    change(&mut state.grants, Granted { to: to.clone(), privilege, on: on.clone() });
                }
            }
            Ok(())
        })
    }

    /// Forgets what was granted on an object: another one that gets its name is another one.
    pub fn forget_object(&self, name: &str) -> Result<()> {
        let on = On::Object(name.into());
        if !self.state.read().grants.iter().any(|grant| grant.on == on) {
            return Ok(());
        }
        self.change(|state| {
            state.grants.retain(|grant| grant.on != on);
            Ok(())
        })
    }

    /// Changes a copy, writes it, and only then lets it count.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.write();
        let mut next = state.clone();
        let result = change(&mut next)?;
        if let Some(path) = &self.file {
            let text = serde_json::to_string_pretty(&next).map_err(|e| Error::Internal(format!("the users could not be written as JSON: {e}")))?;
            durable::replace_private(path, text.as_bytes())
                .map_err(|e| Error::External(format!("the users could not be written to {}: {e}", path.display())))?;
        }
        *state = next;
        Ok(result)
    }
}

fn no_user(name: &str) -> Error {
    Error::NotFound(format!("there is no user {name}"))
}

/// Checks the name that a user or role is to have.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::Invalid(format!("{what} can't be called {name:?}: {why}")));
    match name {
        "" => refuse("a name has at least one letter"),
        _ if name.len() > 128 => refuse("a name has at most 128 bytes"),
        _ if RESERVED.contains(&name) => refuse("the word means something else"),
        // No colon: it ends the name in a Basic header.
        _ if !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@')) => refuse("a name is made of letters, digits and _ - . @"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn object(name: &str) -> On {
        On::Object(name.into())
    }

    #[test]
    fn rights_come_from_grants_and_roles_and_go_with_them() {
        let access = Access::fleeting(AccessConfig::default()).unwrap();
        assert!(access.allows(&Who::Anyone, Privilege::Select, &object("v")));
        let first = access.create_user("bob", "long enough", false, false).unwrap_err().to_string();
        assert!(first.contains("ADMIN"), "{first}");
        access.create_user("root", "long enough", true, false).unwrap();
        access.create_user("bob", "long enough", false, false).unwrap();
        let bob = access.who("bob").unwrap();
        let may = |on: &On| access.allows(&bob, Privilege::Select, on);
        assert!(!access.allows(&Who::Anyone, Privilege::Select, &object("v")));
        assert!(access.allows(&access.who("root").unwrap(), Privilege::Select, &object("v")));
        assert!(!may(&object("v")));
        access.create_role("reader", false).unwrap();
        access.grant(&[Privilege::Select], &object("v"), &["reader".into()]).unwrap();
        assert!(!may(&object("v")));
        access.set_roles(&["reader".into()], &["bob".into()], true).unwrap();
        assert!(may(&object("v")) && !may(&object("w")) && !access.allows(&bob, Privilege::Insert, &object("v")));
        access.grant(&[Privilege::Select], &On::Schema, &["bob".into()]).unwrap();
        assert!(may(&object("w")) && !access.allows(&bob, Privilege::Create, &On::Schema));
        access.revoke(&[Privilege::Select], &On::Schema, &["bob".into()]).unwrap();
        access.drop_role("reader", false).unwrap();
        assert!(!may(&object("v")));
        access.create_role("reader", false).unwrap();
        assert!(!may(&object("v")), "a role of the same name is another one");
        access.grant(&[Privilege::Select], &object("v"), &["bob".into()]).unwrap();
        assert!(may(&object("v")));
        access.forget_object("v").unwrap();
        assert!(!may(&object("v")));
        access.grant(&[Privilege::Select], &object("v"), &["bob".into()]).unwrap();
        access.drop_user("bob", false).unwrap();
        access.create_user("bob", "long enough", false, false).unwrap();
        let again = access.who("bob").unwrap();
        assert!(!may(&object("v")) && !access.allows(&again, Privilege::Select, &object("v")));
        assert!(access.is_current(&again) && !access.is_current(&bob) && !access.is_current(&Who::Anyone));
    }

    #[test]
    fn roles_of_others_are_those_that_there_are() {
        let access = Access::fleeting(AccessConfig::default()).unwrap();
        access.create_user("root", "long enough", true, false).unwrap();
        access.create_role("reader", false).unwrap();
        access.grant(&[Privilege::Select], &object("v"), &["reader".into()]).unwrap();
        let external = |roles: &[&str]| Who::External { name: "eve".into(), roles: Arc::new(roles.iter().map(|r| r.to_string()).collect()) };
        assert!(access.allows(&external(&["reader", "other"]), Privilege::Select, &object("v")));
        // The name of a user is no role.
        assert!(!access.allows(&external(&["root"]), Privilege::Select, &object("v")) && !access.is_admin(&external(&["root"])));
    }

    #[test]
    fn an_admin_stays() {
        let access = Access::fleeting(AccessConfig::default()).unwrap();
        access.create_user("root", "long enough", true, false).unwrap();
        access.create_user("bob", "long enough", false, false).unwrap();
        assert!(access.drop_user("root", false).is_err() && access.set_admin("root", false).is_err());
        assert!(access.is_admin(&access.who("root").unwrap()));
        access.set_admin("bob", true).unwrap();
        access.drop_user("root", false).unwrap();
        assert!(!access.drop_user("root", true).unwrap());
    }

    #[test]
    fn outlives_the_process_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path(), AccessConfig::default()).unwrap();
        access.create_user("root", "long enough", true, false).unwrap();
        access.create_role("reader", false).unwrap();
        access.grant(&[Privilege::Select], &On::Schema, &["reader".into()]).unwrap();
        let file = folder.path().join("access.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&file).unwrap().contains("long enough"));
        // What a crash has left in the middle is no obstacle.
        std::fs::write(folder.path().join("access.json.new"), "half").unwrap();
        let again = Access::open(folder.path(), AccessConfig::default()).unwrap();
        assert_eq!((again.users().len(), again.grants(), again.is_open()), (1, access.grants(), false));
        again.create_user("bob", "long enough", false, false).unwrap();
        for text in ["", "{", r#"{"version":2}"#, r#"{"version":1,"next_id":1,"users":[],"roles":[],"grants":[],"more":1}"#] {
            std::fs::write(&file, text).unwrap();
            assert!(Access::open(folder.path(), AccessConfig::default()).unwrap_err().to_string().contains("can't be read"), "{text}");
        }
    }

    #[test]
    fn names_are_plain() {
        for bad in ["", "token", "a:b", "a b", "a\n", &"x".repeat(200)] {
            assert!(check_name("a user", bad).is_err(), "{bad}");
        }
        assert!(check_name("a user", "ana.maría@example.com").is_ok());
    }
}
