use rand::{Rng, RngExt, SeedableRng};

use super::*;

/// Byte by byte, as a check on the masks: the tokens, and of what kinds there is any.
fn plainly(payload: &[u8]) -> (Vec<(u8, u32)>, [bool; 4]) {
    let mut tokens = vec![];
    let (mut string, mut escaped, mut word) = (false, false, false);
    let [mut backslash, mut control, mut stray] = [false; 3];
    for (at, &byte) in payload.iter().enumerate() {
        let is_quote = byte == b'"' && !escaped;
        let opens = is_quote && !string;
        let in_word = !string && !is_quote && (byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if opens {
            tokens.push((b'"', at as u32));
        } else if in_word && !word {
            tokens.push((WORD, at as u32));
        } else if !string && !in_word && !b" \t\r\n".contains(&byte) {
            tokens.push((if b"{}[]:,\"".contains(&byte) { byte } else { OTHER }, at as u32));
        }
        let within = string && !is_quote;
        control |= within && byte < 0x20;
        stray |= byte == b'\\' && !within;
        backslash |= byte == b'\\';
        escaped = byte == b'\\' && !escaped;
        string ^= is_quote;
        word = in_word;
    }
    (tokens, [backslash, control, string, stray])
}

#[test]
fn every_variant_lists_what_the_plain_loop_does() {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for round in 0..if cfg!(miri) { 24 } else { 20_000 } {
        let length = random.random_range(0..300);
        // Bytes of any kind, bytes that matter, and characters; exactly so many, so that a sanitizer sees what is read beyond them.
        let payload: Box<[u8]> = match round % 4 {
            0 => (0..length).map(|_| random.next_u32() as u8).collect(),
            1 => (0..length).map(|_| b"\"\\{}[] a\n1,:-?"[random.random_range(0..14)]).collect(),
            2 => (0..length).map(|_| b"\\\\\\\\\\\\\\\"{z"[random.random_range(0..10)]).collect(),
            _ => (0..length)
                .map(|_| ['"', 'a', ' ', '\u{80}', 'é', '\u{7ff}', '\u{800}', '🦤'][random.random_range(0..8 - usize::from(round % 8 < 4) * 2)])
                .collect::<String>()
                .into_bytes()
                .into(),
        };
        let (listed, seen) = plainly(&payload);
        let small = std::str::from_utf8(&payload).is_ok_and(|text| text.chars().all(|character| character.len_utf8() < 3));
        for variant in Variant::available() {
            let name = variant.name;
            let mut tokens = Tokens::default();
            let state = variant.list(&mut tokens, &payload);
            let pairs = tokens.kinds[..tokens.count].iter().copied().zip(tokens.places[..tokens.count].iter().copied());
            assert!(pairs.eq(listed.iter().copied()), "{name}: {payload:?}");
            let flags = [state.backslash != 0, state.control != 0, state.in_string != 0, state.stray != 0];
            assert_eq!(flags, seen, "{name}: {payload:?}");
            assert_eq!(state.foreign == 0 && state.lead == 0, small, "{name}: {payload:?}");
        }
    }
}

#[test]
fn lists_begin_afresh_and_end_plainly() {
    let mut tokens = Tokens::default();
    let large = if cfg!(miri) { 5_000 } else { 5_000_000 };
    for payload in [vec![b'['; large], b"{\"a\" : 1}".to_vec(), vec![b' '; 1000], vec![], b"\"open".to_vec(), b"[]".to_vec()] {
        tokens.list(&payload);
        let (listed, _) = plainly(&payload);
        assert_eq!((tokens.kinds().len(), tokens.places().len()), (listed.len() + AHEAD, listed.len() + 2));
        assert!(tokens.kinds().iter().zip(&listed).all(|(kind, (plain, _))| kind == plain));
        assert!(tokens.kinds()[listed.len()..].iter().all(|&kind| kind == END));
        assert_eq!(tokens.places()[listed.len()..], [payload.len() as u32; 2]);
        assert_eq!(tokens.open_string, payload == b"\"open");
    }
    assert!(tokens.kinds.len() < MOST_KEPT, "what a large payload needed is given back");
}
