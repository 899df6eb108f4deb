//! Something for each key, found by a hash of the key: what an operator holds beside its rows for each of a million keys has to be small.

use std::{
    collections::{
        HashMap,
        hash_map::{Entry, RandomState},
    },
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    sync::LazyLock,
};

/// A 128-bit hash that stands for a key or a row. It holds for this process alone: the seed is the process's own, so that nobody can choose
/// keys that meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u64; 2]);

impl KeyHash {
    /// The hash of a key's bytes.
    pub fn of(key: &[u8]) -> Self {
        static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
        let hash = xxhash_rust::xxh3::xxh3_128_with_seed(key, *SEED);
        Self([hash as u64, (hash >> 64) as u64])
    }
}

/// What there is for each key.
#[derive(Debug)]
pub struct KeyMap<V> {
    entries: HashMap<KeyHash, V, BuildHasherDefault<FirstHalf>>,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { entries: HashMap::default() }
    }
}

impl<V> KeyMap<V> {
    /// What there is for a key.
    pub fn get(&self, key: KeyHash) -> Option<&V> {
        self.entries.get(&key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: KeyHash) -> Option<&mut V> {
        self.entries.get_mut(&key)
    }

    /// Puts something there for a key; what was there.
    pub fn insert(&mut self, key: KeyHash, value: V) -> Option<V> {
        self.entries.insert(key, value)
    }

    /// The place for a key, to be filled or changed.
    pub fn entry(&mut self, key: KeyHash) -> Entry<'_, KeyHash, V> {
        self.entries.entry(key)
    }

    /// There is nothing for a key any more.
    pub fn remove(&mut self, key: KeyHash) {
        self.entries.remove(&key);
        // What a burst of keys took is given back some time.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// What there is, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        // A table is filled to seven eighths, and has a byte beside each place.
        self.entries.capacity() * (size_of::<(KeyHash, V)>() + 1) * 8 / 7
    }
}

/// What is a hash already needs none.
#[derive(Debug, Default)]
struct FirstHalf(u64);

impl Hasher for FirstHalf {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, half: u64) {
        if self.0 == 0 {
            self.0 = half;
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn write(&mut self, bytes: &[u8]) {
        let mut half = [0; 8];
        let taken = bytes.len().min(8);
        half[..taken].copy_from_slice(&bytes[..taken]);
        self.write_u64(u64::from_ne_bytes(half));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn is_a_map() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let (mut map, mut model) = (KeyMap::<u32>::default(), HashMap::new());
        for row in 0..200_000 {
            let key = KeyHash::of(&rng.random_range(0..30_000_u32).to_le_bytes());
            if rng.random_bool(0.4) {
                map.remove(key);
                model.remove(&key);
            } else {
                assert_eq!(map.insert(key, row), model.insert(key, row));
            }
            assert_eq!(map.get(key), model.get(&key));
        }
        assert!(model.iter().all(|(key, row)| map.get(*key) == Some(row)));
        let full = map.bytes();
        for key in model.keys() {
            map.remove(*key);
        }
        assert!(map.bytes() < full / 4, "{} of {full} bytes are still held", map.bytes());
    }
}
