//! What a consumer is sent, many messages at a time.
//!
//! The partitions' queues are forwarded to one of their own, which is emptied in one go, so that all else that a reader does is done once for many messages; what
//! else a consumer has to say (errors of brokers, tokens that run out, lines for the log) stays where [`Client::poll`] hears it. Payloads, keys and headers are
//! read where librdkafka holds them: whoever wants to keep them copies them, once.

use std::{ffi::CString, marker::PhantomData, ptr::NonNull, time::Duration};

use rdkafka::{bindings as native, consumer::Consumer, error::RDKafkaErrorCode, types::RDKafkaRespErr};

use super::client::Client;
use crate::{
    error::{Error, Result},
    source::Header,
};

/// So many messages are taken at once. They stay in memory until all of them have been looked at.
const TOGETHER: usize = 8192;

/// The messages of a consumer's partitions. Let go of it before its consumer.
#[derive(Debug)]
pub(super) struct Messages {
    queue: NonNull<native::rd_kafka_queue_t>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Messages {}

impl Messages {
    /// Those of no partition yet.
    pub(super) fn of(client: &Client) -> Result<Self> {
        // SAFETY: the client's handle is valid as long as the client.
        let queue = unsafe { native::rd_kafka_queue_new(client.client().native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| Error::Internal("librdkafka gave no queue for messages".into()))?;
        Ok(Self { queue })
    }

    /// What is fetched of these partitions from now on comes here. Before they are assigned, or what comes first goes elsewhere.
    pub(super) fn take_over(&self, client: &Client, topic: &str, partitions: impl IntoIterator<Item = i32>) -> Result<()> {
        let name = CString::new(topic).map_err(|_| Error::Invalid(format!("topic {topic:?} has a zero byte in its name")))?;
        for partition in partitions {
            // SAFETY: the handle is valid as long as the client, the name is a C string that outlives the call.
            let fetched = unsafe { native::rd_kafka_queue_get_partition(client.client().native_ptr(), name.as_ptr(), partition) };
            let fetched =
                NonNull::new(fetched).ok_or_else(|| Error::Internal(format!("librdkafka has no queue for partition {partition} of topic {topic}")))?;
            // SAFETY: both are queues of this client; the reference to the partition's is given back and not used any more.
            unsafe {
                native::rd_kafka_queue_forward(fetched.as_ptr(), self.queue.as_ptr());
                native::rd_kafka_queue_destroy(fetched.as_ptr());
            }
        }
        Ok(())
    }

    /// What has come, in the order in which it came; waits so long if nothing has.
    pub(super) fn next(&self, wait: Duration) -> Batch {
        let mut batch = Batch { events: vec![], came: vec![] };
        let mut millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        while batch.came.len() < TOGETHER {
            // Not librdkafka's call for many messages at once: to that the end of a partition counts as a message, and one that is paused there goes on behind the next.
            // SAFETY: the queue is valid; an event is ours until it is destroyed.
            let Some(event) = NonNull::new(unsafe { native::rd_kafka_queue_poll(self.queue.as_ptr(), millis) }) else { break };
            batch.add(Event(event));
            millis = 0;
        }
        batch
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { native::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Something that a queue has given: it holds a message.
#[derive(Debug)]
struct Event(NonNull<native::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it was given to us once.
        unsafe { native::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// Messages that were taken together.
#[derive(Debug)]
pub(super) struct Batch {
    /// What holds the messages.
    events: Vec<Event>,
    came: Vec<Came>,
}

#[derive(Debug)]
enum Came {
    Message(NonNull<native::rd_kafka_message_t>),
    Trouble(Trouble),
}

impl Batch {
    /// Whether nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    /// What has come: messages, and what was wrong.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Message<'_>, Trouble>> {
        self.came.iter().map(|came| match came {
            // SAFETY: it is valid as long as its event, which the batch has.
            Came::Message(message) => Ok(Message { message: unsafe { message.as_ref() }, batch: PhantomData }),
            Came::Trouble(trouble) => Err(*trouble),
        })
    }

    fn add(&mut self, event: Event) {
        let at = event.0.as_ptr();
        // SAFETY: the event is valid, and it is asked only for what its type has.
        unsafe {
            match native::rd_kafka_event_type(at) {
                native::RD_KAFKA_EVENT_FETCH => {
                    // Each event has one.
                    if let Some(message) = NonNull::new(native::rd_kafka_event_message_next(at).cast_mut()) {
                        self.came.push(Came::Message(message));
                        self.events.push(event);
                    }
                }
                native::RD_KAFKA_EVENT_ERROR => match native::rd_kafka_event_error(at) {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                        if let Some(place) = NonNull::new(native::rd_kafka_event_topic_partition(at)) {
                            self.came.push(Came::Trouble(Trouble::End(place.as_ref().partition)));
                            native::rd_kafka_topic_partition_destroy(place.as_ptr());
                        }
                    }
                    code => self.came.push(Came::Trouble(Trouble::Code(code.into()))),
                },
                // Nothing else comes from partitions.
                _ => {}
            }
        }
    }
}

/// What comes in a message's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A partition has been read to its end.
    End(i32),
    /// Something can't be read.
    Code(RDKafkaErrorCode),
}

/// A message of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    message: &'a native::rd_kafka_message_t,
    batch: PhantomData<&'a Batch>,
}

impl<'a> Message<'a> {
    /// Its partition.
    pub(super) fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Its offset.
    pub(super) fn offset(&self) -> i64 {
        self.message.offset
    }

    /// Its key.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka says where it lies, and that is valid as long as the batch.
        unsafe { bytes(self.message.key.cast(), self.message.key_len) }
    }

    /// Its payload.
    pub(super) fn payload(&self) -> Option<&'a [u8]> {
        // SAFETY: as that of the key.
        unsafe { bytes(self.message.payload.cast(), self.message.len) }
    }

    /// Its time in milliseconds since 1970, if it has one.
    pub(super) fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and so is the place for the kind.
        let millis = unsafe { native::rd_kafka_message_timestamp(self.message, &mut kind) };
        (kind != native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis != -1).then_some(millis)
    }

    /// Its headers.
    pub(super) fn headers(&self) -> Vec<Header> {
        let (mut found, mut headers) = (std::ptr::null_mut(), vec![]);
        // SAFETY: the message is valid, and the headers are its own as long as it is.
        let code = unsafe { native::rd_kafka_message_headers(self.message, &mut found) };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || found.is_null() {
            return headers;
        }
        for at in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the out-pointers are valid; where there is such a header, its name is a C string and its value has so many bytes.
            let header = unsafe {
                match native::rd_kafka_header_get_all(found, at, &mut name, &mut value, &mut size) {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        let key = std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
                        Header { key, value: bytes(value.cast(), size).map(<[u8]>::to_vec) }
                    }
                    _ => break,
                }
            };
            headers.push(header);
        }
        headers
    }
}

/// Bytes at a place; nowhere are none.
///
/// # Safety
///
/// Unless `at` is null, so many bytes must be valid there for the lifetime.
unsafe fn bytes<'a>(at: *const u8, length: usize) -> Option<&'a [u8]> {
    // SAFETY: what the caller promises.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at, length) })
}
