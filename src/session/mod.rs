//! One client's session: a statement in, a result out.
//!
//! * `engine`: what all sessions share: the catalog and the running pipelines.
//! * `authorise`: who may do what with what has been declared. `users`: the statements that say so.
//! * `names`: how a statement's table names are resolved, all of one statement to the same epoch.
//! * `result_schema`: what columns a query gives. `topic`, `snapshot`: a topic and a view as tables of an ordinary query.
//! * `subscribe`: results that never end.
//! * `sinks`: what writes a view's changes elsewhere.
//! * `limits`, `compute`: what a query may take, and the threads that it runs on. `clients`: what clients may take beside queries.
//! * `bounded`: functions whose results could be larger than any memory.
//! * `settings`: what `SET tidegate.…` changes; `engine_options`: what `SET datafusion.…` does.
//! * `show`, `explain`, `queries`, `files`: the smaller statements.
//! * `tables`: statements that make tables and change their rows.
//! * `system`: what the server is doing, as tables and in numbers.

mod authorise;
mod bounded;
mod catch_up;
mod clients;
mod compute;
mod connections;
mod current_user;
mod draft;
mod engine;
mod engine_options;
mod explain;
mod files;
mod limits;
mod memory;
mod names;
mod newest;
mod queries;
mod replace;
mod result_schema;
mod seek;
mod settings;
mod show;
mod sinks;
mod snapshot;
mod statement;
mod subscribe;
mod system;
mod tables;
mod topic;
mod users;

pub use clients::{ClientLimits, Clients};
pub use engine::{Engine, EngineConfig, lock_folder};
pub use limits::StatementLimits;
pub use settings::{Compression, Delivery};
pub use statement::{Outcome, Prepared, Session, TableInfo};
pub use system::{Overview, PartitionOverview, PipelineOverview, Setting, SourceOverview, ViewOverview};
pub use tables::{There, Upload};

pub use crate::stream::{
    drift::DriftTotals,
    figures::{BUCKETS, Histogram, PHASES, Totals},
};
