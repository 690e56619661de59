//! Layers on disk: opened mapped, written once (SPEC 6).

use crate::files::TemporaryFile;
use crate::spool::{Spool, Spooled};
use crate::{Environment, Session, StoreError, files, paths};
use std::sync::atomic::{AtomicBool, Ordering};
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, Corruption, ENVELOPE_BYTES, IngestId,
    LAYER_PAGE_BYTES, LayerHeader, LayerId, LayerParts, LayerSections, LayerSummary, Structure,
    envelope_length,
};
use tegula_io::{Buffer, Existing, Mapped, StorePath};

/// Ids in one checksummed page of a layer's table.
const IDS_PER_PAGE: u64 = (LAYER_PAGE_BYTES / 32) as u64;

/// An open layer. Its bitmaps were checked when it was opened; its id table is checked page by page as it is used.
#[derive(Debug)]
pub struct Layer {
    header: LayerHeader,
    mapped: Mapped,
    path: StorePath,
    data: BlockSet,
    zero: BlockSet,
    checked_pages: Vec<AtomicBool>,
}

impl Layer {
    /// Opens a layer and checks that it is the one asked for.
    pub(crate) fn open(environment: &Environment, id: &LayerId) -> Result<Self, StoreError> {
        let path = paths::layer(id);
        let file = match environment.storage.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::LayerMissing { id: *id });
            }
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        let truncated = |need: u64, have: u64| {
            StoreError::corrupt(&path)(Corruption::Truncated {
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
            .map_err(StoreError::io("read", &path))?;
        let length =
            envelope_length(&head).map_err(|have| truncated(ENVELOPE_BYTES as u64, have as u64))?;
        if length as u64 > file.bytes() {
            return Err(truncated(length as u64, file.bytes()));
        }
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
        if header.id() != *id {
            return Err(Corruption::Hash {
                what: Structure::Layer,
                part: "the head, by the file's name,",
            });
        }
        let sections = LayerSections::new(header, bytes)?;
        let (data, zero) = (sections.data()?, sections.zero()?);
        sections.verify_page_checksums()?;
        let checked_pages = (0..sections.pages())
            .map(|_| AtomicBool::new(false))
            .collect();
        Ok(Self {
            header,
            mapped,
            path: path.clone(),
            data,
            zero,
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
        let sections = self.sections();
        let page =
            usize::try_from(position / IDS_PER_PAGE).expect("because a table has at most 2^32 ids");
        let checked = self.checked_pages.get(page);
        if checked.is_none_or(|checked| !checked.load(Ordering::Relaxed)) {
            let ids = self.sections().ids().len();
            let start = self.mapped.as_slice().len() - ids + page * LAYER_PAGE_BYTES;
            self.mapped
                .check_readable(start..start + LAYER_PAGE_BYTES)
                .map_err(StoreError::io("read", &self.path))?;
            sections
                .verify_page(page)
                .map_err(StoreError::corrupt(&self.path))?;
            if let Some(checked) = checked {
                checked.store(true, Ordering::Relaxed);
            }
        }
        Ok(sections
            .id(position)
            .expect("because every position below the count of blocks is in the table"))
    }

    /// Returns the chunk id of a block that this layer sets.
    pub(crate) fn id_of(&self, block: BlockIndex) -> Result<ChunkId, StoreError> {
        self.id_at(self.data.rank_before(block))
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

    /// Returns the ids one by one.
    pub fn iter(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.as_slice()
            .chunks_exact(32)
            .filter_map(|id| id.first_chunk().copied())
            .map(ChunkId::from_bytes)
    }
}

/// What a new layer is to hold.
#[derive(Debug)]
pub(crate) struct NewLayer<'a> {
    pub(crate) virtual_size: u64,
    pub(crate) parent: Option<(LayerId, u32)>,
    pub(crate) data: BlockSet,
    pub(crate) zero: BlockSet,
    pub(crate) ids: Ids<'a>,
}

impl NewLayer<'_> {
    /// Writes the layer and makes it durable. Returns its id.
    pub(crate) fn publish(
        &self,
        session: &Session,
        ingest: IngestId,
    ) -> Result<LayerId, StoreError> {
        let environment = session.environment();
        let (id, head) = self.parts(session.block_size(), ingest).encode();
        let mut file = TemporaryFile::create(environment)?;
        file.append(Buffer::from(head))?;
        for piece in self.ids.as_slice().chunks(1 << 20) {
            file.append(Buffer::copied(piece))?;
        }
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
            ids: self.ids.as_slice(),
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
