//! What the wire needs from the engine: sessions that prepare and execute. The engine is one implementation; tests bring their own.

use std::sync::Arc;

use datafusion::scalar::ScalarValue;

use crate::{
    access::{Access, Caller},
    error::Result,
    session::{Engine, Outcome, Prepared, Session, TableInfo},
};

/// Makes sessions.
pub trait Backend: Send + Sync + 'static {
    /// Who is let in.
    fn access(&self) -> Arc<Access>;

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

    /// The tables this session sees.
    async fn tables(&self) -> Result<Vec<TableInfo>>;
}

impl Backend for Engine {
    fn access(&self) -> Arc<Access> {
        Engine::access(self).clone()
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

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        Session::tables(self).await
    }
}
