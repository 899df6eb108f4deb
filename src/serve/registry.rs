//! Things that clients hold by an unguessable id: tickets and prepared statements. Bounded in number and in idle time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Length of an id.
pub(crate) const ID_BYTES: usize = 16;

/// Things by id.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    entries: Mutex<HashMap<Vec<u8>, Entry<T>>>,
    /// The most entries; beyond it those idle longest go.
    capacity: usize,
    /// An entry idle this long goes.
    idle: Duration,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    used: Instant,
}

impl<T> Registry<T> {
    /// An empty registry.
    pub fn new(capacity: usize, idle: Duration) -> Self {
        Self { entries: Mutex::new(HashMap::new()), capacity, idle }
    }

    /// Keeps a value and gives its id: 122 random bits, so that nobody can name what is not theirs.
    pub fn insert(&self, value: Arc<T>) -> Vec<u8> {
        let id = uuid::Uuid::new_v4().into_bytes().to_vec();
        let mut entries = self.entries.lock();
        if entries.len() >= self.capacity {
            make_room(&mut entries, self.capacity, self.idle);
        }
        entries.insert(id.clone(), Entry { value, used: Instant::now() });
        id
    }

    /// The value of an id, now just used, if it is one to be given.
    pub fn get_if(&self, id: &[u8], is_theirs: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(id)?;
        if !is_theirs(&entry.value) {
            return None;
        }
        if entry.used.elapsed() > self.idle {
            entries.remove(id);
            return None;
        }
        entry.used = Instant::now();
        Some(entry.value.clone())
    }

    /// Forgets an id.
    pub fn remove(&self, id: &[u8]) -> Option<Arc<T>> {
        self.entries.lock().remove(id).map(|entry| entry.value)
    }

    /// Forgets what has been idle too long.
    pub fn sweep(&self) {
        let idle = self.idle;
        self.entries.lock().retain(|_, entry| entry.used.elapsed() <= idle);
    }
}

/// Drops what is idle too long, and if that is little, the eighth that is idle longest: so inserting stays cheap at the limit.
fn make_room<T>(entries: &mut HashMap<Vec<u8>, Entry<T>>, capacity: usize, idle: Duration) {
    entries.retain(|_, entry| entry.used.elapsed() <= idle);
    let surplus = (entries.len() + capacity / 8).saturating_sub(capacity - 1);
    if surplus == 0 {
        return;
    }
    let mut ages: Vec<Instant> = entries.values().map(|entry| entry.used).collect();
    ages.sort_unstable();
    let newest_to_go = ages[surplus.min(ages.len()) - 1];
    entries.retain(|_, entry| entry.used > newest_to_go);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let registry = Registry::new(16, Duration::from_secs(60));
        let ids: Vec<_> = (0..100).map(|i| registry.insert(Arc::new(i))).collect();
        assert!(registry.entries.lock().len() <= 16);
        assert_eq!(registry.get_if(&ids[99], |_| true).as_deref(), Some(&99));
        assert_eq!(registry.get_if(&ids[0], |_| true), None);
        assert_eq!(registry.get_if(b"made up", |_| true), None);
        assert_eq!(registry.get_if(&ids[99], |_| false), None);
    }

    #[test]
    fn the_idle_go() {
        let registry = Registry::new(16, Duration::ZERO);
        let id = registry.insert(Arc::new(1));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(registry.get_if(&id, |_| true), None);
        registry.insert(Arc::new(2));
        std::thread::sleep(Duration::from_millis(2));
        registry.sweep();
        assert!(registry.entries.lock().is_empty());
    }
}
