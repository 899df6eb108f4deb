//! Values as they are quoted in the reasons of bad records.

use std::borrow::Cow;

/// How many bytes of a value a reason quotes.
const QUOTED: usize = 60;

/// A value as it can stand in a sentence: its beginning, without control characters.
pub(super) fn shorten(value: &[u8]) -> Cow<'_, str> {
    let shown = &value[..value.len().min(QUOTED)];
    let text = if shown.len() < value.len() {
        // A character cut in two is left out rather than shown as damage.
        let whole = shown.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        Cow::Owned(format!("{whole}…"))
    } else {
        String::from_utf8_lossy(shown)
    };
    if text.contains(char::is_control) { Cow::Owned(text.replace(char::is_control, " ")) } else { text }
}
