//! In front of the service: who may not come in is told so before a word of the call is read, and no message is larger than its kind may be.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::{Buf, Bytes};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::{connection::ConnectionId, sessions::Sessions};
use crate::session::{ClientLimits, Clients};

/// A message of a call that uploads nothing: the longest SQL text fits with room to spare.
const CALL_BYTES: usize = 4 << 20;
/// A message of somebody who is not let in, or not yet.
const STRANGER_BYTES: usize = 64 << 10;
/// A message is so long before it counts among those that are on their way.
const SMALL_BYTES: usize = 64 << 10;
/// A gRPC message begins with a flag and its length.
const PREFIX_BYTES: usize = 5;

/// A service with a guard in front of it.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    sessions: Arc<Sessions>,
    limits: ClientLimits,
    clients: Arc<Clients>,
    arriving: Arc<AtomicUsize>,
}

impl<S> Guarded<S> {
    /// Guards a service.
    pub fn new(inner: S, sessions: Arc<Sessions>, limits: ClientLimits, clients: Arc<Clients>) -> Self {
        Self { inner, sessions, limits, clients, arriving: Arc::default() }
    }

    fn refuse_surplus(&self, request: &http::Request<Body>) -> Result<(), Status> {
        match request.extensions().get::<ConnectionId>() {
            Some(connection) if connection.surplus => Err(Status::resource_exhausted(format!(
                "the server has {} connections, as many as it takes (max_connections): close some, or try again later",
                self.limits.connections
            ))),
            _ => Ok(()),
        }
    }

    /// Lets a call in, or not; what it sends is measured from then on.
    async fn let_in(&self, mut request: http::Request<Body>) -> Result<http::Request<Body>, Status> {
        self.refuse_surplus(&request)?;
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let most = if method == "Handshake" {
            STRANGER_BYTES
        } else {
            let admitted = {
                let connection = request.extensions().get::<ConnectionId>().copied();
                self.sessions.admit(request.headers(), connection.as_ref()).await
            };
            let most = match (&admitted, method.as_str()) {
                (Ok(_), "DoPut" | "DoExchange") => self.limits.message,
                (Ok(_), _) => CALL_BYTES.min(self.limits.message),
                // Some may still end what they have begun: the service tells whether.
                (Err(_), "DoGet" | "DoAction") => STRANGER_BYTES,
                (Err(refused), _) => return Err(refused.clone()),
            };
            request.extensions_mut().insert(admitted);
            most
        };
        let together = self.limits.bound.max(most);
        let (clients, arriving) = (self.clients.clone(), self.arriving.clone());
        Ok(request.map(|body| Body::new(Measured { body, most, together, clients, arriving, prefix: vec![], left: 0, counted: 0 })))
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that said to be ready answers; its copy is asked next time.
        let fresh = Self { inner: self.inner.clone(), ..self.clone() };
        let mut ready = std::mem::replace(self, fresh);
        Box::pin(async move {
            match ready.let_in(request).await {
                Ok(request) => ready.inner.call(request).await,
                Err(status) => {
                    if status.code() == tonic::Code::ResourceExhausted {
                        ready.clients.refuse();
                    }
                    Ok(status.into_http())
                }
            }
        })
    }
}

/// What a call sends, message by message.
struct Measured {
    body: Body,
    /// The longest message.
    most: usize,
    /// The most bytes of all calls' messages that are on their way.
    together: usize,
    clients: Arc<Clients>,
    arriving: Arc<AtomicUsize>,
    /// What is there of the next message's prefix.
    prefix: Vec<u8>,
    /// What is missing of the message.
    left: usize,
    /// What of it counts among `arriving`.
    counted: usize,
}

impl Measured {
    fn forget(&mut self) {
        self.arriving.fetch_sub(std::mem::take(&mut self.counted), Ordering::Relaxed);
    }

    fn refuse(&self, sentence: String) -> Status {
        self.clients.refuse();
        Status::resource_exhausted(sentence)
    }

    fn measure(&mut self, data: &Bytes) -> Result<(), Status> {
        let mut data = &data[..];
        while data.has_remaining() {
            if self.left > 0 {
                let step = self.left.min(data.len());
                self.left -= step;
                data.advance(step);
                if self.left == 0 {
                    self.forget();
                }
                continue;
            }
            let step = (PREFIX_BYTES - self.prefix.len()).min(data.len());
            self.prefix.extend_from_slice(&data[..step]);
            data.advance(step);
            if let [_, length @ ..] = self.prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.prefix.clear();
                self.begin(u32::from_be_bytes(length) as usize)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, length: usize) -> Result<(), Status> {
        if length > self.most {
            return Err(self.refuse(format!(
                "a message has {length} bytes, more than the {} that are taken (max_message_size for uploads, less for other calls): send smaller batches",
                self.most
            )));
        }
        self.left = length;
        if length > SMALL_BYTES {
            // Counted whole from the start: it will be there whole.
            let before = self.arriving.fetch_add(length, Ordering::Relaxed);
            self.counted = length;
            if before.saturating_add(length) > self.together {
                return Err(self.refuse(format!("clients are sending {before} bytes, no more fit into memory at once: try again later")));
            }
        }
        Ok(())
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.forget();
    }
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        let measured = frame.data_ref().cloned().map_or(Ok(()), |data| self.measure(&data));
        Poll::Ready(Some(measured.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn measured(most: usize, together: usize, arriving: &Arc<AtomicUsize>) -> Measured {
        let (clients, arriving) = (Arc::default(), arriving.clone());
        Measured { body: Body::empty(), most, together, clients, arriving, prefix: vec![], left: 0, counted: 0 }
    }

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(PREFIX_BYTES + length as usize, 7);
        bytes
    }

    #[test]
    fn messages_are_measured_however_they_are_cut() {
        let arriving = Arc::default();
        let all = [message(0), message(100_000), message(3), message(70_000)].concat();
        for step in [1, 4, 5, 6, 1000, usize::MAX] {
            let mut body = measured(100_000, 100_000, &arriving);
            for part in all.chunks(step.min(all.len())) {
                body.measure(&Bytes::copy_from_slice(part)).unwrap();
            }
            assert_eq!((body.left, body.prefix.len(), arriving.load(Ordering::Relaxed)), (0, 0, 0));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        let arriving = Arc::default();
        let begins = |body: &mut Measured, length: u32| body.measure(&Bytes::copy_from_slice(&message(length)[..PREFIX_BYTES]));
        let mut body = measured(1000, 1 << 20, &arriving);
        assert!(begins(&mut body, 1001).unwrap_err().message().contains("1001 bytes, more than the 1000"));
        let (mut first, mut second) = (measured(1 << 20, 150_000, &arriving), measured(1 << 20, 150_000, &arriving));
        begins(&mut first, 100_000).unwrap();
        assert!(begins(&mut second, 100_000).unwrap_err().message().contains("try again later"));
        drop((first, second));
        assert_eq!(arriving.load(Ordering::Relaxed), 0);
    }
}
