//! Layers on disk: opened mapped, written once (SPEC 6).

use crate::files::TemporaryFile;
use crate::resolve::{WINDOW_BLOCKS, ids_in};
use crate::spool::{Spool, Spooled};
use crate::{Environment, Session, StoreError, files, parallel, paths};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, Corruption, ENVELOPE_BYTES, IngestId,
    LAYER_PAGE_BYTES, LayerHeader, LayerId, LayerIds, LayerParts, LayerSections, LayerSummary,
    Structure, envelope_length,
};
use tegula_io::{Buffer, Existing, Mapped, StorePath, StoredFile};

/// Ids in one checksummed page of a layer's table.
const IDS_PER_PAGE: u64 = (LAYER_PAGE_BYTES / 32) as u64;

/// Reads what a layer is from the head of its file.
pub(crate) fn read_summary(
    environment: &Environment,
    id: &LayerId,
) -> Result<LayerSummary, StoreError> {
    let path = paths::layer(id);
    let (file, length) = open_file(environment, id, &path)?;
    let head = file
        .read_at(0, length)
        .wait()
        .map_err(StoreError::io("read", &path))?;
    let header = LayerHeader::decode(&head, file.bytes()).map_err(StoreError::corrupt(&path))?;
    check_id(&header, id).map_err(StoreError::corrupt(&path))?;
    Ok(header.summary)
}

/// Opens a layer's file. Returns it with the length of its head, which is all there.
fn open_file(
    environment: &Environment,
    id: &LayerId,
    path: &StorePath,
) -> Result<(Arc<dyn StoredFile>, usize), StoreError> {
    let file = match environment.storage.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::LayerMissing { id: *id });
        }
        opened => opened.map_err(StoreError::io("open", path))?,
    };
    let truncated = |need: u64, have: u64| {
        StoreError::corrupt(path)(Corruption::Truncated {
            what: Structure::Layer,
            need,
            have,
        })
    };
    let head = file.bytes().min(ENVELOPE_BYTES as u64);
    let head = usize::try_from(head).expect("because an envelope is short");
    let head = file
        .read_at(0, head)
        .wait()
        .map_err(StoreError::io("read", path))?;
    let length =
        envelope_length(&head).map_err(|have| truncated(ENVELOPE_BYTES as u64, have as u64))?;
    match length as u64 > file.bytes() {
        true => Err(truncated(length as u64, file.bytes())),
        false => Ok((file, length)),
    }
}

fn check_id(header: &LayerHeader, id: &LayerId) -> Result<(), Corruption> {
    match header.id() == *id {
        true => Ok(()),
        false => Err(Corruption::Hash {
            what: Structure::Layer,
            part: "the head, by the file's name,",
        }),
    }
}

/// An open layer. Its bitmaps were checked when it was opened; its id table is checked page by page as it is used.
#[derive(Debug)]
pub struct Layer {
    header: LayerHeader,
    mapped: Mapped,
    path: StorePath,
    data: BlockSet,
    zero: BlockSet,
    /// How many blocks are set before each multiple of [`RANK_BLOCKS`].
    ranks: Vec<u64>,
    /// Where the id table begins in the file.
    ids_start: usize,
    checked_pages: Vec<AtomicBool>,
}

/// Blocks between two counts of how many are set before: what a container of a bitmap holds.
const RANK_BLOCKS: u64 = 1 << 16;

impl Layer {
    /// Opens a layer and checks that it is the one asked for.
    pub(crate) fn open(environment: &Environment, id: &LayerId) -> Result<Self, StoreError> {
        let path = paths::layer(id);
        let (file, length) = open_file(environment, id, &path)?;
        let mapped = file.map().map_err(StoreError::io("map", &path))?;
        let check = |end: u64| {
            mapped
                .check_readable(0..usize::try_from(end).unwrap_or(usize::MAX))
                .map_err(StoreError::io("read", &path))
        };
        check(length as u64)?;
        let head = LayerHeader::decode(mapped.as_slice(), file.bytes())
            .map_err(StoreError::corrupt(&path))?;
        // All but the ids is looked at now; these page by page.
        check(file.bytes() - head.summary.data_blocks * 32)?;
        Self::new(id, mapped, &path).map_err(StoreError::corrupt(&path))
    }

    fn new(id: &LayerId, mapped: Mapped, path: &StorePath) -> Result<Self, Corruption> {
        let bytes = mapped.as_slice();
        let header = LayerHeader::decode(bytes, bytes.len() as u64)?;
        check_id(&header, id)?;
        let sections = LayerSections::new(header, bytes)?;
        let (data, zero) = (sections.data()?, sections.zero()?);
        sections.verify_page_checksums()?;
        let checked_pages = (0..sections.pages())
            .map(|_| AtomicBool::new(false))
            .collect();
        let ids_start = bytes.len() - sections.ids().len();
        let ranks = ranks_of(&data);
        Ok(Self {
            header,
            mapped,
            path: path.clone(),
            data,
            zero,
            ranks,
            ids_start,
            checked_pages,
        })
    }

