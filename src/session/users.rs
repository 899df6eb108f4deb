//! Statements about users, roles and grants, and `SHOW USERS`, `SHOW GRANTS`.

use std::sync::Arc;

use arrow::{
    array::{BooleanArray, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};

use super::engine::{Engine, blocking};
use crate::{
    access::{Access, Caller, On, Outcome, Privilege, Who, audit},
    catalog::ObjectKind,
    error::{Error, Result},
    sql::{GrantStatement, UserStatement},
};

/// Carries a statement about users and roles out.
pub(super) async fn run(engine: &Arc<Engine>, caller: &Caller, statement: UserStatement) -> Result<()> {
    use UserStatement as S;
    let access = engine.access();
    let (action, name) = match &statement {
        S::CreateUser { name, .. } => ("create user", name.clone()),
        S::SetPassword { name, .. } => ("set the password of", name.clone()),
        S::SetAdmin { name, .. } => ("alter user", name.clone()),
        S::DropUser { name, .. } => ("drop user", name.clone()),
        S::CreateRole { name, .. } => ("create role", name.clone()),
        S::DropRole { name, .. } => ("drop role", name.clone()),
    };
    let is_own = matches!(&statement, S::SetPassword { name, .. } if matches!(&caller.who, Who::User { name: own, .. } if **own == **name));
    if !(is_own && access.is_current(&caller.who)) {
        engine.check_admin(caller, &format!("{action} {name}"))?;
    }
    // Names of owners are used up, and two who do this at once must not miss each other.
    let _declaring = engine.declare().await;
    let done = match statement {
        S::CreateUser { name, password, admin, if_not_exists } => {
            if let Some(owned) = engine.catalog().owned_by(&name).first().filter(|_| access.who(&name).is_none()) {
                return Err(Error::Invalid(format!("somebody called {name}, whom an issuer vouched for, owns {owned}: choose another name")));
            }
            hashed(access, move |access| access.create_user(&name, &password.0, admin, if_not_exists).map(drop)).await
        }
        S::SetPassword { name, password } => hashed(access, move |access| access.set_password(&name, &password.0)).await,
        S::SetAdmin { name, admin } => access.set_admin(&name, admin),
        S::DropUser { name, if_exists } => match engine.catalog().owned_by(&name).as_slice() {
            [] => access.drop_user(&name, if_exists).map(drop),
            owned => Err(Error::Invalid(format!("user {name} owns {}: drop that first, or give it away (ALTER … OWNER TO)", owned.join(", ")))),
        },
        S::CreateRole { name, if_not_exists } => access.create_role(&name, if_not_exists).map(drop),
        S::DropRole { name, if_exists } => access.drop_role(&name, if_exists).map(drop),
    };
    audit(caller, action, &name, if done.is_ok() { Outcome::Done } else { Outcome::Failed });
    engine.end_unauthorised();
    done
}

/// Hashing a password takes a while: elsewhere.
async fn hashed(access: &Arc<Access>, work: impl FnOnce(&Access) -> Result<()> + Send + 'static) -> Result<()> {
    let access = access.clone();
    blocking(move || work(&access)).await?
}

/// Carries `GRANT` or `REVOKE` out.
pub(super) async fn grant(engine: &Arc<Engine>, caller: &Caller, statement: GrantStatement) -> Result<()> {
    let access = engine.access();
    if access.is_open() {
        return Err(Error::Invalid("there are no users yet, so everybody may do everything: CREATE USER name WITH PASSWORD '…' ADMIN first".into()));
    }
    let _declaring = engine.declare().await;
    let (give, what, done) = match statement {
        GrantStatement::Roles { roles, users, give } => {
            engine.check_admin(caller, "grant roles")?;
            (give, format!("{} for {}", roles.join(", "), users.join(", ")), access.set_roles(&roles, &users, give))
        }
        GrantStatement::Privileges { privileges, on, names, give } => {
            match &on {
                On::Object(name) => {
                    let unknown = || Error::NotFound(format!("there is nothing called {name} that rights can be granted on"));
                    let object = engine.changeable(caller, name)?.ok_or_else(unknown)?;
                    let kind = object.definition.kind();
                    if object.definition.object_kind() == ObjectKind::Sink {
                        return Err(Error::Invalid(format!("there is no privilege on {kind} {name}: it is its owner's, who needs SELECT on what it reads")));
                    }
                    let fits = |privilege: &&Privilege| (**privilege == Privilege::Usage) != object.definition.has_rows();
                    if let Some(wrong) = privileges.iter().find(|privilege| !fits(privilege)) {
                        let right = if object.definition.has_rows() { "SELECT and INSERT" } else { "USAGE" };
                        return Err(Error::Invalid(format!("there is no privilege {wrong} on {kind} {name}: there is {right}")));
                    }
                }
                On::Schema => engine.check_admin(caller, "grant on the schema")?,
                On::Files => engine.check_admin(caller, "grant READ FILES")?,
            }
            let told = privileges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let done = if give { access.grant(&privileges, &on, &names) } else { access.revoke(&privileges, &on, &names) };
            (give, format!("{told} on {on} for {}", names.join(", ")), done)
        }
    };
    audit(caller, if give { "grant" } else { "revoke" }, &what, if done.is_ok() { Outcome::Done } else { Outcome::Failed });
    engine.end_unauthorised();
    done
}

/// Gives an object to another owner.
pub(super) async fn set_owner(engine: &Arc<Engine>, caller: &Caller, kind: ObjectKind, name: &str, owner: &str) -> Result<()> {
    let (noun, _) = kind.words();
    let _declaring = engine.declare().await;
    let object = engine.changeable(caller, name)?.ok_or_else(|| Error::NotFound(format!("there is no {noun} {name}: nothing was changed")))?;
    if object.definition.object_kind() != kind {
        return Err(Error::Invalid(format!("{name} is a {}", object.definition.kind())));
    }
    // A plain view reads with its owner's rights: nobody may lend himself those of another.
    engine.check_admin(caller, "give something to another owner")?;
    if engine.access().who(owner).is_none() {
        return Err(Error::NotFound(format!("there is no user {owner}")));
    }
    engine.catalog().set_owner(name, owner)?;
    audit(caller, "give away", &format!("{name} to {owner}"), Outcome::Done);
    engine.end_unauthorised();
    Ok(())
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// The columns of `SHOW USERS`.
pub(super) fn users_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("name"), text("kind"), Field::new("admin", DataType::Boolean, true), text("roles")]))
}

