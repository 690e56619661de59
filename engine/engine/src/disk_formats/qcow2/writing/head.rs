//! The header of a new file.

use super::super::header::{
    BACKING_NAME_BYTES_MAX, COMPRESSION, EXTENSION_BACKING_FORMAT, L1_BYTES_MAX, MAGIC,
    REFCOUNT_TABLE_BYTES_MAX,
};
use super::super::numbers::{set_u32, set_u64};
use super::{NewMap, Qcow2Options, Qcow2WriteError};
use crate::disk_formats::qcow2::Compression;

/// Bytes of our header: up to the compression type, padded.
const HEADER_BYTES: u32 = 112;

/// Refcounts have 16 bits, as they have if nothing is said.
const REFCOUNT_ORDER: u32 = 4;

/// A header, but for what is known only when the rest has its place.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Begins a header.
    ///
    /// # Errors
    /// [`Qcow2WriteError::TooLarge`], [`Qcow2WriteError::BackingName`].
    pub(crate) fn new(map: &NewMap, options: &Qcow2Options<'_>) -> Result<Self, Qcow2WriteError> {
        let cluster_size = map.cluster_size;
        // Clusters are numbered with 32 bits here; with small ones the L1 table is what is too long first.
        let limit = (L1_BYTES_MAX / 8 * map.l2_entries()).min(1 << 32) * cluster_size.bytes();
        let found = map.virtual_size;
        if found > limit {
            return Err(Qcow2WriteError::TooLarge {
                found,
                limit,
                cluster_size,
            });
        }
        let mut bytes = vec![0; cluster_size.as_usize()];
        bytes
            .get_mut(..4)
            .expect("because a cluster has 512 bytes")
            .copy_from_slice(&MAGIC);
        set_u32(&mut bytes, 4, 3);
        set_u32(&mut bytes, 20, cluster_size.bits());
        set_u64(&mut bytes, 24, map.virtual_size);
        set_u32(&mut bytes, 96, REFCOUNT_ORDER);
        set_u32(&mut bytes, 100, HEADER_BYTES);
        if options.compression == Some(Compression::Zstd) {
            set_u64(&mut bytes, 72, COMPRESSION);
            *bytes.get_mut(104).expect("because a cluster has 512 bytes") = 1;
        }
        let mut head = Self { bytes };
        head.name_backing(options)?;
        Ok(head)
    }

    /// Adds what the file lies over: an extension for the format, the end of extensions, then the name.
    fn name_backing(&mut self, options: &Qcow2Options<'_>) -> Result<(), Qcow2WriteError> {
        let Some(backing) = options.backing else {
            return Ok(());
        };
        let after_header = HEADER_BYTES as usize;
        let format = backing.format.to_string();
        set_u32(&mut self.bytes, after_header, EXTENSION_BACKING_FORMAT);
        let length = u32::try_from(format.len()).expect("because formats have short names");
        set_u32(&mut self.bytes, after_header + 4, length);
        let at = after_header + 8;
        self.put(at, format.as_bytes());
        let name_at = (at + format.len()).next_multiple_of(8) + 8;
        let (found, cluster_size) = (backing.name.len() as u64, options.cluster_size);
        let limit = (cluster_size.bytes() - name_at as u64).min(BACKING_NAME_BYTES_MAX);
        if found > limit || found == 0 {
            return Err(Qcow2WriteError::BackingName {
                found,
                limit,
                cluster_size,
            });
        }
        set_u64(&mut self.bytes, 8, name_at as u64);
        set_u32(
            &mut self.bytes,
            16,
            u32::try_from(found).expect("because it has a limit"),
        );
        self.put(name_at, backing.name.as_bytes());
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let place = self.bytes.get_mut(at..at + bytes.len());
        place
            .expect("because there is room for it")
            .copy_from_slice(bytes);
    }

    /// Says where the L1 table stands: nowhere, if it has no entries.
    pub(crate) fn set_l1(&mut self, offset: u64, entries: u64) {
        let offset = if entries == 0 { 0 } else { offset };
        let entries = u32::try_from(entries).expect("because the disk's length has a limit");
        set_u32(&mut self.bytes, 36, entries);
        set_u64(&mut self.bytes, 40, offset);
    }

    /// Says where the refcount table stands.
    ///
    /// # Errors
    /// [`Qcow2WriteError::TooLarge`] if QEMU would not read one as long.
    pub(crate) fn set_refcounts(
        &mut self,
        map: &NewMap,
        offset: u64,
        clusters: u64,
    ) -> Result<(), Qcow2WriteError> {
        let cluster_size = map.cluster_size;
        if clusters * cluster_size.bytes() > REFCOUNT_TABLE_BYTES_MAX {
            let limit =
                REFCOUNT_TABLE_BYTES_MAX / 8 * (cluster_size.bytes() / 2) * cluster_size.bytes();
            let found = map.data.len() * cluster_size.bytes();
            return Err(Qcow2WriteError::TooLarge {
                found,
                limit,
                cluster_size,
            });
        }
        let clusters = u32::try_from(clusters).expect("because it has a limit");
        set_u64(&mut self.bytes, 48, offset);
        set_u32(&mut self.bytes, 56, clusters);
        Ok(())
    }

    /// Returns the first cluster.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
