//! What a crashed writer may have left: an unsealed segment of any bytes.

use crate::reseal;
use crate::world::{self, RULES, WORLD, get, name};
use tegula_engine::{CollectOptions, Depth, Task};
use tegula_format::{RecordHeader, SEGMENT_DATA_START};
use tegula_store::Ingest;

/// Whatever stands in an abandoned segment, its whole chunks are taken over, nothing else is, and collection leaves
/// no trace of it.
pub fn abandoned_segment(data: &[u8]) {
    for bytes in [data.to_vec(), resealed(data)] {
        let mut files = WORLD.files.clone();
        files.insert("segments/00000009.open".to_owned(), bytes);
        let (storage, engine) = world::open(&files).unwrap();
        let session = engine.store().begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        let recovered = ingest.recover_abandoned().unwrap();
        drop(ingest);
        drop(session);
        let found = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
        assert_eq!(found.findings, []);
        let before = WORLD
            .files
            .keys()
            .filter(|path| path.starts_with("segments/"));
        // One for what stands by itself, and another for what stood on others, which must be there before.
        let new = found.segments.checked_sub(before.count() as u64);
        assert!(new.is_some_and(|new| (recovered.min(1)..=recovered.min(2)).contains(&new)));
        for (image, bytes) in &WORLD.images {
            assert!(get(&engine, &name(image)).unwrap() == *bytes);
        }
        let options = CollectOptions {
            min_live: 1.0,
            ..CollectOptions::default()
        };
        engine.collect(&options).unwrap();
        let left = world::files_of(&storage);
        let open = left.keys().find(|path| path.ends_with(".open"));
        assert_eq!(open, None);
        let found = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
        assert_eq!(found.findings, []);
    }
}

/// Makes the head's and every record's checksum fit.
fn resealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = reseal::envelope(data, 41);
    let mut at = usize::try_from(SEGMENT_DATA_START).unwrap();
    while let Some(rest) = bytes.get_mut(at..) {
        let Ok(header) = RecordHeader::decode(rest, &RULES) else {
            break;
        };
        let Some(record) = rest.get_mut(..header.record_bytes()) else {
            break;
        };
        let sealed = reseal::record(record);
        record.copy_from_slice(&sealed);
        at += header.record_bytes();
    }
    bytes
}
