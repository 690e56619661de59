//! The XML that `thin_delta` prints: which blocks two volumes of a thin pool have differently.
//!
//! ```xml
//! <superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="0">
//!   <diff left="1" right="2">
//!     <same begin="0" length="16"/>
//!     <different begin="16" length="4"/>
//!     <left_only begin="20" length="1"/>
//!     <right_only begin="30" length="2"/>
//!   </diff>
//! </superblock>
//! ```
//!
//! `data_block_size` counts sectors of 512 bytes, the rest blocks of that size. What neither volume has mapped is not
//! listed. With `--verbose` the ranges stand inside, as `<range begin="0" length="16"/>` and more attributes.

use super::read::{HINT_ENTRIES_MAX, HintError};
use super::{ChangeHint, SECTOR_BYTES};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::io::{self, BufRead};

/// The longest tag that is read, and the longest stretch without one.
const EVENT_BYTES_MAX: u64 = 64 << 10;

/// The most attributes of a tag that are looked at.
const ATTRIBUTES_MAX: usize = 32;

/// The largest block of a thin pool: 1 GiB in sectors.
const BLOCK_SECTORS_MAX: u64 = 1 << 21;

pub(super) fn read(hint: &mut ChangeHint, input: &mut dyn BufRead) -> Result<(), HintError> {
    let mut reader = Reader::from_reader(Metered {
        input,
        since_event: 0,
    });
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    loop {
        let offset = reader.buffer_position();
        let failed = |reason: String| HintError::Xml { offset, reason };
        let event = match reader.read_event_into(&mut buffer) {
            Err(quick_xml::Error::Io(error)) => {
                // What the system said is told from what is said here by its number.
                let text = || io::Error::new(error.kind(), error.to_string());
                let system = error.raw_os_error().map(io::Error::from_raw_os_error);
                return Err(HintError::Read(system.unwrap_or_else(text)));
            }
            event => event.map_err(|error| failed(error.to_string()))?,
        };
        match event {
            Event::Start(tag) => walk.open(&tag, hint).map_err(failed)?,
            Event::Empty(tag) => {
                walk.open(&tag, hint).map_err(failed)?;
                walk.close();
            }
            Event::End(_) => walk.close(),
            Event::Eof => break,
            Event::DocType(_) => return Err(failed("it has a document type".to_owned())),
            _ => {}
        }
        if walk.entries > HINT_ENTRIES_MAX {
            return Err(HintError::TooManyRanges);
        }
        buffer.clear();
        reader.get_mut().since_event = 0;
    }
    let offset = reader.buffer_position();
    match walk {
        Walk { open, .. } if !open.is_empty() => Err(HintError::Xml {
            offset,
            reason: "it ends before its last element does".to_owned(),
        }),
        Walk { diffs: 1, .. } => Ok(()),
        Walk { diffs, .. } => Err(HintError::Xml {
            offset,
            reason: format!("it has {diffs} elements <diff>, not one"),
        }),
    }
}

/// An element that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Superblock,
    Diff,
    /// Of ranges that were changed, or were not.
    Ranges {
        changed: bool,
    },
    Range,
    /// Of a kind that is not known.
    Other,
}

/// Where in the document the reading stands.
#[derive(Debug, Default)]
struct Walk {
    open: Vec<Element>,
    block_bytes: u64,
    diffs: u64,
    entries: u64,
}

