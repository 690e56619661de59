//! Fetching one thing into a file, going on where it stopped: after a broken connection, and after the end of the program.
//!
//! What was fetched is as long as the file. Bytes are added to those of the same entity alone: the server must say by a
//! strong tag (`If-Range`) that it still has it, or the thing must be known by a hash in the end.

use super::PullError;
use super::client::{self, Answer, Client, Patience, header};
use super::state::{Entity, State};
use crate::progress::Progress;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes taken at once.
const PIECE_BYTES: usize = 256 << 10;

/// Zeros that are left out of the file together.
const HOLE_BYTES: usize = 64 << 10;

/// How often a thing may become something else while it is fetched.
const CHANGES_MAX: u32 = 3;

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Download<'a> {
    pub(super) url: &'a str,
    /// What kind of thing is wanted, and asked for by `Accept`.
    pub(super) kind: &'a str,
    /// Its length, if something else has told it already.
    pub(super) length: Option<u64>,
    /// Whether bytes may be added without a strong tag: those of an image, which never changes and is hashed at the end.
    pub(super) constant: bool,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fetched {
    /// Bytes that came over the wire, those of bodies, in this run.
    pub(super) wire_bytes: u64,
    /// Whether it was put together of several answers.
    pub(super) pieced: bool,
}

/// A file that is filled.
#[derive(Debug)]
pub(super) struct Filled<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
}

/// What an answer begins.
enum Begun {
    /// The rest, from where the file ends.
    Rest,
    /// All of it.
    All(Entity),
    /// Something else than the part that the file has.
    Changed,
}

