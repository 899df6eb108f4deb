//! Who calls, and what they may do: users, roles and grants, durably; passwords, tokens and the limit on failed logins.
//!
//! * `caller`: whom a call is made for.
//! * `privilege`: what can be granted, and on what.
//! * `store`: the durable users, roles and grants, and what follows from them.
//! * `password`, `token`, `issuer`: the three ways to prove who one is.
//! * `login`: from an `authorization` header to a caller. `throttle` bounds how often that may fail.
//! * `audit`: the log lines of all this.
//!
//! Knows no statement, no view and no wire. As long as there are no users (and no external issuer), whoever reaches the port is let in and
//! owns everything; from the first user on, every call needs credentials.

mod audit;
mod caller;
mod issuer;
mod login;
mod password;
mod privilege;
mod store;
mod throttle;
mod token;

pub use audit::{Outcome, audit};
pub use caller::{Caller, Who};
pub use issuer::{IssuerConfig, KeySource, read_keys};
pub use login::{Admitted, Credentials, Refused};
pub use privilege::{On, Privilege};
pub use store::{Access, AccessConfig, Granted, UserInfo, check_name};
