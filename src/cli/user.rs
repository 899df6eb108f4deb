//! `tidegate user`.

use std::{
    fs::File,
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};

use crate::{
    access::{Access, AccessConfig},
    catalog::Catalog,
    config::DEFAULT_DATA_DIR,
    session::lock_folder,
    sql,
};

/// Users of a server that does not run: the first one, and whoever has forgotten a password.
///
/// While the server runs, its users are made and changed with SQL: CREATE USER, ALTER USER, DROP USER.
#[derive(Debug, clap::Subcommand)]
pub enum User {
    /// Make a user, or give one a new password
    Add {
        /// The user's name
        name: String,
        /// They may do everything, as the first user has to
        #[arg(long)]
        admin: bool,
        /// Read the password from standard input, up to the end of its first line
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        place: Place,
    },
    /// List users
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Remove a user
    Remove {
        /// The user's name
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the users are.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The server's data directory
    #[arg(long, env = "TIDEGATE_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Runs the command.
pub fn run(command: User) -> anyhow::Result<()> {
    match command {
        User::Add { name, admin, password_stdin, place } => {
            let (_lock, access) = open(&place.data_dir)?;
            let known = access.users().into_iter().find(|user| user.name == name);
            let password = if password_stdin { from_stdin()? } else { ask(&name)? };
            match known {
                None => {
                    if let Some(owned) = catalog(&place.data_dir)?.owned_by(&name).first() {
                        bail!("somebody called {name}, whom an issuer vouched for, owns {owned}: choose another name");
                    }
                    if access.users().is_empty() && !admin {
                        bail!("the first user has to be an admin, since nobody else could make others: say --admin");
                    }
                    access.create_user(&name, &password, admin, false)?;
                    println!("user {name} was made");
                }
                Some(user) => {
                    access.set_password(&name, &password)?;
                    if admin && !user.admin {
                        access.set_admin(&name, true)?;
                    }
                    println!("user {name} has a new password");
                }
            }
        }
        User::List { place } => {
            let (_lock, access) = open(&place.data_dir)?;
            for user in access.users() {
                let roles = user.roles.into_iter().collect::<Vec<_>>().join(", ");
                println!("{}{}{}", user.name, if user.admin { "  admin" } else { "" }, if roles.is_empty() { roles } else { format!("  roles: {roles}") });
            }
        }
        User::Remove { name, place } => {
            let (_lock, access) = open(&place.data_dir)?;
            let owned = catalog(&place.data_dir)?.owned_by(&name);
            if !owned.is_empty() {
                bail!("user {name} owns {}: start the server and drop that first, or give it away (ALTER … OWNER TO)", owned.join(", "));
            }
            access.drop_user(&name, false)?;
            println!("user {name} was removed");
            if access.users().is_empty() {
                println!("there are no users left: whoever reaches the server may do everything");
            }
        }
    }
    Ok(())
}

fn open(folder: &Path) -> anyhow::Result<(File, Arc<Access>)> {
    let Some(lock) = lock_folder(folder)? else {
        bail!("a server is running on {}: use CREATE USER, ALTER USER, DROP USER and SHOW USERS there", folder.display());
    };
    Ok((lock, Access::open(folder, AccessConfig::default())?))
}

fn catalog(folder: &Path) -> anyhow::Result<Catalog> {
    Ok(Catalog::open(folder, &sql::parse_definition)?)
}

fn from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    // A password is never so long; whatever comes behind is not read.
    std::io::stdin().take(64 << 10).read_to_string(&mut text).context("can't read the password from standard input")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn ask(name: &str) -> anyhow::Result<String> {
    let mut terminal = console::Term::stderr();
    if !std::io::stdin().is_terminal() || !terminal.is_term() {
        bail!("there is no terminal to ask for a password: give it with --password-stdin");
    }
    let mut once = |what: &str| -> anyhow::Result<String> {
        write!(terminal, "{what}: ")?;
        Ok(terminal.read_secure_line()?)
    };
    let (first, second) = (once(&format!("password for {name}"))?, once("the same again")?);
    if first != second {
        bail!("the two are different: nothing was changed");
    }
    Ok(first)
}
