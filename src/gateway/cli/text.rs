//! Text of strangers, made harmless; and how wide it is.

use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text with everything a terminal would act on, or that would reorder its neighbours, shown as its code point.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_treacherous(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    Cow::Owned(clean)
}

/// Control characters, line separators, and the invisible characters that change the direction or the look of what follows.
pub(super) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Columns that the text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or as much of its start as fits into so many columns together with an ellipsis.
pub(super) fn fit(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used >= columns {
            break;
        }
        kept.push(c);
    }
    if columns > 0 {
        kept.push('…');
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(clean("osint_service"), "osint_service");
        assert_eq!(clean("Zürich 東京"), "Zürich 東京");
        assert_eq!(clean("a\x1b[31mb\r\n\tc"), "a\\u{1b}[31mb\\u{d}\\u{a}\\u{9}c");
        assert_eq!(clean("a\u{9b}0mb\u{202e}c\u{7f}"), "a\\u{9b}0mb\\u{202e}c\\u{7f}");
    }

    #[test]
    fn what_fits_is_counted_in_columns() {
        assert_eq!(fit("東京", 4), "東京");
        assert_eq!(fit("東京都", 5), "東京…");
        assert_eq!(fit("東京都", 4), "東…");
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 3), "ab…");
        assert_eq!(fit("abcdef", 1), "…");
        assert_eq!(fit("abcdef", 0), "");
        for columns in 0..8 {
            assert!(width(&fit("e\u{301}東a京bc", columns)) <= columns, "{columns}");
        }
    }
}
