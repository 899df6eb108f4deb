//! What comes next: objects of one kind mostly have their keys in the same order, and below each the same kind of value.
//!
//! A key that comes where it is expected is recognised by one comparison, another that was seen before by a second; so is the whole of a
//! value that has objects or arrays in it, by the kinds of its tokens. A wrong guess costs a look-up and nothing else: what a key leads to and
//! that a value has structure is remembered here, never decided.
//!
//! Each key that is remembered has a bit, so that the keys of an object are a number.

use super::same::WIDEST;

/// Keys of an object, each a bit.
pub(super) type Keys = u128;

/// Keys remembered per object; the keys of an object used as a map would fill memory. With the beginning they are the bits of a number.
const MOST: usize = Keys::BITS as usize - 1;

/// The bit that stands for all keys that have none, in the beginning's place.
pub(super) const STRAY: Keys = 1;

/// A longer key, with its quotes and the colon, is not worth comparing; nor is a value of more tokens.
const LONGEST: usize = WIDEST;

/// How many shapes of its value are remembered for a key.
const SHAPES: usize = 4;

/// In so many classes keys are told apart by a glance.
const HASHES: usize = 512;

/// The keys that objects at one place were seen to have.
#[derive(Debug)]
pub(super) struct Order {
    /// The first stands for the beginning of the object and is no key.
    seen: Vec<Seen>,
    /// The bits of those that lead nowhere.
    nowhere: Keys,
    /// By the lowest bits of [`Order::hash`] one of the keys that have these.
    by_hash: [u8; HASHES],
}

/// A key that was seen.
#[derive(Debug)]
struct Seen {
    /// The key with its quotes and the colon.
    text: Line,
    /// The node it leads to.
    node: Option<u32>,
    /// What came after it lately.
    next: usize,
    /// The kinds of the tokens of its values, if they were objects or arrays, the latest new one first.
    shapes: [Line; SHAPES],
}

/// Up to 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    /// Zeros after the end.
    bytes: [u8; LONGEST],
    length: usize,
}

/// Where in an object a walk is: after this of the keys seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// Before the first key.
pub(super) const BEGINNING: Place = Place(0);

impl Line {
    const EMPTY: Line = Line { bytes: [0; LONGEST], length: 0 };

    /// `None`: it is longer.
    fn new(text: &[u8]) -> Option<Self> {
        let mut line = Self { length: text.len(), ..Self::EMPTY };
        line.bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(line)
    }
}

impl Default for Order {
    fn default() -> Self {
        let beginning = Seen { text: Line::EMPTY, node: None, next: 0, shapes: [Line::EMPTY; SHAPES] };
        Self { seen: vec![beginning], nowhere: 0, by_hash: [0; HASHES] }
    }
}

impl Order {
    /// Which of the keys seen `bytes` begin with, if one of `length` with its quotes and the colon is there; `same` is one of those in
    /// [`super::same`]. `None`: perhaps another one.
    #[inline(always)]
    pub(super) fn guess(&self, place: Place, bytes: &[u8], length: usize, same: &impl Fn(&[u8], &[u8; WIDEST], usize) -> bool) -> Option<Place> {
        let next = self.seen[place.0].next;
        let text = &self.seen[next].text;
        // The beginning is not expected anywhere: it stands for nothing so far.
        if next != 0 && same(bytes, &text.bytes, text.length) {
            return Some(Place(next));
        }
        let at = usize::from(self.by_hash[Self::hash(bytes, length)]);
        let text = &self.seen[at].text;
        (at != 0 && text.length == length && same(bytes, &text.bytes, length)).then_some(Place(at))
    }

    /// After the key at `place` comes that at `next`, and may again.
    #[inline(always)]
    pub(super) fn expect(&mut self, place: Place, next: Place) {
        self.seen[place.0].next = next.0;
    }

