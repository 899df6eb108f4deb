//! JSON text cut at its first level without being rebuilt, so that a replayed event keeps its fields' order and its
//! numbers' digits. Works on text that serde_json has found valid; knows nothing of events.

/// The elements of an array, or the values of an object with their names, as they stand in the text.
#[derive(Debug)]
pub struct Parts<'a> {
    text: &'a [u8],
    at: usize,
}

/// One element or member.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The member's name between its quotes; empty for an array's element.
    pub name: &'a [u8],
    /// The value's text.
    pub value: &'a [u8],
}

impl<'a> Parts<'a> {
    /// The parts of this array; `None` if the text is no array.
    pub fn of_array(text: &'a [u8]) -> Option<Self> {
        Self::inside(text, b'[')
    }

    /// The parts of this object; `None` if the text is no object.
    pub fn of_object(text: &'a [u8]) -> Option<Self> {
        Self::inside(text, b'{')
    }

    fn inside(text: &'a [u8], bracket: u8) -> Option<Self> {
        let text = text.trim_ascii();
        (text.first() == Some(&bracket)).then(|| Self { text: &text[1..text.len() - 1], at: 0 })
    }

    /// Moves past the value that starts here.
    fn value(&mut self) -> &'a [u8] {
        let start = self.at;
        let mut depth = 0usize;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => self.at = string_end(self.text, self.at) - 1,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' | b':' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        self.text[start..self.at].trim_ascii()
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        if self.at >= self.text.len() {
            return None;
        }
        let first = self.value();
        if first.is_empty() {
            return None;
        }
        let part = if self.text.get(self.at) == Some(&b':') {
            self.at += 1;
            Part { name: &first[1..first.len() - 1], value: self.value() }
        } else {
            Part { name: &[], value: first }
        };
        self.at += 1;
        Some(part)
    }
}

/// Where the string that starts here ends: one past its closing quote.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Copies JSON text without the white space between its tokens: the files that people download are indented.
pub fn write_compact(out: &mut Vec<u8>, text: &[u8]) {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let end = string_end(text, at);
                out.extend_from_slice(&text[at..end]);
                at = end;
            }
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            _ => {
                let end = text[at..].iter().position(|b| matches!(b, b'"' | b' ' | b'\t' | b'\n' | b'\r')).map_or(text.len(), |n| at + n);
                out.extend_from_slice(&text[at..end]);
                at = end;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(parts: Parts<'_>) -> Vec<(&str, &str)> {
        parts.map(|p| (std::str::from_utf8(p.name).unwrap(), std::str::from_utf8(p.value).unwrap())).collect()
    }

    #[test]
    fn cuts_only_at_the_first_level() {
        let array = br#" [ {"a":[1,2],"b":"],}"} , 3 ,"x\"," ] "#;
        assert_eq!(texts(Parts::of_array(array).unwrap()), [("", r#"{"a":[1,2],"b":"],}"}"#), ("", "3"), ("", r#""x\",""#)]);
        let object = br#"{"a" : 1.50, "b:" : {"c":"d"}, "e":[]}"#;
        assert_eq!(texts(Parts::of_object(object).unwrap()), [("a", "1.50"), ("b:", r#"{"c":"d"}"#), ("e", "[]")]);
        assert_eq!(texts(Parts::of_array(b"[ ]").unwrap()), []);
        assert!(Parts::of_array(b"{}").is_none());
    }

    #[test]
    fn drops_white_space_outside_strings_only() {
        let mut out = vec![];
        write_compact(&mut out, b"{\n  \"a b\\\" \" : [ 1.0 ,\t-2e5 ],\r\n \"c\": \"\\\\\" }");
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a b\" ":[1.0,-2e5],"c":"\\"}"#);
    }
}
