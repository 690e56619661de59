//! Reading a hint: which form it has, and within which limits it is read.

use super::{ChangeHint, json, thin_delta};
use std::io::{self, BufRead};

/// The longest hint that is read. A list of five million extents is shorter.
pub const HINT_BYTES_MAX: u64 = 256 << 20;

/// The most ranges a hint may have.
pub const HINT_ENTRIES_MAX: u64 = 1 << 22;

/// The forms of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintFormat {
    /// By what it looks like.
    Auto,
    /// A JSON list of extents, each with `offset` or `start`, and `length`: what `tegula diff --json` prints, the dirty
    /// extents of oVirt's imageio, or those of `nbdinfo --map --json` for a dirty bitmap.
    Extents,
    /// What `qemu-img map --output=json` prints for an overlay: what its topmost file holds was changed.
    QemuMap,
    /// The XML that `thin_delta` prints for two volumes of a thin pool: the first is the base.
    ThinDelta,
    /// What `rbd diff --format json` prints.
    Rbd,
}

/// Why a hint cannot be read at all. (One that can be read and is strange is in doubt instead. Neither is used.)
#[derive(Debug, thiserror::Error)]
pub enum HintError {
    /// It could not be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is too long.
    #[error("it has more than {HINT_BYTES_MAX} bytes")]
    TooLong,
    /// It has too many ranges.
    #[error("it has more than {HINT_ENTRIES_MAX} ranges")]
    TooManyRanges,
    /// It is no JSON document.
    #[error("it is no JSON document")]
    Json(#[source] serde_json::Error),
    /// It is a JSON document, but not a list of extents, nor an object with one.
    #[error("it is neither a list nor an object with a list \"extents\"")]
    NoExtents,
    /// It is no XML document, or another than `thin_delta` prints.
    #[error("at byte {offset} it is not what thin_delta prints: {reason}")]
    Xml {
        /// Where.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
}

impl ChangeHint {
    /// Reads a hint into one that says that nothing was changed.
    ///
    /// # Errors
    /// [`HintError`] if it is no such document at all. What can be read and is strange only makes it doubtful.
    pub fn read(self, format: HintFormat, input: &mut dyn BufRead) -> Result<Self, HintError> {
        let mut input = Limited {
            input,
            left: HINT_BYTES_MAX,
            exceeded: false,
        };
        let is_xml = match format {
            HintFormat::Auto => first_letter(&mut input).map_err(HintError::Read)? == Some(b'<'),
            format => format == HintFormat::ThinDelta,
        };
        let mut hint = self;
        let read = match is_xml {
            true => thin_delta::read(&mut hint, &mut input),
            false => json::read(&mut hint, format, &mut input),
        };
        match read {
            Err(_) if input.exceeded => Err(HintError::TooLong),
            read => read.map(|()| hint),
        }
    }
}

/// Skips what both JSON and XML call white space, and returns the letter that follows, without taking it. However the
/// input comes in pieces, the same of it is left.
fn first_letter(input: &mut dyn BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = input.fill_buf()?;
        let all = bytes.len();
        let is_space = |byte: &&u8| b" \t\r\n".contains(byte);
        let spaces = bytes.iter().take_while(is_space).count();
        let letter = bytes.get(spaces).copied();
        input.consume(spaces);
        if letter.is_some() || all == 0 {
            return Ok(letter);
        }
    }
}

/// Input that ends with an error where it gets too long.
struct Limited<'a> {
    input: &'a mut dyn BufRead,
    left: u64,
    exceeded: bool,
}

impl io::Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Limited<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.input.fill_buf()?;
        if self.left == 0 && !bytes.is_empty() {
            self.exceeded = true;
            return Err(io::Error::other("too long"));
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX);
        Ok(bytes.get(..length).unwrap_or(bytes))
    }

    fn consume(&mut self, amount: usize) {
        self.left -= amount as u64;
        self.input.consume(amount);
    }
}
