//! Text in aligned columns.

use std::fmt;
use unicode_width::UnicodeWidthStr;

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells; each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    alignment: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins a table with a row of headings.
    pub(crate) fn with_head<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Self {
            alignment: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Begins a table of names and values.
    pub(crate) fn of_pairs() -> Self {
        Self {
            alignment: vec![Align::Left, Align::Left],
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a name and a value.
    pub(crate) fn pair(&mut self, name: &str, value: impl fmt::Display) {
        self.row([name.to_owned(), value.to_string()]);
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<_> = (0..self.alignment.len()).map(|at| self.width(at)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(&self.alignment).zip(&widths) {
                let space = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    Align::Left => line.extend([cell.as_str(), &space]),
                    Align::Right => line.extend([space.as_str(), cell]),
                }
                line.push_str("  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_on_the_screen() {
        let mut table = Table::with_head([("NAME", Align::Left), ("SIZE", Align::Right)]);
        table.row(["日本".to_owned(), "1 B".to_owned()]);
        table.row(["a".to_owned(), "1.0 KiB".to_owned()]);
        assert_eq!(
            table.to_string(),
            "NAME     SIZE\n日本      1 B\na     1.0 KiB\n"
        );
    }
}
