//! Rows that leave so long after they came, by the epochs' clock: what `state_ttl` puts below an operator that holds rows and that nothing
//! else bounds, and `retention` above a view's query. What comes out are changes, so all that is above, followers included, sees them go.
//!
//! * `node`: the logical node and its planning.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `state`: the rows that will leave.

mod codec;
mod exec;
mod node;
mod state;

pub use exec::ExpiryExec;
pub use node::{Expiry, ExpiryPlanner};
