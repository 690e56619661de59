//! A picture of a disk's blocks: what changed, what stayed, what is zero.

use std::env;
use std::io::{self, IsTerminal};
use std::ops::Range;
use tegula_engine::{Diff, ExtentKind};

/// Cells in a line.
const COLUMNS: usize = 64;

/// Lines of text.
const LINES: usize = 16;

/// What a part of the disk holds. Of several the greatest is shown: no change is too small to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Zero,
    Same,
    Zeroed,
    Changed,
}

const KINDS: [(Cell, &str); 4] = [
    (Cell::Changed, "changed"),
    (Cell::Zeroed, "now zero"),
    (Cell::Same, "as before"),
    (Cell::Zero, "zero"),
];

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Two cells in a character, in colours.
    Colour,
    /// One cell a character.
    Unicode,
    /// One cell a character.
    Ascii,
}

impl Look {
    /// Tells what standard output can show: colours on a terminal only, and not if `NO_COLOR` says so.
    pub(crate) fn of_output() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL")
            .or_else(|| set("LC_CTYPE"))
            .or_else(|| set("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        if !locale.contains("utf-8") && !locale.contains("utf8") {
            return Self::Ascii;
        }
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        match io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb {
            true => Self::Colour,
            false => Self::Unicode,
        }
    }

    fn rows_in_line(self) -> usize {
        match self {
            Self::Colour => 2,
            Self::Unicode | Self::Ascii => 1,
        }
    }
}

/// A disk as cells, row by row.
#[derive(Debug)]
pub(crate) struct Picture {
    look: Look,
    cells: Vec<Cell>,
    cell_bytes: u64,
}

impl Picture {
    /// Draws the newer of two images: `data` are the ranges of bytes where it holds any.
    pub(crate) fn of(diff: &Diff, data: impl Iterator<Item = Range<u64>>, look: Look) -> Self {
        let count = COLUMNS * LINES * look.rows_in_line();
        let mut picture = Self {
            look,
            cells: vec![Cell::Zero; count],
            cell_bytes: diff.size.div_ceil(count as u64).max(1),
        };
        for range in data {
            picture.mark(range, Cell::Same);
        }
        for extent in &diff.extents {
            let kind = match extent.kind {
                ExtentKind::Data => Cell::Changed,
                ExtentKind::Zero => Cell::Zeroed,
            };
            picture.mark(extent.offset..extent.offset + extent.length, kind);
        }
        picture
    }

    /// Returns how much of the disk a cell shows.
    pub(crate) fn cell_bytes(&self) -> u64 {
        self.cell_bytes
    }

    fn mark(&mut self, range: Range<u64>, kind: Cell) {
        let first = usize::try_from(range.start / self.cell_bytes).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end.div_ceil(self.cell_bytes)).unwrap_or(usize::MAX);
        let end = end.min(self.cells.len());
        for cell in self.cells.get_mut(first..end).unwrap_or_default() {
            *cell = kind.max(*cell);
        }
    }

    /// Returns the picture and what its signs mean, whole lines.
    pub(crate) fn lines(&self) -> String {
        let lines = self.cells.chunks(COLUMNS * self.look.rows_in_line());
        let mut text: String = lines
            .map(|line| format!("  {}\n", self.line(line)))
            .collect();
        let legend = KINDS.map(|(cell, name)| format!("{} {name}", self.single(cell)));
        text.push_str(&format!("  {}\n", legend.join("   ")));
        text
    }

    fn line(&self, cells: &[Cell]) -> String {
        match self.look {
            Look::Colour => {
                let (upper, lower) = cells.split_at(cells.len() / 2);
                let pairs = upper.iter().zip(lower);
                let painted = pairs.map(|(upper, lower)| painted('▀', *upper, *lower));
                painted.chain([PLAIN.to_owned()]).collect()
            }
            _ => cells.iter().map(|cell| self.single(*cell)).collect(),
        }
    }

    /// Returns the sign for one cell alone.
    fn single(&self, cell: Cell) -> String {
        match self.look {
            Look::Colour => format!("{}{PLAIN}", painted('▀', cell, cell)),
            Look::Unicode => match cell {
                Cell::Changed => "█",
                Cell::Zeroed => "○",
                Cell::Same => "░",
                Cell::Zero => "·",
            }
            .to_owned(),
            Look::Ascii => match cell {
                Cell::Changed => "#",
                Cell::Zeroed => "o",
                Cell::Same => ":",
                Cell::Zero => ".",
            }
            .to_owned(),
        }
    }
}

const PLAIN: &str = "\u{1b}[0m";

/// Returns a sign with its upper and lower half in the colours of two cells (the 256 colours of xterm).
fn painted(sign: char, upper: Cell, lower: Cell) -> String {
    let colour = |cell| match cell {
        Cell::Changed => 208,
        Cell::Zeroed => 39,
        Cell::Same => 242,
        Cell::Zero => 235,
    };
    let (upper, lower) = (colour(upper), colour(lower));
    format!("\u{1b}[38;5;{upper};48;5;{lower}m{sign}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tegula_engine::Extent;

    fn picture(look: Look) -> Picture {
        let extent = |offset, length, kind| Extent {
            offset,
            length,
            kind,
        };
        // In ASCII a cell is 10 bytes.
        let digest = tegula_engine::ImageDigest::from_bytes([0; 32]);
        let diff = Diff {
            base_digest: digest,
            digest,
            base_size: 0,
            size: (COLUMNS * LINES) as u64 * 10,
            extents: vec![
                extent(5, 1, ExtentKind::Data),
                extent(20, 20, ExtentKind::Zero),
            ],
        };
        Picture::of(&diff, [0..11, 650..660].into_iter(), look)
    }

    #[test]
    fn the_smallest_change_is_seen() {
        let text = picture(Look::Ascii).lines();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("  #:oo{}", ".".repeat(60)));
        assert_eq!(lines[1], format!("  .:{}", ".".repeat(62)));
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(
            lines[LINES],
            "  # changed   o now zero   : as before   . zero"
        );
    }

    #[test]
    fn colours_are_switched_off_at_the_end_of_every_line() {
        for line in picture(Look::Colour).lines().lines() {
            let after = line.rsplit(PLAIN).next().unwrap_or_default();
            assert!(!after.contains('\u{1b}'), "{line:?}");
        }
    }
}
