//! Hints in JSON, read entry by entry: what a document promises to hold is never held in memory.

use super::read::{HINT_ENTRIES_MAX, HintError, HintFormat};
use super::{ChangeHint, SECTOR_BYTES};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::io::{self, BufRead, Read};
use tegula_format::ImageDigest;

/// The longest text that is looked at: names of kinds, digests.
const TEXT_BYTES_MAX: usize = 128;

/// The longest text that is read: the parser gathers a whole one in memory.
const TEXT_BYTES_READ_MAX: usize = 64 << 10;

pub(super) fn read(
    hint: &mut ChangeHint,
    format: HintFormat,
    input: &mut dyn BufRead,
) -> Result<(), HintError> {
    let mut document = Document {
        hint,
        format,
        entries: 0,
        next: 0,
        complete: false,
        found: false,
    };
    let mut json = serde_json::Deserializer::from_reader(Terse {
        input,
        text: None,
        escaped: false,
    });
    let read = (&mut document)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    if document.entries > HINT_ENTRIES_MAX {
        return Err(HintError::TooManyRanges);
    }
    read.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => HintError::NoExtents,
        serde_json::error::Category::Io => HintError::Read(error.into()),
        _ => HintError::Json(error),
    })?;
    if !document.found {
        return Err(HintError::NoExtents);
    }
    document.finish();
    Ok(())
}

/// A value as far as anything here asks.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    Flag(bool),
    Text(String),
    Null,
    Other,
}

/// An entry of a list.
#[derive(Debug, Default)]
struct Entry {
    start: Option<Value>,
    offset: Option<Value>,
    length: Option<Value>,
    kind: Option<Value>,
    description: Option<Value>,
    depth: Option<Value>,
    exists: Option<Value>,
    dirty: Option<Value>,
    /// A key that it has twice: which of the two counts is nobody's to say.
    twice: Option<&'static str>,
}

/// What an entry says of its range.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Changed,
    Unchanged,
}

struct Document<'a> {
    hint: &'a mut ChangeHint,
    format: HintFormat,
    entries: u64,
    /// Where the next entry has to begin, if every byte is to be listed.
    next: u64,
    /// Whether the list is one that names unchanged ranges too, so that what it leaves out is in doubt.
    complete: bool,
    found: bool,
}

impl Document<'_> {
    fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        let at = self.entries;
        if let Some(key) = entry.twice {
            return self.hint.doubt(format!("entry {at} has {key:?} twice"));
        }
        // The offset of an entry of a map is where its bytes stand in a file.
        let start = entry.start.as_ref().or(entry.offset.as_ref());
        let (Some(Value::Number(start)), Some(Value::Number(length))) = (start, &entry.length)
        else {
            return self.hint.doubt(format!(
                "entry {at} has no offset and length that are whole numbers"
            ));
        };
        let Some(end) = start.checked_add(*length) else {
            let reason = format!("entry {at} ends past the last byte there can be");
            return self.hint.doubt(reason);
        };
        let ends_a_disk = end == self.hint.changed.bytes() || Some(end) == self.hint.base_bytes;
        let is_sector = |at: u64| at.is_multiple_of(SECTOR_BYTES);
        if !is_sector(*start) || !(is_sector(end) || ends_a_disk) {
            return self.hint.doubt(format!(
                "entry {at} is of bytes {start} to {end}, which are no whole sectors"
            ));
        }
        let said = match said(self.format, entry) {
            Ok(said) => said,
            Err(what) => return self.hint.doubt(format!("entry {at} {what}")),
        };
        self.complete |= said == Said::Unchanged || entry.depth.is_some();
        if self.next != *start {
            // Only a complete list has to name every byte; whether it is one is known at its end.
            self.next = u64::MAX;
        } else {
            self.next = end;
        }
        if said == Said::Changed && *length > 0 {
            self.hint.add(*start..end);
        }
    }

    fn finish(&mut self) {
        let bytes = self.hint.changed.bytes();
        if self.complete && (self.next == u64::MAX || self.next < bytes) {
            let reason = "it lists unchanged ranges too, and does not list every byte";
            self.hint.doubt(reason.to_owned());
        }
    }
}

/// Returns what an entry says, or what is strange about it.
fn said(format: HintFormat, entry: &Entry) -> Result<Said, String> {
    let number = |value: &Option<Value>, what: &str| match value {
        Some(Value::Number(number)) => Ok(*number),
        _ => Err(format!("has no {what} that is a whole number")),
    };
    match format {
        HintFormat::QemuMap => by_depth(number(&entry.depth, "depth")?),
        HintFormat::Rbd => by_existence(entry.exists.as_ref()),
        _ if entry.depth.is_some() => by_depth(number(&entry.depth, "depth")?),
        _ if entry.exists.is_some() => by_existence(entry.exists.as_ref()),
        _ => match (&entry.dirty, &entry.description, &entry.kind) {
            (Some(Value::Flag(true)), ..) => Ok(Said::Changed),
            (Some(Value::Flag(false)), ..) => Ok(Said::Unchanged),
            (Some(_), ..) => Err("has a \"dirty\" that is neither true nor false".to_owned()),
            (None, Some(Value::Text(text)), _) | (None, None, Some(Value::Text(text))) => {
                match text.as_str() {
                    "data" | "zero" | "dirty" => Ok(Said::Changed),
                    "clean" => Ok(Said::Unchanged),
                    _ => Err(format!("is {text:?}, which may mean anything")),
                }
            }
            (None, None, None) => Ok(Said::Changed),
            _ => Err("is of a kind that may mean anything".to_owned()),
        },
    }
}