impl Download<'_> {
    /// Fetches all that is missing. Once this returns, the file is as long as the thing, and durable.
    ///
    /// # Errors
    /// [`PullError`]; what was fetched stays, and is gone on with.
    pub(super) fn run(
        &self,
        client: &mut Client,
        state: &mut State,
        filled: &Filled<'_>,
        progress: &Progress,
    ) -> Result<Fetched, PullError> {
        let mut fetched = Fetched::default();
        let (mut patience, mut changes, mut renewed) = (client.patience(), 0, false);
        let mut have = self.usable(state, filled)?;
        fetched.pieced = have > 0;
        loop {
            if let Some(entity) = state
                .saved
                .entity
                .as_ref()
                .filter(|entity| entity.total == have)
            {
                progress.update(have, Some(entity.total));
                break;
            }
            let headers = self.headers(state, have);
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, &**value))
                .collect();
            let mut answer = match client.get_once(self.url, &headers) {
                Ok(answer) => answer,
                Err(error) if !client::is_passing(&error) => {
                    return Err(client::lasting(self.url, error));
                }
                Err(error) => match patience.wait(None) {
                    true => continue,
                    false => return Err(client::unreachable(self.url, &patience, error)),
                },
            };
            let status = answer.status().as_u16();
            if client::is_later(status) {
                match patience.wait(client::asked_wait(&answer)) {
                    true => continue,
                    false => return Err(client::refusal(self.url, &mut answer)),
                }
            }
            if status == 401 && !renewed && client.renew_token()? {
                renewed = true;
                continue;
            }
            match self.begun(&mut answer, state, have)? {
                Begun::Rest => fetched.pieced = true,
                Begun::All(entity) => {
                    if have > 0 {
                        changes += 1;
                    }
                    have = 0;
                    fetched.pieced = false;
                    self.begin(state, filled, entity)?;
                }
                Begun::Changed => {
                    changes += 1;
                    have = 0;
                    state.saved.entity = None;
                    self.empty(filled)?;
                }
            }
            if changes > CHANGES_MAX {
                let (url, times) = (self.url.to_owned(), changes);
                return Err(PullError::Unsteady { url, times });
            }
            if state.saved.entity.is_some() {
                let before = have;
                let broken = self.body(answer, state, filled, &mut have, progress)?;
                fetched.wire_bytes += have - before;
                renewed &= have == before;
                self.after(broken, have > before, &mut patience)?;
            }
        }
        let synced = filled.file.sync_all();
        synced.map_err(PullError::file("sync", filled.path))?;
        Ok(fetched)
    }

    /// Returns how much of what the file holds can be gone on with.
    fn usable(&self, state: &mut State, filled: &Filled<'_>) -> Result<u64, PullError> {
        let metadata = filled.file.metadata();
        let have = metadata
            .map_err(PullError::file("look at", filled.path))?
            .len();
        let fits = |entity: &Entity| {
            entity.url == self.url
                && have <= entity.total
                && (entity.tag.is_some() || self.constant)
        };
        match state.saved.entity.as_ref().is_some_and(fits) {
            true => Ok(have),
            false => {
                state.saved.entity = None;
                self.empty(filled)?;
                Ok(0)
            }
        }
    }

    fn headers(&self, state: &State, have: u64) -> Vec<(&'static str, String)> {
        let mut headers = vec![("Accept", self.kind.to_owned())];
        if have > 0 {
            headers.push(("Range", format!("bytes={have}-")));
            let entity = state.saved.entity.as_ref();
            if let Some(tag) = entity.and_then(|entity| entity.tag.as_ref()) {
                headers.push(("If-Range", tag.clone()));
            }
        }
        headers
    }

    /// Looks at what an answer says of itself.
    fn begun(&self, answer: &mut Answer, state: &State, have: u64) -> Result<Begun, PullError> {
        let wrong = |what: String| PullError::Answer {
            url: self.url.to_owned(),
            what,
        };
        let headers = answer.headers();
        let tag = header(headers, "etag").filter(|tag| tag.starts_with('"'));
        let length = header(headers, "content-length").and_then(|length| length.parse().ok());
        match answer.status().as_u16() {
            200 => {
                let kind = header(headers, "content-type").unwrap_or_default();
                if kind.split(';').next().map(str::trim) != Some(self.kind) {
                    return Err(wrong(format!("it is {kind:?}, not {}", self.kind)));
                }
                let total: Option<u64> = length.or(self.length);
                let total = total
                    .ok_or_else(|| wrong("the answer does not say how long it is".to_owned()))?;
                if let Some(expected) = self.length.filter(|expected| *expected != total) {
                    return Err(self.other_length(expected, total));
                }
                let url = self.url.to_owned();
                Ok(Begun::All(Entity { url, tag, total }))
            }
            206 if have > 0 => {
                let range = header(headers, "content-range").unwrap_or_default();
                let (start, total) = parse_range(&range).ok_or_else(|| {
                    wrong(format!("it is the part {range:?} of what was asked for"))
                })?;
                let entity = state.saved.entity.as_ref();
                let entity = entity.expect("because a part is asked for of what is known");
                let same =
                    (start, total) == (have, entity.total) && (tag.is_none() || tag == entity.tag);
                Ok(match same {
                    true => Begun::Rest,
                    false => Begun::Changed,
                })
            }
            416 if have > 0 => Ok(Begun::Changed),
            204 => Err(wrong("there is no data".to_owned())),
            206 => Err(wrong("it is a part, and all was asked for".to_owned())),
            status if (200..300).contains(&status) => {
                Err(wrong(format!("the answer {status} means nothing here")))
            }
            _ => Err(client::refusal(self.url, answer)),
        }
    }

    fn other_length(&self, expected: u64, found: u64) -> PullError {
        PullError::Differs {
            url: self.url.to_owned(),
            what: "length",
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// Begins with an empty file, once it is written down of what.
    fn begin(
        &self,
        state: &mut State,
        filled: &Filled<'_>,
        entity: Entity,
    ) -> Result<(), PullError> {
        self.empty(filled)?;
        state.saved.entity = Some(entity);
        state.save()
    }

    fn empty(&self, filled: &Filled<'_>) -> Result<(), PullError> {
        let emptied = filled.file.set_len(0);
        emptied.map_err(PullError::file("empty", filled.path))
    }

    /// Adds an answer's bytes to the file. Returns why there are no more before the end, if that is so.
    fn body(
        &self,
        answer: Answer,
        state: &State,
        filled: &Filled<'_>,
        have: &mut u64,
        progress: &Progress,
    ) -> Result<Option<io::Error>, PullError> {
        let total = state.saved.entity.as_ref().map_or(0, |entity| entity.total);
        let mut body = answer.into_body().into_reader();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            progress.update(*have, Some(total));
            let bytes = match body.read(&mut piece) {
                Ok(0) if *have < total => return Ok(Some(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok((*have < total).then_some(error)),
            };
            if bytes == 0 {
                return Ok(None);
            }
            if bytes as u64 > total - *have {
                return Err(self.other_length(total, *have + bytes as u64));
            }
            let piece = piece.get(..bytes).unwrap_or_default();
            append(filled.file, piece, *have).map_err(PullError::file("write", filled.path))?;
            *have += bytes as u64;
        }
    }

    /// Waits before the rest is asked for.
    fn after(
        &self,
        broken: Option<io::Error>,
        got: bool,
        patience: &mut Patience,
    ) -> Result<(), PullError> {
        let Some(error) = broken else { return Ok(()) };
        if got {
            patience.renew();
        }
        match patience.wait(None) {
            true => Ok(()),
            false => Err(client::unreachable(
                self.url,
                patience,
                ureq::Error::Io(error),
            )),
        }
    }
}

/// Adds bytes to a file that is `at` long. Long runs of zeros become holes.
fn append(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut next = at;
    let mut hole = false;
    for piece in bytes.chunks(HOLE_BYTES) {
        hole = piece.len() == HOLE_BYTES && piece.iter().all(|byte| *byte == 0);
        if !hole {
            file.write_all_at(piece, next)?;
        }
        next += piece.len() as u64;
    }
    match hole {
        true => file.set_len(next),
        false => Ok(()),
    }
}

/// Reads `bytes START-END/TOTAL`; the end must be the thing's.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end, total): (u64, u64, u64) =
        (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    (start <= end && end.checked_add(1) == Some(total)).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_go_to_the_end() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, 10)));
        for text in [
            "",
            "bytes 5-8/10",
            "bytes 9-5/10",
            "bytes 5-9/*",
            "5-9/10",
            "bytes */10",
        ] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }

    #[test]
    fn zeros_become_holes_and_the_length_stays_right() {
        let directory = tempfile::tempdir().unwrap();
        let file = super::super::state::open_private(&directory.path().join("file")).unwrap();
        let mut expected = Vec::new();
        for part in [
            vec![1; 100_000],
            vec![0; 200_000],
            vec![2; 7],
            vec![0; 65_536],
        ] {
            append(&file, &part, expected.len() as u64).unwrap();
            expected.extend(part);
            assert_eq!(file.metadata().unwrap().len(), expected.len() as u64);
        }
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == expected);
    }
}