impl Walk {
    fn open(&mut self, tag: &BytesStart<'_>, hint: &mut ChangeHint) -> Result<(), String> {
        let name = tag.name();
        let element = match (self.open.last(), name.as_ref()) {
            (None, "superblock") => {
                let sectors = attribute(tag, "data_block_size")?;
                let sectors = sectors.ok_or("its data_block_size is missing or no whole number")?;
                if sectors == 0 || sectors > BLOCK_SECTORS_MAX {
                    return Err(format!("a data_block_size of {sectors} sectors"));
                }
                self.block_bytes = sectors * SECTOR_BYTES;
                Element::Superblock
            }
            (None, _) => return Err("it does not begin with <superblock>".to_owned()),
            (Some(Element::Superblock), "diff") => {
                self.diffs += 1;
                Element::Diff
            }
            (Some(Element::Diff), "same") => {
                self.ranges(tag, hint, false)?;
                Element::Ranges { changed: false }
            }
            (Some(Element::Diff), "different" | "left_only" | "right_only") => {
                self.ranges(tag, hint, true)?;
                Element::Ranges { changed: true }
            }
            (Some(Element::Ranges { changed }), "range") => {
                let changed = *changed;
                self.range(tag, hint, changed)?;
                Element::Range
            }
            (Some(_), other) => {
                let other: String = other.chars().take(64).collect();
                hint.doubt(format!(
                    "it has an element <{other}>, which may mean anything"
                ));
                Element::Other
            }
        };
        // No document of thin_delta is deeper; this one is in doubt already.
        if self.open.len() > 8 {
            return Err("its elements are too deep in each other".to_owned());
        }
        self.open.push(element);
        Ok(())
    }

    fn close(&mut self) {
        self.open.pop();
    }

    /// Takes in the range that an element of ranges has itself, if it has one.
    fn ranges(
        &mut self,
        tag: &BytesStart<'_>,
        hint: &mut ChangeHint,
        changed: bool,
    ) -> Result<(), String> {
        match tag.attributes().with_checks(false).next() {
            None => Ok(()),
            Some(_) => self.range(tag, hint, changed),
        }
    }

    fn range(
        &mut self,
        tag: &BytesStart<'_>,
        hint: &mut ChangeHint,
        changed: bool,
    ) -> Result<(), String> {
        self.entries += 1;
        let at = self.entries;
        let (Some(begin), Some(length)) = (attribute(tag, "begin")?, attribute(tag, "length")?)
        else {
            let reason = format!("range {at} has no begin and length that are whole numbers");
            hint.doubt(reason);
            return Ok(());
        };
        let end = begin.checked_add(length);
        let bytes = |block: u64| block.checked_mul(self.block_bytes);
        let (Some(start), Some(end)) = (bytes(begin), end.and_then(bytes)) else {
            hint.doubt(format!("range {at} ends past the last byte there can be"));
            return Ok(());
        };
        if changed && start < end {
            // The last block of a volume may reach past its end.
            let last = hint.changed.bytes().next_multiple_of(self.block_bytes);
            let end = match end <= last {
                true => end.min(hint.changed.bytes().max(start)),
                false => end,
            };
            hint.add(start..end);
        }
        Ok(())
    }
}

/// Returns an attribute that is a whole number; nothing if it is missing or something else.
///
/// Of the attributes looked at none may be there twice: then the document is no XML.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<u64>, String> {
    // Without the reader's check for duplicates, which costs the square of their number.
    let (mut attributes, mut found) = (tag.attributes(), None);
    for attribute in attributes.with_checks(false).take(ATTRIBUTES_MAX) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.as_ref() == name && found.replace(attribute.value.parse().ok()).is_some() {
            return Err(format!("it has {name} twice in one tag"));
        }
    }
    Ok(found.flatten())
}

/// Input that ends with an error where a tag gets too long: the reader gathers a whole one in memory.
struct Metered<'a> {
    input: &'a mut dyn BufRead,
    since_event: u64,
}

impl io::Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Metered<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.since_event > EVENT_BYTES_MAX {
            return Err(io::Error::other("a tag of it is too long"));
        }
        let left = EVENT_BYTES_MAX + 1 - self.since_event;
        let bytes = self.input.fill_buf()?;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        Ok(bytes.get(..left).unwrap_or(bytes))
    }

    fn consume(&mut self, amount: usize) {
        self.since_event += amount as u64;
        self.input.consume(amount);
    }
}