    /// Returns the layer's identity.
    pub fn id(&self) -> LayerId {
        self.header.id()
    }

    /// Returns what the layer is.
    pub fn summary(&self) -> &LayerSummary {
        &self.header.summary
    }

    /// Returns the blocks the layer sets.
    pub fn data(&self) -> &BlockSet {
        &self.data
    }

    /// Returns the blocks the layer zeroes.
    pub fn zero(&self) -> &BlockSet {
        &self.zero
    }

    /// Returns the length of the layer's file.
    pub fn file_bytes(&self) -> u64 {
        self.mapped.as_slice().len() as u64
    }

    /// Returns how many blocks the image has that this layer maps.
    pub fn block_count(&self) -> u64 {
        self.summary()
            .block_size
            .blocks_in(self.summary().virtual_size)
    }

    /// Returns the chunk id at a position of the id table.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if that page of the table is damaged.
    pub fn id_at(&self, position: u64) -> Result<ChunkId, StoreError> {
        self.id_bytes(position).map(|id| ChunkId::from_bytes(*id))
    }

    /// Returns the bytes of the chunk id at a position of the id table.
    pub(crate) fn id_bytes(&self, position: u64) -> Result<&[u8; 32], StoreError> {
        let ids = self.ids_bytes(position..position + 1)?;
        Ok(ids
            .first_chunk()
            .expect("because it is as long as was asked for"))
    }

    /// Returns the bytes of the chunk ids at some positions of the id table, all of which there are.
    pub(crate) fn ids_bytes(&self, positions: Range<u64>) -> Result<&[u8], StoreError> {
        let narrow =
            |position| usize::try_from(position).expect("because a table has at most 2^32 ids");
        let pages = positions.start / IDS_PER_PAGE..positions.end.div_ceil(IDS_PER_PAGE);
        for page in narrow(pages.start)..narrow(pages.end) {
            self.check_page(page)?;
        }
        let bytes = narrow(positions.start * 32)..narrow(positions.end * 32);
        let bytes = self.ids_start + bytes.start..self.ids_start + bytes.end;
        let ids = self.mapped.as_slice().get(bytes);
        Ok(ids.expect("because every position below the count of blocks is in the table"))
    }

    /// Checks a page of the id table, the first time that it is looked at.
    fn check_page(&self, page: usize) -> Result<(), StoreError> {
        let checked = self.checked_pages.get(page);
        if checked.is_some_and(|checked| checked.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let start = self.ids_start + page * LAYER_PAGE_BYTES;
        self.mapped
            .check_readable(start..start + LAYER_PAGE_BYTES)
            .map_err(StoreError::io("read", &self.path))?;
        self.sections()
            .verify_page(page)
            .map_err(StoreError::corrupt(&self.path))?;
        if let Some(checked) = checked {
            checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns the position in the id table of the first block at or after `block` that this layer sets.
    pub(crate) fn position_of(&self, block: u64) -> u64 {
        let before = usize::try_from(block / RANK_BLOCKS).expect("because blocks are 32 bits");
        let before = self.ranks.get(before).copied();
        let rest = block / RANK_BLOCKS * RANK_BLOCKS..block;
        before.map_or(self.data.len(), |before| before + self.data.count_in(rest))
    }

    /// Returns the chunk id of a block that this layer sets.
    pub(crate) fn id_of(&self, block: BlockIndex) -> Result<ChunkId, StoreError> {
        self.id_at(self.position_of(u64::from(block.get())))
    }

    /// Checks everything in the layer's file.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`].
    pub fn verify(&self) -> Result<(), StoreError> {
        self.mapped
            .check_readable(0..usize::MAX)
            .map_err(StoreError::io("read", &self.path))?;
        self.sections()
            .verify()
            .map_err(StoreError::corrupt(&self.path))
    }

    fn sections(&self) -> LayerSections<'_> {
        LayerSections::new(self.header, self.mapped.as_slice())
            .expect("because new() split it before")
    }
}

/// Counts how many blocks of a set lie before each multiple of [`RANK_BLOCKS`] up to the last one.
fn ranks_of(blocks: &BlockSet) -> Vec<u64> {
    let last = blocks.last().map_or(0, |last| u64::from(last.get()));
    let mut before = 0;
    let count = |first: u64| {
        let rank = before;
        before += blocks.count_in(first..first + RANK_BLOCKS);
        rank
    };
    (0..=last).step_by(1 << 16).map(count).collect()
}

/// Gathers the chunk ids of a layer in block order: in memory while they are few, else in a temporary file.
#[derive(Debug)]
pub struct IdTable<'a>(Spool<'a>);

impl<'a> IdTable<'a> {
    pub(crate) fn new(environment: &'a Environment) -> Self {
        Self(Spool::within(environment))
    }