/// What the topmost file of a chain holds was changed; what lies deeper is the base's.
fn by_depth(depth: u64) -> Result<Said, String> {
    Ok(match depth {
        0 => Said::Changed,
        _ => Said::Unchanged,
    })
}

/// A range that no longer exists was changed too: to zeros.
fn by_existence(exists: Option<&Value>) -> Result<Said, String> {
    match exists {
        Some(Value::Flag(_)) => Ok(Said::Changed),
        Some(Value::Text(text)) if matches!(text.as_str(), "true" | "false") => Ok(Said::Changed),
        _ => Err("does not say whether it exists".to_owned()),
    }
}

impl<'de> DeserializeSeed<'de> for &mut Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of extents, or an object with one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.found = true;
        while let Some(entry) = list.next_element_seed(EntrySeed)? {
            self.take(&entry);
            if self.entries > HINT_ENTRIES_MAX {
                return Err(A::Error::custom("too many entries"));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut seen = Vec::new();
        while let Some(key) = object.next_key_seed(ValueSeed)? {
            let Value::Text(key) = key else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            let known = ["extents", "base_digest", "size", "base_size"];
            if let Some(known) = known.into_iter().find(|known| *known == key) {
                if seen.contains(&known) {
                    self.hint.doubt(format!("it has {known:?} twice"));
                }
                seen.push(known);
            }
            match key.as_str() {
                "extents" => object.next_value_seed(List(&mut *self))?,
                "base_digest" => {
                    let digest = match object.next_value_seed(ValueSeed)? {
                        Value::Text(text) => ImageDigest::parse(&text),
                        _ => None,
                    };
                    match digest {
                        Some(digest) => self.hint.base = Some(digest),
                        None => self.hint.doubt("its base_digest is no digest".to_owned()),
                    }
                }
                "size" | "base_size" => match object.next_value_seed(ValueSeed)? {
                    Value::Number(size) if key == "size" => self.hint.bytes = Some(size),
                    Value::Number(size) => self.hint.base_bytes = Some(size),
                    _ => self.hint.doubt(format!("its {key} is no whole number")),
                },
                _ => _ = object.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// The list within an object.
struct List<'a, 'b>(&'a mut Document<'b>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self.0)
    }
}

struct EntrySeed;

impl<'de> DeserializeSeed<'de> for EntrySeed {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Entry, D::Error> {
        json.deserialize_any(self)
    }
}

/// Takes whatever an entry is: what is no object has nothing that one needs.
impl<'de> Visitor<'de> for EntrySeed {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        while let Some(key) = object.next_key_seed(ValueSeed)? {
            let value = object.next_value_seed(ValueSeed)?;
            let Value::Text(key) = key else { continue };
            let (key, field) = match key.as_str() {
                "start" => ("start", &mut entry.start),
                "offset" => ("offset", &mut entry.offset),
                "length" => ("length", &mut entry.length),
                "type" => ("type", &mut entry.kind),
                "description" => ("description", &mut entry.description),
                "depth" => ("depth", &mut entry.depth),
                "exists" => ("exists", &mut entry.exists),
                "dirty" => ("dirty", &mut entry.dirty),
                _ => continue,
            };
            if field.replace(value).is_some() {
                entry.twice = Some(key);
            }
        }
        Ok(entry)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entry, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entry::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_unit<E: Error>(self) -> Result<Entry, E> {
        Ok(Entry::default())
    }
}

struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(match text.len() <= TEXT_BYTES_MAX {
            true => Value::Text(text.to_owned()),
            false => Value::Other,
        })
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// Input that ends with an error where a text gets too long.
struct Terse<'a> {
    input: &'a mut dyn BufRead,
    /// Bytes of the text that is being read, if one is.
    text: Option<usize>,
    /// Whether the last byte of it takes the next one's meaning.
    escaped: bool,
}

impl Terse<'_> {
    fn pass(&mut self, byte: u8) {
        self.text = match (self.text, byte, self.escaped) {
            (None, b'"', _) => Some(0),
            (None, ..) => None,
            (Some(_), b'"', false) => None,
            (Some(length), ..) => Some(length + 1),
        };
        self.escaped = self.text.is_some() && byte == b'\\' && !self.escaped;
    }
}

impl Read for Terse<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        for byte in buffer.iter().take(length) {
            self.pass(*byte);
            if self.text > Some(TEXT_BYTES_READ_MAX) {
                return Err(io::Error::other("a text of it is too long"));
            }
        }
        Ok(length)
    }
}
