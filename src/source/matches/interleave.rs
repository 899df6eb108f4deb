//! The order in which the events of many matches go out. A pure merge: no clock, no files, no Kafka.
//!
//! A match's own events never change places, also where their times step back: the merge goes by the latest time that
//! a match has reached. Matches are opened only when their turn comes, so a season needs no more memory than the matches
//! in play.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Debug;
use std::iter::Peekable;

use super::event::MatchEvent;

/// A match that can be opened when its turn comes.
pub trait Match: Debug {
    /// What can go wrong with opening it.
    type Error;
    /// Its events in the order they go out.
    type Events: Iterator<Item = MatchEvent> + Debug;

    /// When it kicks off, in milliseconds since 1970. None of its events is earlier.
    fn kick_off_ms(&self) -> i64;

    /// Its events.
    fn open(self) -> Result<Self::Events, Self::Error>;
}

/// How matches share the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By event time, whatever the dates; matches whose times overlap interleave.
    EventTime,
    /// So many matches at once, in step with the time since their kick-offs. The next match takes the place of one that has ended.
    SideBySide(usize),
}

/// Merges matches, which come in the order in which they are to start.
#[derive(Debug)]
pub struct Interleave<M: Iterator<Item: Match>> {
    matches: Peekable<M>,
    order: Order,
    running: BinaryHeap<Reverse<Running<<M::Item as Match>::Events>>>,
    /// How far the merge has come: event time, or time since the first kick-off.
    reached: i64,
    opened: u64,
}

impl<M: Iterator<Item: Match>> Interleave<M> {
    /// A merge of these matches. For [`Order::EventTime`] they must come by kick-off.
    pub fn new(matches: M, order: Order) -> Self {
        Self { matches: matches.peekable(), order, running: BinaryHeap::new(), reached: 0, opened: 0 }
    }

    fn next_may_start(&mut self) -> bool {
        let Some(next) = self.matches.peek() else { return false };
        match (self.order, self.running.peek()) {
            (Order::SideBySide(places), _) => self.running.len() < places.max(1),
            (Order::EventTime, None) => true,
            (Order::EventTime, Some(Reverse(first))) => next.kick_off_ms() <= first.at,
        }
    }
}

impl<M: Iterator<Item: Match>> Iterator for Interleave<M> {
    type Item = Result<MatchEvent, <M::Item as Match>::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next_may_start() {
            let next = self.matches.next()?;
            let kick_off_ms = next.kick_off_ms();
            let shift = match self.order {
                Order::EventTime => 0,
                Order::SideBySide(_) => self.reached - kick_off_ms,
            };
            let mut events = match next.open() {
                Ok(events) => events,
                Err(error) => return Some(Err(error)),
            };
            if let Some(head) = events.next() {
                self.running.push(Reverse(Running { at: head.event_time_ms + shift, opened: self.opened, shift, head, rest: events }));
                self.opened += 1;
            }
        }
        let Reverse(mut first) = self.running.pop()?;
        self.reached = first.at;
        let Some(following) = first.rest.next() else { return Some(Ok(first.head)) };
        let event = std::mem::replace(&mut first.head, following);
        first.at = first.at.max(first.head.event_time_ms + first.shift);
        self.running.push(Reverse(first));
        Some(Ok(event))
    }
}

/// A match in play. Ordered by its place in the merge, then by which started first.
#[derive(Debug)]
struct Running<E> {
    at: i64,
    opened: u64,
    /// From event time to the merge's time.
    shift: i64,
    head: MatchEvent,
    rest: E,
}

impl<E> PartialEq for Running<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Running<E> {}

impl<E> PartialOrd for Running<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Running<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.opened).cmp(&(other.at, other.opened))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[derive(Debug)]
    struct Fixed {
        id: i64,
        kick_off_ms: i64,
        /// Since kick-off.
        times: Vec<i64>,
    }

    impl Match for Fixed {
        type Error = Infallible;
        type Events = std::vec::IntoIter<MatchEvent>;

        fn kick_off_ms(&self) -> i64 {
            self.kick_off_ms
        }

        fn open(self) -> Result<Self::Events, Infallible> {
            let count = self.times.len();
            let event = |(i, t)| MatchEvent { match_id: self.id, event_time_ms: self.kick_off_ms + t, last: i + 1 == count, payload: vec![] };
            Ok(self.times.iter().copied().enumerate().map(event).collect::<Vec<_>>().into_iter())
        }
    }

    /// The merged events as (match, time since its kick-off).
    fn merged(order: Order, matches: &[(i64, i64, &[i64])]) -> Vec<(i64, i64)> {
        let start = |id| matches.iter().find(|m| m.0 == id).unwrap().1;
        let list: Vec<_> = matches.iter().map(|(id, kick_off_ms, times)| Fixed { id: *id, kick_off_ms: *kick_off_ms, times: times.to_vec() }).collect();
        Interleave::new(list.into_iter(), order).map(|e| e.unwrap()).map(|e| (e.match_id, e.event_time_ms - start(e.match_id))).collect()
    }

    #[test]
    fn overlapping_matches_interleave_by_event_time() {
        let got = merged(Order::EventTime, &[(1, 0, &[0, 10, 20]), (2, 5, &[0, 10]), (3, 100, &[0])]);
        assert_eq!(got, [(1, 0), (2, 0), (1, 10), (2, 10), (1, 20), (3, 0)]);
    }

    #[test]
    fn a_step_back_in_time_keeps_its_place_in_the_match() {
        let got = merged(Order::EventTime, &[(1, 0, &[0, 50, 1, 60]), (2, 0, &[0, 40, 55])]);
        assert_eq!(got, [(1, 0), (2, 0), (2, 40), (1, 50), (1, 1), (2, 55), (1, 60)]);
    }

    #[test]
    fn side_by_side_goes_in_step_and_the_next_match_takes_the_place_that_is_free() {
        let got = merged(Order::SideBySide(2), &[(1, 1_000, &[0, 10, 20]), (2, 9_000, &[5, 25, 45]), (3, 70_000, &[0, 10, 30])]);
        // Match 3 starts when match 1 has ended at 20, so its times stand at 20, 30 and 50.
        assert_eq!(got, [(1, 0), (2, 5), (1, 10), (1, 20), (3, 0), (2, 25), (3, 10), (2, 45), (3, 30)]);
    }

    #[test]
    fn one_at_a_time_sends_matches_whole() {
        let got = merged(Order::SideBySide(1), &[(2, 50, &[0, 9]), (1, 0, &[0, 9])]);
        assert_eq!(got, [(2, 0), (2, 9), (1, 0), (1, 9)]);
    }

    #[test]
    fn empty_matches_cost_nothing() {
        assert_eq!(merged(Order::SideBySide(1), &[(1, 0, &[]), (2, 0, &[3])]), [(2, 3)]);
        assert_eq!(merged(Order::EventTime, &[]), []);
    }
}
