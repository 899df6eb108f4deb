//! What the wire needs from the engine: sessions that prepare and execute. The engine is one implementation; tests bring their own.

use std::sync::Arc;

use datafusion::scalar::ScalarValue;

use crate::{
    access::{Access, Caller},
    error::Result,
    session::{Clients, Delivery, Engine, Outcome, Prepared, Session, TableInfo, Upload},
};

/// Makes sessions.
pub trait Backend: Send + Sync + 'static {
    /// Who is let in.
    fn access(&self) -> Arc<Access>;

    /// What clients have taken, counted for whoever shows it.
    fn clients(&self) -> Arc<Clients>;

    /// A new session for one client.
    fn session(self: Arc<Self>, caller: Caller) -> Arc<dyn Frontend>;
}

/// One client's session.
#[async_trait::async_trait]
pub trait Frontend: Send + Sync + 'static {
    /// Parses and plans one statement without any effect.
    async fn prepare(&self, sql: &str) -> Result<Prepared>;

    /// Runs one statement.
    async fn execute(&self, sql: &str, parameters: &[ScalarValue]) -> Result<Outcome>;

    /// Runs one statement that is no query once for each row of parameters; how many rows all touched. Where one fails, those before it have
    /// taken effect unless the statement is an INSERT of VALUES: then all of it is one change.
    async fn execute_many(&self, sql: &str, parameters: &[Vec<ScalarValue>]) -> Result<u64>;

    /// Takes the rows that a client uploads; how many there were.
    async fn ingest(&self, upload: Upload) -> Result<u64>;

    /// How this session's results are to travel.
    fn delivery(&self) -> Delivery;

    /// The tables this session sees.
    async fn tables(&self) -> Result<Vec<TableInfo>>;
}

impl Backend for Engine {
    fn access(&self) -> Arc<Access> {
        Engine::access(self).clone()
    }

    fn clients(&self) -> Arc<Clients> {
        Engine::clients(self).clone()
    }

    fn session(self: Arc<Self>, caller: Caller) -> Arc<dyn Frontend> {
        Arc::new(self.session_of(caller))
    }
}

#[async_trait::async_trait]
impl Frontend for Session {
    async fn prepare(&self, sql: &str) -> Result<Prepared> {
        Session::prepare(self, sql).await
    }

    async fn execute(&self, sql: &str, parameters: &[ScalarValue]) -> Result<Outcome> {
        Session::execute(self, sql, parameters).await
    }

    async fn execute_many(&self, sql: &str, parameters: &[Vec<ScalarValue>]) -> Result<u64> {
        Session::execute_many(self, sql, parameters).await
    }

    async fn ingest(&self, upload: Upload) -> Result<u64> {
        Session::ingest(self, upload).await
    }

    fn delivery(&self) -> Delivery {
        Session::delivery(self)
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        Session::tables(self).await
    }
}
