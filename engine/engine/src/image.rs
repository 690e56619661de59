//! An image opened to be read.

use crate::EngineError;
use std::ops::Deref;
use std::sync::Arc;
use tegula_format::{BlockIndex, ChunkId, ImageName, ImageRecord};
use tegula_io::Buffer;
use tegula_io::sync::{Mutex, PoisonError};
use tegula_store::{LayerStack, Session};

/// An image's record and map. It stays readable for as long as the session it was opened in.
#[derive(Debug)]
pub struct OpenImage<'a> {
    session: Held<'a>,
    record: ImageRecord,
    stack: LayerStack,
    /// The chunk read last: small reads in sequence hit the same block again and again.
    last: Mutex<Option<(ChunkId, Buffer)>>,
}

/// The session that an image is read in: somebody else's, or its own.
#[derive(Debug)]
enum Held<'a> {
    Borrowed(&'a Session),
    Shared(Arc<Session>),
}

impl Deref for Held<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Self::Borrowed(session) => session,
            Self::Shared(session) => session,
        }
    }
}

impl OpenImage<'static> {
    /// Opens an image by name in a session that lives as long as somebody has it.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_shared(session: Arc<Session>, name: &ImageName) -> Result<Self, EngineError> {
        Self::open_in(Held::Shared(session), name)
    }
}

impl<'a> OpenImage<'a> {
    /// Opens an image by name.
    ///
    /// # Errors
    /// [`EngineError::Store`] if there is none, or its record or layers are damaged.
    pub fn open(session: &'a Session, name: &ImageName) -> Result<Self, EngineError> {
        Self::open_in(Held::Borrowed(session), name)
    }

    fn open_in(session: Held<'a>, name: &ImageName) -> Result<Self, EngineError> {
        let record = session.image(name)?;
        let stack = LayerStack::of_image(&session, &record)?;
        Ok(Self {
            session,
            record,
            stack,
            last: Mutex::new(None),
        })
    }

    /// Returns the image's record.
    pub fn record(&self) -> &ImageRecord {
        &self.record
    }

    /// Returns the image's map.
    pub fn stack(&self) -> &LayerStack {
        &self.stack
    }

    /// Returns the session it was opened in.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Fills `buffer` with the image's bytes at `offset`. Every byte is verified before it is returned.
    ///
    /// # Errors
    /// [`EngineError::OutOfImage`] if the range is not all in the image; [`EngineError::Store`] if a chunk is damaged.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), EngineError> {
        let size = self.record.virtual_size;
        let end = offset
            .checked_add(buffer.len() as u64)
            .filter(|end| *end <= size);
        if end.is_none() {
            let end = offset.saturating_add(buffer.len() as u64);
            return Err(EngineError::OutOfImage { offset, end, size });
        }
        let block_size = self.record.block_size;
        let (mut rest, mut offset) = (buffer, offset);
        while !rest.is_empty() {
            let block = block_size.block_at(offset);
            let skip = usize::try_from(offset - block.byte_offset(block_size))
                .expect("because blocks are short");
            let length = rest.len().min(block_size.as_usize() - skip);
            let (piece, after) = rest.split_at_mut(length);
            self.read_in_block(block, skip, piece)?;
            (rest, offset) = (after, offset + length as u64);
        }
        Ok(())
    }

    fn read_in_block(
        &self,
        block: BlockIndex,
        skip: usize,
        piece: &mut [u8],
    ) -> Result<(), EngineError> {
        let Some(id) = self.stack.chunk(block)? else {
            piece.fill(0);
            return Ok(());
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*last, Some((kept, _)) if *kept == id) {
            *last = None;
            *last = Some((id, self.session.read_chunk(&id)?));
        }
        let chunk = last
            .as_ref()
            .and_then(|(_, chunk)| chunk.get(skip..skip + piece.len()));
        piece.copy_from_slice(chunk.expect("because a chunk fills its block"));
        Ok(())
    }
}