    /// Begins an empty table.
    pub fn begin(session: &'a Session) -> Self {
        Self::new(session.environment())
    }

    /// Adds the chunk of the next block.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the table has outgrown memory and cannot be written.
    pub fn push(&mut self, id: &ChunkId) -> Result<(), StoreError> {
        self.0.append(id.as_bytes())
    }

    /// Returns all ids in one piece: mapped, if they went to a file.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn finish(self) -> Result<Ids<'a>, StoreError> {
        Ok(Ids(self.0.finish()?))
    }
}

/// The chunk ids of a layer, 32 bytes each.
#[derive(Debug)]
pub struct Ids<'a>(Spooled<'a>);

impl Ids<'_> {
    /// Returns the bytes of all ids.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Where the id table of a new layer comes from.
#[derive(Debug)]
pub(crate) enum LayerIdSource<'a> {
    /// It was gathered.
    Table(Ids<'a>),
    /// It is what these layers show of the first `blocks` blocks. It is gone through once, never held.
    Layers {
        /// The layers, newest first.
        layers: &'a [Arc<Layer>],
        /// How many blocks the newest has.
        blocks: u64,
    },
}

/// Bytes of a gathered table that are handed on at once.
const PIECE_BYTES: usize = 1 << 20;

/// Windows of blocks whose ids are looked up at once: 16 MiB of them, at most.
const PIECE_WINDOWS: usize = 8;

impl LayerIdSource<'_> {
    /// Goes through the table piece by piece. While one is dealt with the next is looked up.
    fn pieces(
        &self,
        mut each: impl FnMut(Cow<'_, [u8]>) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let (layers, blocks) = match self {
            Self::Table(ids) => {
                let mut pieces = ids.as_slice().chunks(PIECE_BYTES);
                return pieces.try_for_each(|piece| each(Cow::Borrowed(piece)));
            }
            Self::Layers { layers, blocks } => (*layers, *blocks),
        };
        let windows = 0..blocks.div_ceil(WINDOW_BLOCKS);
        let firsts: Vec<u64> = windows.map(|window| window * WINDOW_BLOCKS).collect();
        let look_up = |firsts: &[u64]| {
            parallel::map(firsts, 1, |first| {
                ids_in(layers, *first..*first + WINDOW_BLOCKS.min(blocks - first))
            })
        };
        let mut batches = firsts.chunks(PIECE_WINDOWS);
        let mut found = batches.next().map(look_up);
        while let Some(batch) = found.take() {
            let (dealt, next) = parallel::both(
                || batch.into_iter().try_for_each(|ids| each(Cow::Owned(ids?))),
                || batches.next().map(look_up),
            );
            dealt?;
            found = next;
        }
        Ok(())
    }
}

/// What a new layer is to hold.
#[derive(Debug)]
pub(crate) struct NewLayer<'a> {
    pub(crate) virtual_size: u64,
    pub(crate) parent: Option<(LayerId, u32)>,
    pub(crate) data: BlockSet,
    pub(crate) zero: BlockSet,
    pub(crate) ids: LayerIdSource<'a>,
    /// Whether all that it says differs from what lies below.
    pub(crate) differs: bool,
}

impl NewLayer<'_> {
    /// Writes the layer and makes it durable. Returns its id.
    pub(crate) fn publish(
        &self,
        session: &Session,
        ingest: IngestId,
    ) -> Result<LayerId, StoreError> {
        let environment = session.environment();
        let head = self.parts(session.block_size(), ingest).begin_head();
        let mut file = TemporaryFile::create(environment)?;
        file.reserve(head.bytes());
        let (mut ids, mut gathered) = (LayerIds::new(), Vec::new());
        self.ids.pieces(|piece| {
            ids.push(&piece);
            // Short pieces go out together.
            match gathered.is_empty() {
                true => gathered = piece.into_owned(),
                false => gathered.extend_from_slice(&piece),
            }
            match gathered.len() < PIECE_BYTES {
                true => Ok(()),
                false => file.append(Buffer::from(std::mem::take(&mut gathered))),
            }
        })?;
        file.append(Buffer::from(gathered))?;
        let (id, head) = head.finish(&ids);
        file.fill(Buffer::from(head))?;
        file.publish(&paths::layer(&id), Existing::Refuse)?;
        Ok(id)
    }

    fn parts(&self, block_size: BlockSize, ingest: IngestId) -> LayerParts<'_> {
        LayerParts {
            ingest,
            block_size,
            virtual_size: self.virtual_size,
            parent: self.parent,
            data: &self.data,
            zero: &self.zero,
            differs: self.differs,
        }
    }
}

/// Lists the layers in the store, those with a well-formed name.
pub(crate) fn list_layers(environment: &Environment) -> Result<Vec<LayerId>, StoreError> {
    let entries = files::list(environment, paths::LAYERS)?;
    Ok(entries
        .iter()
        .filter_map(|entry| paths::parse_layer(&entry.name))
        .collect())
}
