//! How often a login may fail: by user and by address, each within a minute.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The time over which failures are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// So many failures a user may have in it.
const PER_USER: u32 = 10;
/// And an address, behind which there may be several people.
const PER_ADDRESS: u32 = 30;
/// A user's name has at most so many bytes.
const LONGEST_NAME: usize = 128;
/// More names than this are not remembered: those whose minute is over go first, then all.
const MOST: usize = 10_000;

/// Counts failed logins.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    users: Mutex<Counts<String>>,
    addresses: Mutex<Counts<IpAddr>>,
}

impl Throttle {
    /// Whether another try may be made. Few are made at a time, so that counting those that have failed is enough.
    pub fn allows(&self, user: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let address_free = address.is_none_or(|address| self.addresses.lock().count(&network(address), now) < PER_ADDRESS);
        address_free && self.users.lock().count(known_as(user), now) < PER_USER
    }

    /// A try has failed.
    pub fn failed(&self, user: &str, address: Option<IpAddr>, now: Instant) {
        self.users.lock().add(known_as(user).to_owned(), now);
        if let Some(address) = address {
            self.addresses.lock().add(network(address), now);
        }
    }
}

/// What one client may have many of counts as one address: a network of 64 bits is what a provider gives a household.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => IpAddr::V6((u128::from(long) >> 64 << 64).into()),
    }
}

/// Names that nobody can have are one, so that long ones take no room.
fn known_as(user: &str) -> &str {
    if user.len() <= LONGEST_NAME { user } else { "" }
}

#[derive(Debug)]
struct Counts<K>(HashMap<K, (Instant, u32)>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Counts<K> {
    fn count<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Instant) -> u32
    where
        K: Borrow<Q>,
    {
        self.0.get(key).filter(|(began, _)| now.duration_since(*began) < WINDOW).map_or(0, |(_, count)| *count)
    }

    fn add(&mut self, key: K, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.retain(|_, (began, _)| now.duration_since(*began) < WINDOW);
            if self.0.len() >= MOST {
                self.0.clear();
            }
        }
        let (began, count) = self.0.entry(key).or_insert((now, 0));
        if now.duration_since(*began) >= WINDOW {
            (*began, *count) = (now, 0);
        }
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_limited_and_forgotten() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..PER_USER {
            assert!(throttle.allows("bob", None, now));
            throttle.failed("bob", None, now);
        }
        assert!(!throttle.allows("bob", None, now));
        assert!(throttle.allows("alice", None, now), "others may");
        assert!(throttle.allows("bob", None, now + WINDOW));
        throttle.failed("bob", None, now + WINDOW);
        assert!(throttle.allows("bob", None, now + WINDOW));
    }

    #[test]
    fn an_address_is_limited_whatever_names_it_tries() {
        let (throttle, now, address) = (Throttle::default(), Instant::now(), Some(IpAddr::from([10, 0, 0, 1])));
        for n in 0..PER_ADDRESS {
            assert!(throttle.allows(&format!("u{n}"), address, now));
            throttle.failed(&format!("u{n}"), address, now);
        }
        assert!(!throttle.allows("another", address, now));
        assert!(throttle.allows("another", Some(IpAddr::from([10, 0, 0, 2])), now));
        let of = |network: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]);
        assert_eq!(network(of(1, 1)), network(of(1, 2)));
        assert_ne!(network(of(1, 1)), network(of(2, 1)));
    }

    #[test]
    fn memory_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..3 * MOST {
            throttle.failed(&n.to_string(), None, now);
        }
        assert!(throttle.users.lock().0.len() <= MOST);
        throttle.failed(&"x".repeat(1000), None, now);
        assert_eq!(throttle.users.lock().count("", now), 1);
    }
}
