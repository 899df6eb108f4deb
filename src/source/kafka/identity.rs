//! Which topic a name means: a topic that is deleted and made anew under the same name has another id, and its offsets mean other
//! records. The Rust client does not ask for it, the C library below does.
//!
//! Safety: every object that is made here is destroyed by [`Owned`] when it goes, in the reverse order, and the client outlives the call;
//! what is borrowed from an event is read before the event goes; all pointers are checked before they are read.

use std::{
    ffi::{CStr, CString, c_int},
    time::Duration,
};

use rdkafka::{
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics,
        rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
        rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_base64str, rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy,
        rd_kafka_event_error, rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t,
    },
    consumer::Consumer,
    types::{RDKafkaAdminOp, RDKafkaRespErr},
};

use super::client::Client;

/// What a broker says that knows no ids.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Something of the C library that is destroyed when it goes.
struct Owned<T> {
    pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Self { pointer, destroy })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null, came from the function that belongs to `destroy`, and nobody else destroys it.
        unsafe { (self.destroy)(self.pointer) }
    }
}

/// A question to the broker that nobody has to wait for. It must go before its client.
pub(super) struct Question {
    queue: Owned<rd_kafka_queue_t>,
}

// SAFETY: the C library's queues may be used from any thread, and a question is only moved, not shared.
unsafe impl Send for Question {}

/// Asks for the id of the topic that has this name now. The broker answers within the time, or not at all.
pub(super) fn ask(client: &Client, topic: &str, within: Duration) -> Option<Question> {
    let name = CString::new(topic).ok()?;
    let native = client.client().native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: see the module's comment; `names` holds as many names as is said, and the collection copies them.
    unsafe {
        let topics = Owned::new(rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()), rd_kafka_TopicCollection_destroy)?;
        let options = Owned::new(rd_kafka_AdminOptions_new(native, RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS), rd_kafka_AdminOptions_destroy)?;
        rd_kafka_AdminOptions_set_request_timeout(options.pointer, millis(within), std::ptr::null_mut(), 0);
        let queue = Owned::new(rd_kafka_queue_new(native), rd_kafka_queue_destroy)?;
        rd_kafka_DescribeTopics(native, topics.pointer, options.pointer, queue.pointer);
        Some(Question { queue })
    }
}

impl Question {
    /// The answer: the topic's id, or that there is none or that the broker does not tell. `None`: nothing has come within the time.
    pub(super) fn answer(&self, within: Duration) -> Option<Option<String>> {
        // SAFETY: see the module's comment.
        unsafe {
            let event = Owned::new(rd_kafka_queue_poll(self.queue.pointer, millis(within)), rd_kafka_event_destroy)?;
            Some(told(event.pointer))
        }
    }
}

/// The same, waited for.
pub(super) fn topic_id(client: &Client, topic: &str, within: Duration) -> Option<String> {
    ask(client, topic, within)?.answer(within).flatten()
}

fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

/// What an event says.
///
/// # Safety
///
/// The event must be one that the C library gave and that has not been destroyed.
unsafe fn told(event: *mut rd_kafka_event_t) -> Option<String> {
    // SAFETY: what is read belongs to the event, and every pointer is checked first.
    unsafe {
        if rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let result = rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let described = rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if described.is_null() || count != 1 || (*described).is_null() {
            return None;
        }
        let error = rd_kafka_TopicDescription_error(*described);
        if !error.is_null() && rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let id = rd_kafka_TopicDescription_topic_id(*described);
        if id.is_null() {
            return None;
        }
        let text = rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return None;
        }
        let text = CStr::from_ptr(text).to_str().ok()?;
        (text != NONE).then(|| text.to_string())
    }
}
