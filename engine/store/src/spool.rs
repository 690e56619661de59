//! Bytes that are gathered to be read again: in memory while they are few, else in a temporary file of the store.

use crate::files::TemporaryFile;
use crate::{Environment, Session, StoreError};
use std::sync::Mutex;
use tegula_io::{Buffer, Mapped};

/// Bytes kept in memory before they go to a file.
const TAIL_BYTES_MAX: usize = 4 << 20;

/// Takes bytes in order.
#[derive(Debug)]
pub struct Spool<'a> {
    environment: &'a Environment,
    tail: Buffer,
    file: Option<TemporaryFile<'a>>,
}

impl<'a> Spool<'a> {
    /// Begins with nothing.
    pub fn new(session: &'a Session) -> Self {
        Self::within(session.environment())
    }

    pub(crate) fn within(environment: &'a Environment) -> Self {
        Self {
            environment,
            tail: Buffer::default(),
            file: None,
        }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`] if they have outgrown memory and cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.tail.len() + bytes.len() > TAIL_BYTES_MAX {
            self.spill()?;
        }
        self.tail.as_vec_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn spill(&mut self) -> Result<(), StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(TemporaryFile::create(self.environment)?),
        };
        file.append(std::mem::take(&mut self.tail))
    }

    /// Returns all bytes in one piece: mapped, if they went to a file.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn finish(mut self) -> Result<Spooled<'a>, StoreError> {
        if self.file.is_some() {
            self.spill()?;
        }
        match self.file {
            None => Ok(Spooled {
                bytes: Mapped::new(self.tail.to_vec()),
                _file: None,
            }),
            Some(mut file) => Ok(Spooled {
                bytes: file.map()?,
                _file: Some(Mutex::new(file)),
            }),
        }
    }
}

/// The gathered bytes; the file they may be in goes when this is dropped.
#[derive(Debug)]
pub struct Spooled<'a> {
    bytes: Mapped,
    /// Held for its end alone; the lock lets threads share what is never locked.
    _file: Option<Mutex<TemporaryFile<'a>>>,
}

impl Spooled<'_> {
    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}
