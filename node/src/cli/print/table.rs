//! Columns that line up. Everything that is put in is made harmless here, so that no caller can
//! forget it: a cell of one line shows line feeds as `^J`; only the last cell of a row may have lines
//! of its own, and they stay in its column, so that no text can look like another row.

use crate::cli::safe;

/// Spaces between columns.
const GAP: usize = 2;
/// A cell that is wider pushes the rest of its row aside instead of widening its column.
const MAX_COLUMN: usize = 40;

/// Rows of cells.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    cells: Vec<String>,
    text: String,
}

impl Table {
    /// Adds a row of one-line cells.
    pub(super) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.row_with_text(cells, "");
    }

    /// Adds a row of one-line cells and a text that may have several lines.
    pub(super) fn row_with_text<const N: usize>(&mut self, cells: [&str; N], text: &str) {
        let cells = cells.into_iter().map(safe::line).collect();
        self.rows.push(Row { cells, text: safe::block(text) });
    }

    /// The rows, one below the other, without a final line feed.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|column| self.width_of(column)).collect();
        let rows: Vec<String> = self.rows.iter().map(|row| row.render(&widths)).collect();
        rows.join("\n")
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
        cells.map(|cell| width(cell)).filter(|width| *width <= MAX_COLUMN).max().unwrap_or(0)
    }
}

impl Row {
    fn render(&self, widths: &[usize]) -> String {
        let mut line = String::new();
        let mut indent = 0_usize;
        for (cell, column) in self.cells.iter().zip(widths) {
            line.push_str(cell);
            let filled = if *column == 0 { 0 } else { column.saturating_add(GAP) };
            let taken = width(cell);
            let gap = if taken == 0 { 0 } else { GAP };
            let padding = filled.saturating_sub(taken).max(gap);
            line.push_str(&" ".repeat(padding));
            indent = indent.saturating_add(filled);
        }
        let continued = format!("\n{}", " ".repeat(indent));
        line.push_str(&self.text.trim_end_matches('\n').replace('\n', &continued));
        let lines: Vec<&str> = line.split('\n').map(|line| line.trim_end_matches(' ')).collect();
        lines.join("\n")
    }
}

/// Columns that a text takes on a terminal: the usual approximation, without a table of its own.
fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

const fn columns_of(c: char) -> usize {
    match c {
        // Combining marks, joiners, variation selectors.
        '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200F}' | '\u{FE00}'..='\u{FE0F}' => 0,
        // East Asian wide and fullwidth forms, and emoji.
        '\u{1100}'..='\u{115F}'
        | '\u{2E80}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FE30}'..='\u{FE6F}'
        | '\u{FF00}'..='\u{FF60}'
        | '\u{FFE0}'..='\u{FFE6}'
        | '\u{1F300}'..='\u{1F64F}'
        | '\u{1F680}'..='\u{1F6FF}'
        | '\u{1F900}'..='\u{1F9FF}'
        | '\u{20000}'..='\u{3FFFD}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row(["ann", "online", "x"]);
        table.row(["\u{4E2D}\u{6587}", "", "y"]);
        table.row_with_text(["e\u{301}", "off"], "one\ntwo");
        let rows: Vec<String> = table.render().lines().map(str::to_owned).collect();
        assert_eq!(rows[0], "ann   online  x");
        assert_eq!(rows[1], "\u{4E2D}\u{6587}          y");
        assert_eq!(rows[2], "e\u{301}     off     one");
        assert_eq!(rows[3], "              two");
    }

    #[test]
    fn a_wide_cell_does_not_push_the_others() {
        let mut table = Table::default();
        table.row([&"w".repeat(60), "x"]);
        table.row(["ann", "x"]);
        assert_eq!(table.render(), format!("{}  x\nann  x", "w".repeat(60)));
    }

    #[test]
    fn c08_no_text_fakes_a_row() {
        let mut table = Table::default();
        table.row_with_text(["ann"], "hi\nbob  you owe me\r\u{1B}[2J");
        table.row(["a\nb", "c"]);
        assert_eq!(table.render(), "ann   hi\n      bob  you owe me^M^[[2J\na^Jb  c");
    }
}