    /// A class of keys, by the length and the last eight bytes of one.
    #[inline(always)]
    fn hash(bytes: &[u8], length: usize) -> usize {
        let eight = match bytes.get(..length).and_then(<[u8]>::last_chunk) {
            Some(eight) => u64::from_le_bytes(*eight),
            None => bytes.iter().take(length).fold(0, |eight, &byte| eight << 8 | u64::from(byte)),
        };
        ((eight ^ (length as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize
    }

    /// The node that a key leads to.
    #[inline(always)]
    pub(super) fn node(&self, place: Place) -> Option<usize> {
        self.seen[place.0].node.map(|node| node as usize)
    }

    /// Of how many tokens the value of a key is, if these kinds begin with what it was before.
    #[inline(always)]
    pub(super) fn shape(&self, place: Place, kinds: &[u8], same: &impl Fn(&[u8], &[u8; WIDEST], usize) -> bool) -> Option<usize> {
        let shapes = self.seen[place.0].shapes.iter();
        shapes.take_while(|shape| shape.length > 0).find(|shape| same(kinds, &shape.bytes, shape.length)).map(|shape| shape.length)
    }

    /// Remembers the kinds of the tokens of a key's value, whose structure has been checked.
    #[cold]
    pub(super) fn learn_shape(&mut self, place: Place, kinds: &[u8]) {
        if let Some(shape) = Line::new(kinds) {
            let shapes = &mut self.seen[place.0].shapes;
            shapes.rotate_right(1);
            shapes[0] = shape;
        }
    }

    /// The bit of the key at a place. One that has no place of its own is at that of the key before it.
    #[inline(always)]
    pub(super) fn bit(place: Place) -> Keys {
        1 << place.0
    }

    /// The bits of keys that lead nowhere and have a place of their own.
    #[inline(always)]
    pub(super) fn nowhere(&self) -> Keys {
        self.nowhere
    }

    /// The keys that lead nowhere, each with its bit's number.
    pub(super) fn keys_nowhere(&self) -> impl Iterator<Item = (&[u8], u32)> {
        (0..).zip(&self.seen).filter(|(bit, _)| self.nowhere >> bit & 1 == 1).filter_map(|(bit, seen)| Some((seen.name()?, bit)))
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
        let hash = Self::hash(text, text.len());
        let text = Line::new(text)?;
        let at = match self.seen.iter().position(|seen| seen.text == text) {
            Some(at) => at,
            None if self.seen.len() > MOST => return None,
            None => {
                self.seen.push(Seen { text, node: node.map(|node| node as u32), next: 0, shapes: [Line::EMPTY; SHAPES] });
                let at = self.seen.len() - 1;
                self.nowhere |= Keys::from(node.is_none()) << at;
                at
            }
        };
        self.by_hash[hash] = at as u8;
        self.seen[place.0].next = at;
        Some(Place(at))
    }
}

impl Seen {
    /// What stands between the quotes; the beginning has none.
    fn name(&self) -> Option<&[u8]> {
        self.text.bytes.get(1..self.text.length.checked_sub(2)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::same::plain, *};

    #[test]
    fn expects_what_came_before() {
        let mut order = Order::default();
        let json = br#""id":1,"a key of more than sixteen bytes":2,"z":3"#;
        let guess = |order: &Order, place, json: &[u8]| {
            let length = json.iter().position(|&byte| byte == b':').map_or(0, |colon| colon + 1);
            order.guess(place, json, length, &plain).map(|place| (place.0, order.node(place)))
        };
        assert!(guess(&order, BEGINNING, json).is_none());
        let first = order.learn(BEGINNING, br#""id":"#, Some(5)).unwrap();
        let second = order.learn(first, br#""a key of more than sixteen bytes":"#, None).unwrap();
        assert_eq!(
            (order.bit_of(b"id"), order.name_of(1), order.bit_of(b"i"), order.name_of(0), order.name_of(3)),
            (Some(1), Some(&b"id"[..]), None, None, None)
        );
        assert_eq!(order.name_of(2), Some(&b"a key of more than sixteen bytes"[..]));
        assert_eq!(order.nowhere(), Order::bit(second), "the first leads somewhere");
        assert_eq!(guess(&order, BEGINNING, json), Some((first.0, Some(5))));
        assert_eq!(guess(&order, first, &json[7..]), Some((second.0, None)));
        assert!(guess(&order, second, &json[44..]).is_none());
        assert!(guess(&order, first, br#""a key of more than sixteen bytez":2"#).is_none());
        assert!(guess(&order, BEGINNING, br#""id""#).is_none(), "it ends before the key does");
        // Also where it is not expected a key is known.
        assert_eq!(guess(&order, second, json), Some((first.0, Some(5))));
        assert_eq!(guess(&order, BEGINNING, &json[7..]), Some((second.0, None)));
        assert!(guess(&order, BEGINNING, br#""ix":1"#).is_none());
        assert!(guess(&order, BEGINNING, br#""xd":1"#).is_none());
    }

    #[test]
    fn expects_values_of_the_shapes_that_came_before() {
        let mut order = Order::default();
        let place = order.learn(BEGINNING, br#""id":"#, None).unwrap();
        let shape = |order: &Order, kinds: &[u8]| order.shape(place, kinds, &plain);
        assert_eq!(shape(&order, b"[w],"), None);
        for length in 1..=SHAPES {
            order.learn_shape(place, &[&b"["[..], &b"w".repeat(length), b"]"].concat());
        }
        order.learn_shape(place, &[b'['; LONGEST + 1]);
        for length in 1..=SHAPES {
            assert_eq!(shape(&order, &[&b"["[..], &b"w".repeat(length), b"],"].concat()), Some(length + 2));
        }
        assert_eq!(shape(&order, b"[w"), None);
        order.learn_shape(place, b"{}");
        assert_eq!((shape(&order, b"{}}"), shape(&order, b"[w],"), shape(&order, b"[ww],")), (Some(2), None, Some(4)), "the oldest is forgotten");
    }

    #[test]
    fn remembers_no_more_than_it_may() {
        let mut order = Order::default();
        let mut place = BEGINNING;
        for key in 0..if cfg!(miri) { 200 } else { 10_000 } {
            let learnt = order.learn(place, format!("\"{key}\":").as_bytes(), None);
            assert_eq!(learnt.is_some(), key < MOST);
            place = learnt.unwrap_or(place);
        }
        assert_eq!((order.seen.len(), place.0), (MOST + 1, MOST));
        assert!(Order::default().learn(BEGINNING, &[b'x'; LONGEST + 1], None).is_none());
    }
}
