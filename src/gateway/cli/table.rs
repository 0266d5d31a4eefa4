//! Columns of text, aligned by what a terminal shows.

use super::colour::{Tone, paint};
use super::text::{clean, fit, width};

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    title: &'static str,
    /// Figures are read from the right.
    is_figure: bool,
    /// The fewest columns of the terminal it may be cut down to; `None`: never cut.
    width_min: Option<usize>,
}

impl Column {
    /// Short words, never cut.
    pub(super) const fn word(title: &'static str) -> Self {
        Self { title, is_figure: false, width_min: None }
    }

    /// Text that is cut when the terminal is too narrow.
    pub(super) const fn text(title: &'static str) -> Self {
        Self { title, is_figure: false, width_min: Some(8) }
    }

    /// Figures, aligned to the right.
    pub(super) const fn figure(title: &'static str) -> Self {
        Self { title, is_figure: true, width_min: None }
    }
}

/// One field of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// Clean.
    text: String,
    tone: Tone,
}

impl Cell {
    /// A field that says nothing but its text.
    pub(super) fn plain(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// A field that may have nothing to say, and then says so.
    pub(super) fn optional(text: Option<&str>) -> Self {
        Self::plain(text.filter(|text| !text.is_empty()).unwrap_or("-"))
    }

    /// A status or the state of a breaker.
    pub(super) fn word(word: &str) -> Self {
        Self::toned(word, Tone::of(word))
    }

    /// A field with a tone.
    pub(super) fn toned(text: &str, tone: Tone) -> Self {
        Self { text: clean(text).into_owned(), tone }
    }
}

/// Rows under columns.
#[derive(Debug)]
pub(super) struct Table<'c> {
    columns: &'c [Column],
    rows: Vec<Vec<Cell>>,
}

impl<'c> Table<'c> {
    /// A table of these rows, each with a cell for each column.
    pub(super) const fn new(columns: &'c [Column], rows: Vec<Vec<Cell>>) -> Self {
        Self { columns, rows }
    }

    /// The lines from the headings on (none when all titles are empty); cut to so many columns of the terminal, if given.
    pub(super) fn lines(&self, columns: Option<usize>, is_coloured: bool) -> impl Iterator<Item = String> {
        let widths = self.widths(columns);
        let headings: Vec<Cell> = self.columns.iter().map(|column| Cell::toned(column.title, Tone::Heading)).collect();
        let has_headings = headings.iter().any(|cell| !cell.text.is_empty());
        let first = has_headings.then(|| self.row(&headings, &widths, is_coloured));
        first.into_iter().chain(self.rows.iter().map(move |row| self.row(row, &widths, is_coloured)))
    }

    fn widths(&self, columns: Option<usize>) -> Vec<usize> {
        let widest = |index: usize| self.rows.iter().filter_map(|row| row.get(index)).map(|cell| width(&cell.text)).max();
        let natural = |(index, column): (usize, &Column)| widest(index).unwrap_or(0).max(width(column.title));
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(natural).collect();
        if let Some(columns) = columns {
            let minima: Vec<Option<usize>> =
                self.columns.iter().map(|c| c.width_min.map(|min| min.max(width(c.title)))).collect();
            let gaps = GAP * widths.len().saturating_sub(1);
            shrink(&mut widths, &minima, columns.saturating_sub(gaps));
        }
        widths
    }

    fn row(&self, cells: &[Cell], widths: &[usize], is_coloured: bool) -> String {
        let mut line = String::new();
        // Spaces wait until something follows them.
        let mut spaces = 0;
        for ((column, cell), &width_max) in self.columns.iter().zip(cells).zip(widths) {
            let text = if column.width_min.is_some() { fit(&cell.text, width_max) } else { cell.text.as_str().into() };
            let missing = width_max.saturating_sub(width(&text));
            let (before, after) = if column.is_figure { (missing, 0) } else { (0, missing) };
            spaces += before;
            if !text.is_empty() {
                line.extend(std::iter::repeat_n(' ', spaces));
                spaces = 0;
                paint(&mut line, &text, cell.tone, is_coloured);
            }
            spaces += after + GAP;
        }
        line
    }
}

/// Cuts the widest of those that may be cut, again and again, until they fit or nothing can be cut any more.
fn shrink(widths: &mut [usize], minima: &[Option<usize>], columns: usize) {
    let mut excess = widths.iter().sum::<usize>().saturating_sub(columns);
    while excess > 0 {
        let can_shrink = |&(index, &width): &(usize, &usize)| minima[index].is_some_and(|min| width > min);
        let Some((index, _)) = widths.iter().enumerate().filter(can_shrink).max_by_key(|&(_, width)| width) else { return };
        widths[index] -= 1;
        excess -= 1;
    }
}

/// Spaces between two columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::text("NAME"), Column::figure("SIZE"), Column::word("STATUS")];

    fn lines(rows: &[[&str; 3]], columns: Option<usize>, is_coloured: bool) -> Vec<String> {
        let rows = rows.iter().map(|[a, b, c]| vec![Cell::plain(a), Cell::plain(b), Cell::word(c)]).collect();
        Table::new(&COLUMNS, rows).lines(columns, is_coloured).collect()
    }

    #[test]
    fn columns_are_aligned_by_what_is_seen_and_lines_end_with_text() {
        assert_eq!(
            lines(&[["東京", "5", "open"], ["abcdefg", "1234567", ""], ["e\u{301}", "", "closed"]], None, false),
            ["NAME        SIZE  STATUS", "東京           5  open", "abcdefg  1234567", "e\u{301}                 closed"]
        );
    }

    #[test]
    fn colour_changes_no_column() {
        assert_eq!(lines(&[["a", "1", "open"]], None, true)[1], "a        1  \x1b[31mopen\x1b[0m");
        assert_eq!(lines(&[["a", "1", "open"]], None, true)[0], "\x1b[1mNAME\x1b[0m  \x1b[1mSIZE\x1b[0m  \x1b[1mSTATUS\x1b[0m");
    }

    #[test]
    fn only_text_is_cut_and_only_for_a_terminal() {
        let row = ["a_service_with_a_long_name", "12", "healthy"];
        assert_eq!(lines(&[row], None, false)[1], "a_service_with_a_long_name    12  healthy");
        assert_eq!(lines(&[row], Some(25), false)[1], "a_service…    12  healthy");
        // Narrower than anything that makes sense.
        assert_eq!(lines(&[row], Some(3), false)[1], "a_servi…    12  healthy");
    }

    #[test]
    fn the_widest_gives_way_first() {
        let mut widths = [30, 10, 20];
        shrink(&mut widths, &[Some(8), None, Some(8)], 40);
        assert_eq!(widths, [15, 10, 15]);
    }

    #[test]
    fn strangers_cannot_paint() {
        assert_eq!(lines(&[["\x1b[31m", "1", ""]], None, true)[1], "\\u{1b}[31m     1");
    }

    #[test]
    fn without_titles_there_is_no_heading() {
        let table = [Column::word(""), Column::text("")];
        let rows = vec![vec![Cell::plain("a"), Cell::plain("b")]];
        assert_eq!(Table::new(&table, rows).lines(None, false).collect::<Vec<_>>(), ["a  b"]);
    }
}
