//! Where everything stands in a store's directory (SPEC 11).

use tegula_format::{Hex, ImageName, IngestId, LayerId, SegmentNumber};
use tegula_io::StorePath;

pub(crate) const SEGMENTS: &str = "segments";
pub(crate) const INDEX: &str = "index";
pub(crate) const LAYERS: &str = "layers";
pub(crate) const IMAGES: &str = "images";
pub(crate) const QUARANTINE: &str = "quarantine";
pub(crate) const TMP: &str = "tmp";
pub(crate) const LOCKS: &str = "locks";

/// Every directory of a store.
pub(crate) const DIRECTORIES: [&str; 7] = [SEGMENTS, INDEX, LAYERS, IMAGES, QUARANTINE, TMP, LOCKS];

pub(crate) fn directory(name: &str) -> StorePath {
    StorePath::new(name)
}

pub(crate) fn config() -> StorePath {
    StorePath::new("tegula.store")
}

/// The second file that says what the store was made with.
pub(crate) fn config_copy() -> StorePath {
    StorePath::new("tegula.store.copy")
}

pub(crate) fn gc_state() -> StorePath {
    StorePath::new("gc.state")
}

pub(crate) fn quarantined_places() -> StorePath {
    directory(QUARANTINE).join("places")
}

pub(crate) fn sealed_segment(number: SegmentNumber) -> StorePath {
    directory(SEGMENTS).join(&format!("{number}.seg"))
}

pub(crate) fn open_segment(number: SegmentNumber) -> StorePath {
    directory(SEGMENTS).join(&format!("{number}.open"))
}

pub(crate) fn layer(id: &LayerId) -> StorePath {
    directory(LAYERS).join(&format!("{id}.layer"))
}

pub(crate) fn image(name: &ImageName) -> StorePath {
    directory(IMAGES).join(&format!("{name}.image"))
}

pub(crate) fn run(random: &[u8; 16]) -> StorePath {
    directory(INDEX).join(&format!("{}.run", Hex(random)))
}

pub(crate) fn sketch_run(random: &[u8; 16]) -> StorePath {
    directory(INDEX).join(&format!("{}.sketches", Hex(random)))
}

pub(crate) fn is_sketch_run(name: &str) -> bool {
    name.ends_with(".sketches")
}

pub(crate) fn tmp(random: &[u8; 16]) -> StorePath {
    directory(TMP).join(&Hex(random).to_string())
}

pub(crate) fn epoch_lock(epoch: u64) -> StorePath {
    directory(LOCKS).join(&format!("epoch-{epoch}"))
}

pub(crate) fn ingest_lock(id: &IngestId) -> StorePath {
    directory(LOCKS).join(&format!("ingest-{id}"))
}

pub(crate) fn commit_lock() -> StorePath {
    directory(LOCKS).join("commit")
}

pub(crate) fn gc_lock() -> StorePath {
    directory(LOCKS).join("gc")
}

pub(crate) fn index_lock() -> StorePath {
    directory(LOCKS).join("index")
}

/// What a name in the segments' directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentFile {
    Sealed(SegmentNumber),
    Open(SegmentNumber),
}

pub(crate) fn parse_segment(name: &str) -> Option<SegmentFile> {
    let (stem, ending) = name.split_once('.')?;
    let well_formed =
        stem.len() == 8 && stem.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    let number = SegmentNumber::new(u32::from_str_radix(stem, 16).ok().filter(|_| well_formed)?);
    match ending {
        "seg" => Some(SegmentFile::Sealed(number)),
        "open" => Some(SegmentFile::Open(number)),
        _ => None,
    }
}

pub(crate) fn parse_layer(name: &str) -> Option<LayerId> {
    LayerId::parse(name.strip_suffix(".layer")?)
}

pub(crate) fn parse_image(name: &str) -> Option<ImageName> {
    ImageName::parse(name.strip_suffix(".image")?).ok()
}

pub(crate) fn parse_epoch_lock(name: &str) -> Option<u64> {
    name.strip_prefix("epoch-")?.parse().ok()
}

pub(crate) fn parse_ingest_lock(name: &str) -> Option<IngestId> {
    IngestId::parse(name.strip_prefix("ingest-")?)
}

/// Tells whether a name in one of the store's directories has a form that the store's files have there.
pub(crate) fn is_name_in(directory: &str, name: &str) -> bool {
    match directory {
        SEGMENTS => parse_segment(name).is_some(),
        INDEX => is_sketch_run(name) || name.strip_suffix(".run").is_some_and(is_random),
        LAYERS => parse_layer(name).is_some(),
        // Every one of these counts as a record, and as a damaged one if no image has such a name.
        IMAGES => name.ends_with(".image"),
        TMP => is_random(name),
        LOCKS => {
            let by_number = parse_epoch_lock(name).is_some_and(|e| epoch_lock(e).name() == name);
            let fixed = [commit_lock(), gc_lock(), index_lock()];
            by_number
                || parse_ingest_lock(name).is_some()
                || fixed.iter().any(|lock| lock.name() == name)
        }
        // Damaged files under the names they had.
        QUARANTINE => true,
        _ => false,
    }
}

fn is_random(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_store_has_a_name_of_its_directory_and_nothing_else_has() {
        let (random, number) = ([0xa5; 16], SegmentNumber::new(0xc0ffee));
        let ours = [
            sealed_segment(number),
            open_segment(number),
            run(&random),
            layer(&LayerId::from_bytes([7; 32])),
            image(&ImageName::parse("roof").unwrap()),
            tmp(&random),
            epoch_lock(12),
            ingest_lock(&IngestId::from_bytes(random)),
            commit_lock(),
            gc_lock(),
            index_lock(),
            quarantined_places(),
        ];
        for path in ours {
            assert!(is_name_in(path.parent().as_str(), path.name()), "{path}");
        }
        let foreign = [
            (SEGMENTS, "1.seg"),
            (SEGMENTS, "00000001.seg~"),
            (INDEX, "a.run"),
            (LAYERS, "notes"),
            (IMAGES, "roof.image.bak"),
            (TMP, "A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5"),
            (LOCKS, "epoch-012"),
            (LOCKS, "epoch-+1"),
        ];
        for (directory, name) in foreign {
            assert!(!is_name_in(directory, name), "{directory}/{name}");
        }
    }
}