/// Users and roles: all of them for admins, else oneself and one's roles.
pub(super) fn users(engine: &Engine, caller: &Caller) -> Result<RecordBatch> {
    let access = engine.access();
    let own = access.roles_of(&caller.who);
    let is_admin = access.is_admin(&caller.who);
    let mut rows: Vec<(String, &str, Option<bool>, Option<String>)> = vec![];
    for user in access.users().into_iter().filter(|user| is_admin || caller.who.name() == Some(&user.name)) {
        let roles = user.roles.into_iter().collect::<Vec<_>>().join(", ");
        rows.push((user.name, "user", Some(user.admin), Some(roles)));
    }
    rows.extend(access.roles().into_iter().filter(|role| is_admin || own.contains(role)).map(|role| (role, "role", None, None)));
    Ok(RecordBatch::try_new(
        users_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.2))),
            Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3.as_deref()))),
        ],
    )?)
}

/// The columns of `SHOW GRANTS`.
pub(super) fn grants_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("grantee"), text("privilege"), text("kind"), text("object")]))
}

/// Grants: all of them for admins, else those to oneself and one's roles, and those on what one owns.
pub(super) fn grants(engine: &Engine, caller: &Caller, of: Option<&str>) -> Result<RecordBatch> {
    let access = engine.access();
    let roles = access.roles_of(&caller.who);
    let is_admin = access.is_admin(&caller.who);
    if let Some(of) = of.filter(|of| !is_admin && caller.who.name() != Some(of) && !roles.contains(*of)) {
        return Err(Error::NotFound(format!("there is no user or role {of}")));
    }
    if let Some(of) = of.filter(|of| access.who(of).is_none() && !access.is_role(of) && caller.who.name() != Some(of)) {
        return Err(Error::NotFound(format!("there is no user or role {of}")));
    }
    let owns = |on: &On| matches!(on, On::Object(name) if engine.catalog().get(name).is_some_and(|object| engine.owns(&caller.who, &object)));
    let is_own = |to: &str| caller.who.name() == Some(to) || roles.contains(to);
    let mut rows: Vec<[String; 4]> = vec![];
    for grant in access.grants() {
        if of.is_some_and(|of| of != grant.to) || !(is_admin || is_own(&grant.to) || owns(&grant.on)) {
            continue;
        }
        let (kind, object) = match &grant.on {
            On::Object(name) => (engine.catalog().get(name).map_or("object", |object| object.definition.kind()), name.clone()),
            On::Schema => ("schema", "public".into()),
            On::Files => ("files", String::new()),
        };
        rows.push([grant.to, grant.privilege.to_string(), kind.into(), object]);
    }
    // A role is granted like a privilege.
    for user in access.users().into_iter().filter(|user| of.is_none_or(|of| of == user.name) && (is_admin || is_own(&user.name))) {
        rows.extend(user.roles.into_iter().map(|role| [user.name.clone(), "MEMBER".into(), "role".into(), role]));
    }
    rows.sort();
    let column = |at: usize| -> arrow::array::ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[at]))) };
    Ok(RecordBatch::try_new(grants_schema(), (0..4).map(column).collect())?)
}
