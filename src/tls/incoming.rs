//! Connections as they come in. With TLS each shakes hands on a task of its own: one that is slow holds up nobody else.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::{Tls, Transport};

/// A client that has not shaken hands by then is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So many may shake hands at a time; others wait to be accepted.
const AT_ONCE: usize = 256;
/// After an error of accepting (no more files can be open, say) the next try is made so much later.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener's connections; the port is given back when it goes.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<(Transport, SocketAddr)>,
    local: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Incoming {
    /// Accepts from now on, over TLS if there is any, for a protocol (`h2`, `http/1.1`).
    pub fn new(listener: TcpListener, tls: Option<Arc<Tls>>, protocol: &'static [u8]) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let (output, ready) = mpsc::channel(16);
        let accepting = tokio::spawn(accept(listener, tls, protocol, output));
        Ok(Self { ready, local, accepting })
    }

    /// The next connection, and where it comes from.
    pub async fn next(&mut self) -> Option<(Transport, SocketAddr)> {
        self.ready.recv().await
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Transport;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Transport, SocketAddr) {
        match self.next().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, protocol: &'static [u8], output: mpsc::Sender<(Transport, SocketAddr)>) {
    let shaking = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = shaking.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for a full segment. A failure only costs latency.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &tls else {
            if output.send((Transport::Plain(stream), peer)).await.is_err() {
                return;
            }
            continue;
        };
        let (acceptor, output) = (tls.acceptor(protocol), output.clone());
        tokio::spawn(async move {
            let shaken = shake(acceptor, stream).await;
            drop(permit);
            match shaken {
                // If nobody takes it, the server has stopped.
                Ok(transport) => _ = output.send((transport, peer)).await,
                Err(error) => tracing::debug!(%peer, "no TLS with a client: {error}"),
            }
        });
    }
}

async fn shake(acceptor: tokio_rustls::TlsAcceptor, stream: TcpStream) -> io::Result<Transport> {
    let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    Ok(Transport::Tls(Box::new(shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)))
}
