//! Which key comes next: objects of one kind mostly have their keys in the same order.
//!
//! A key that comes where it is expected is recognised by comparing 16 bytes, and where its value begins is known without
//! looking for the end of the key first. A wrong guess costs a look-up and nothing else: what a key leads to is
//! remembered here, never decided.
//!
//! Each key that is remembered has a bit, so that the keys of an object are a number.

/// Keys remembered per object; the keys of an object used as a map would fill memory. With the beginning they are the bits of a number.
const MOST: usize = 63;

/// The bit that stands for all keys that have none, in the beginning's place.
pub(super) const STRAY: u64 = 1;

/// A longer key is not worth comparing.
const LONGEST: usize = 64;

/// The keys that objects at one place were seen to have.
#[derive(Debug)]
pub(super) struct Order {
    /// The first stands for the beginning of the object and is no key.
    seen: Vec<Seen>,
    /// The bits of those that lead nowhere.
    nowhere: u64,
    /// The bits of keys that were passed over.
    passed: u64,
}

/// A key that was seen.
#[derive(Debug)]
struct Seen {
    /// The first 16 bytes of `text`, zeros after its end.
    word: u128,
    /// Which bytes of `word` count.
    mask: u128,
    /// The key with its quotes and the colon.
    text: Vec<u8>,
    /// The node it leads to.
    node: Option<usize>,
    /// What came after it lately, and before that.
    next: [usize; 2],
}

/// Where in an object a walk is: after this of the keys seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// Before the first key.
pub(super) const BEGINNING: Place = Place(0);

/// A key that came as expected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    /// After that key.
    pub(super) place: Place,
    /// The node it leads to.
    pub(super) node: Option<usize>,
    /// Just after its colon.
    pub(super) end: usize,
}

impl Default for Order {
    fn default() -> Self {
        // A word that no masked text equals.
        let beginning = Seen { word: 1, mask: 0, text: Vec::new(), node: None, next: [0; 2] };
        Self { seen: vec![beginning], nowhere: 0, passed: 0 }
    }
}

impl Order {
    /// Whether a key that is expected after `place` begins at `pos`.
    #[inline(always)]
    pub(super) fn guess(&self, place: Place, bytes: &[u8], pos: usize) -> Option<Guess> {
        let sixteen = bytes.get(pos..)?.first_chunk()?;
        let word = u128::from_le_bytes(*sixteen);
        for next in self.seen[place.0].next {
            let seen = &self.seen[next];
            if word & seen.mask == seen.word && (seen.text.len() <= 16 || bytes[pos + 16..].starts_with(&seen.text[16..])) {
                return Some(Guess { place: Place(next), node: seen.node, end: pos + seen.text.len() });
            }
        }
        None
    }

    /// An object begins.
    pub(super) fn begin(&mut self) {
        self.passed = 0;
    }

    /// Its key at this place is passed over. One that has no place of its own is at that of the key before it.
    #[inline(always)]
    pub(super) fn pass(&mut self, place: Place) {
        self.passed |= 1 << place.0;
    }

    /// The object's keys that lead nowhere and have a place of their own, each a bit.
    #[inline(always)]
    pub(super) fn passed(&self) -> u64 {
        self.passed & self.nowhere
    }

    /// The bit's number of a key, by its name.
    pub(super) fn bit_of(&self, name: &[u8]) -> Option<u32> {
        (0..).zip(&self.seen).find(|(_, seen)| seen.name() == Some(name)).map(|(bit, _)| bit)
    }

    /// The name of the key that has a bit.
    pub(super) fn name_of(&self, bit: u32) -> Option<&[u8]> {
        self.seen.get(bit as usize)?.name()
    }

    /// Remembers that `text`, a key with quotes and colon and without escapes, came after `place` and leads to `node`; `None`: it can't be
    /// remembered.
    pub(super) fn learn(&mut self, place: Place, text: &[u8], node: Option<usize>) -> Option<Place> {
        let mut first = [0; 16];
        let length = text.len().min(16);
        first[..length].copy_from_slice(&text[..length]);
        let word = u128::from_le_bytes(first);
        let known = self.seen.iter().position(|seen| seen.word == word && seen.text == text);
        let at = match known {
            Some(at) => at,
            None if self.seen.len() > MOST || text.len() > LONGEST => return None,
            None => {
                let mask = u128::MAX >> (128 - 8 * length);
                self.seen.push(Seen { word, mask, text: text.to_vec(), node, next: [0; 2] });
                let at = self.seen.len() - 1;
                self.nowhere |= u64::from(node.is_none()) << at;
                at
            }
        };
        let next = &mut self.seen[place.0].next;
        if next[0] != at {
            *next = [at, next[0]];
        }
        Some(Place(at))
    }
}

impl Seen {
    /// What stands between the quotes; the beginning has none.
    fn name(&self) -> Option<&[u8]> {
        self.text.get(1..self.text.len().checked_sub(2)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expects_what_came_before() {
        let mut order = Order::default();
        let json = br#""id":1,"a key of more than sixteen bytes":2,"z":3                 "#;
        assert!(order.guess(BEGINNING, json, 0).is_none());
        let first = order.learn(BEGINNING, br#""id":"#, Some(5)).unwrap();
        let second = order.learn(first, br#""a key of more than sixteen bytes":"#, None).unwrap();
        assert_eq!(
            (order.bit_of(b"id"), order.name_of(1), order.bit_of(b"i"), order.name_of(0), order.name_of(3)),
            (Some(1), Some(&b"id"[..]), None, None, None)
        );
        assert_eq!(order.name_of(2), Some(&b"a key of more than sixteen bytes"[..]));
        for place in [first, second, BEGINNING] {
            order.pass(place);
        }
        assert_eq!(order.passed(), 1 << second.0, "the first leads somewhere");
        order.begin();
        assert_eq!(order.passed(), 0);
        let guess = order.guess(BEGINNING, json, 0).unwrap();
        assert_eq!((guess.node, guess.end, guess.place.0), (Some(5), 5, first.0));
        let guess = order.guess(first, json, 7).unwrap();
        assert_eq!((guess.node, guess.end, guess.place.0), (None, 42, second.0));
        assert!(order.guess(second, json, 44).is_none());
        assert!(order.guess(first, br#""a key of more than sixteen bytez":2"#, 0).is_none());
        assert!(order.guess(BEGINNING, br#""id":1"#, 0).is_none(), "too near the end to compare");
        // Both of two that alternate are expected, a third is not.
        order.learn(first, br#""x":"#, None);
        assert!(order.guess(first, br#""x":             "#, 0).is_some());
        assert!(order.guess(first, json, 7).is_some());
        order.learn(first, br#""y":"#, None);
        assert!(order.guess(first, json, 7).is_none());
    }

    #[test]
    fn remembers_no_more_than_it_may() {
        let mut order = Order::default();
        let mut place = BEGINNING;
        for key in 0..10_000 {
            let learnt = order.learn(place, format!("\"{key}\":").as_bytes(), None);
            assert_eq!(learnt.is_some(), key < MOST);
            place = learnt.unwrap_or(place);
        }
        assert_eq!((order.seen.len(), place.0), (MOST + 1, 63));
        assert!(Order::default().learn(BEGINNING, &[b'x'; LONGEST + 1], None).is_none());
    }
}
