//! Every decoder of `engine/format`: takes any bytes, and what it takes for valid it can write again.

use crate::reseal;
use crate::world::RULES;
use std::collections::BTreeSet;
use tegula_format::{
    BlockIndex, BlockSet, ChunkId, Corruption, GcState, ImageName, ImageRecord, LayerHeader,
    LayerIds, LayerParts, LayerSections, NAME_BYTES_MAX, QuarantineList, RunHeader, RunSections,
    SEGMENT_TRAILER_BYTES, SegmentHeader, SegmentTrailer, SketchRun, SketchRunHeader, StoreConfig,
    Structure, encode_run, encode_sketch_run, envelope_length,
};

/// Tries a structure that is an envelope and nothing else: what decodes must encode to the same value, and to the
/// same bytes but for the feature masks that a reader passes over.
fn round_trip<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Corruption>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    for bytes in [data.to_vec(), reseal::whole_envelope(data)] {
        if let Ok(value) = decode(&bytes) {
            let again = encode(&value);
            assert_eq!(decode(&again).as_ref(), Ok(&value));
            if bytes.get(16..24).unwrap() == [0; 8] {
                assert_eq!(again, bytes);
            }
        }
    }
}

/// A store's configuration.
pub fn store_config(data: &[u8]) {
    round_trip(data, StoreConfig::decode, StoreConfig::encode);
}

/// The collection state.
pub fn gc_state(data: &[u8]) {
    round_trip(data, GcState::decode, GcState::encode);
    if let Ok(state) = GcState::decode(&reseal::whole_envelope(data)) {
        let (segments, layers) = (&state.condemned_segments, &state.condemned_layers);
        assert!(
            segments
                .iter()
                .all(|segment| state.condemns_segment(*segment))
        );
        assert!(layers.iter().all(|layer| state.condemns_layer(layer)));
    }
}

/// The quarantine list.
pub fn quarantine(data: &[u8]) {
    round_trip(data, QuarantineList::decode, QuarantineList::encode);
    if let Ok(list) = QuarantineList::decode(&reseal::whole_envelope(data)) {
        assert!(list.places.iter().all(|place| list.contains(*place)));
    }
}

/// An image's record.
pub fn image_record(data: &[u8]) {
    round_trip(data, ImageRecord::decode, ImageRecord::encode);
}

/// A segment's head.
pub fn segment_header(data: &[u8]) {
    let decode = |bytes: &[u8]| SegmentHeader::decode(bytes);
    round_trip(
        data.get(..73).unwrap_or(data),
        decode,
        SegmentHeader::encode,
    );
    // It need not end where the head does.
    let whole = SegmentHeader::decode(data);
    if let Ok(header) = whole {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}

/// The bytes of any file: at most one kind of structure may take them for its own.
pub fn envelope(data: &[u8]) {
    let resealed = reseal::whole_envelope(data);
    for bytes in [data, &resealed] {
        let length = envelope_length(bytes);
        assert_eq!(length.is_err(), bytes.len() < 32);
        let taken = [
            StoreConfig::decode(bytes).is_ok(),
            GcState::decode(bytes).is_ok(),
            QuarantineList::decode(bytes).is_ok(),
            ImageRecord::decode(bytes).is_ok(),
            SegmentHeader::decode(bytes).is_ok(),
            RunHeader::decode(bytes, bytes.len() as u64).is_ok(),
            SketchRunHeader::decode(bytes, bytes.len() as u64).is_ok(),
            LayerHeader::decode(bytes, bytes.len() as u64).is_ok(),
        ];
        assert!(taken.iter().filter(|taken| **taken).count() <= 1);
    }
}

/// Any text as an image's name.
pub fn image_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = ImageName::parse(&text) {
        assert_eq!(name.as_str(), text);
        assert!(!text.is_empty() && text.len() <= NAME_BYTES_MAX);
        assert!(!text.contains(|c: char| c == '/' || c.is_control()));
        assert!(!text.starts_with(['.', '-', ' ']) && !text.ends_with(' '));
        assert_eq!(ImageName::parse(name.as_str()), Ok(name));
    }
}

/// A serialized set of blocks.
pub fn block_set(data: &[u8]) {
    let Ok(set) = BlockSet::decode(data, 1 << 32, Structure::Layer) else {
        return;
    };
    let again = set.encode();
    let decoded = BlockSet::decode(&again, 1 << 32, Structure::Layer);
    assert_eq!(decoded.as_ref(), Ok(&set));
    assert_eq!(set.is_empty(), set.iter().next().is_none());
    let blocks_in_runs: u64 = set.runs().map(|run| run.end - run.start).sum();
    assert_eq!(blocks_in_runs, set.len());
    let last = set.last().map_or(0, |last| u64::from(last.get()) + 1);
    assert!(last == 0 || BlockSet::decode(data, last - 1, Structure::Layer).is_err());
    if set.len() > 1 << 16 {
        return;
    }
    let plain: BTreeSet<BlockIndex> = set.iter().collect();
    assert_eq!(plain.len() as u64, set.len());
    for (position, block) in plain.iter().enumerate() {
        assert!(set.contains(*block));
        assert_eq!(set.rank_before(*block), position as u64);
    }
    assert!(set == plain.iter().copied().collect::<BlockSet>());
    let mut cut = set.clone();
    cut.truncate(last / 2);
    assert_eq!(cut.len(), set.count_in(0..last / 2));
    assert!(cut.iter().eq(set.iter_in(0..last / 2)));
}

/// A sealed segment: its trailer and the table of contents that it describes.
pub fn segment_table(data: &[u8]) {
    for bytes in [data.to_vec(), reseal::segment(data)] {
        let length = bytes.len() as u64;
        let end = bytes.len().saturating_sub(SEGMENT_TRAILER_BYTES);
        let tail = bytes.get(end..).unwrap();
        let Ok(trailer) = SegmentTrailer::decode(tail, length) else {
            continue;
        };
        let table = trailer.toc_offset as usize..end;
        let toc = bytes
            .get(table)
            .expect("a checked trailer's table is in the file");
        assert_eq!(toc.len(), trailer.toc_bytes());
        if let Ok(toc) = trailer.decode_toc(toc, &RULES) {
            assert_eq!(toc.rows().len(), trailer.rows as usize);
            let bases = toc.rows().iter().map(|row| toc.bases_of(row).len());
            assert_eq!(bases.sum::<usize>(), trailer.base_ids as usize);
            let again = toc.encode(trailer.toc_offset, RULES.block_size);
            assert_eq!(
                Some(again.as_slice()),
                bytes.get(trailer.toc_offset as usize..)
            );
        }
    }
}

/// An index run: its parts, checked and unchecked.
pub fn run(data: &[u8]) {
    for bytes in [data.to_vec(), reseal::run(data)] {
        let length = bytes.len() as u64;
        let Ok(header) = RunHeader::decode(&bytes, length) else {
            continue;
        };
        let Ok(sections) = RunSections::new(&header, &bytes) else {
            continue;
        };
        let segments = sections.segments();
        // Rows are looked up before anything is verified: that may miss, never fail.
        let ids: Vec<_> = sections.rows().map(|row| row.id).collect();
        assert_eq!(ids.len(), sections.len());
        assert_eq!(sections.row(ids.len()), None);
        for id in ids.iter().chain([&ChunkId::of(data)]) {
            assert!(sections.find(id).all(|row| row.id == *id));
            _ = sections.may_contain(id);
        }
        if sections.verify().is_ok() {
            let segments = segments.expect("what is verified has its list of segments");
            let rows: Vec<_> = sections.rows().collect();
            for row in &rows {
                assert!(sections.find(&row.id).any(|found| found == *row));
                assert!(segments.contains(&row.place.segment));
            }
            let again = encode_run(&rows, segments.iter().copied());
            let header = RunHeader::decode(&again, again.len() as u64).unwrap();
            let sections = RunSections::new(&header, &again).unwrap();
            assert_eq!(sections.verify(), Ok(()));
            assert_eq!(sections.segments(), Ok(segments));
            assert!(sections.rows().eq(rows.iter().copied()));
            assert!(rows.iter().all(|row| sections.may_contain(&row.id)));
        }
    }
}

/// A layer: its parts, checked and unchecked.
pub fn layer(data: &[u8]) {
    for bytes in [data.to_vec(), reseal::layer(data)] {
        let length = bytes.len() as u64;
        let Ok(header) = LayerHeader::decode(&bytes, length) else {
            continue;
        };
        let Ok(sections) = LayerSections::new(header, &bytes) else {
            continue;
        };
        let (data, zero) = (sections.data(), sections.zero());
        let ids = sections.ids().len() as u64 / 32;
        assert_eq!(sections.id(ids), None);
        assert!((0..ids).all(|position| sections.id(position).is_some()));
        assert!(sections.verify_page(sections.pages()).is_err());
        if sections.verify().is_ok() {
            let (data, zero) = (data.unwrap(), zero.unwrap());
            assert_eq!(data.len(), ids);
            assert!(data.is_disjoint(&zero));
            let summary = header.summary;
            let (id, head) = LayerParts {
                ingest: summary.ingest,
                block_size: summary.block_size,
                virtual_size: summary.virtual_size,
                parent: summary.parent.map(|parent| (parent, summary.depth - 1)),
                data: &data,
                zero: &zero,
                differs: summary.differs,
            }
            .begin_head()
            .finish(&LayerIds::of(sections.ids()));
            let again = [head.as_slice(), sections.ids()].concat();
            let decoded = LayerHeader::decode(&again, again.len() as u64).unwrap();
            assert_eq!((decoded.id(), decoded.summary), (id, summary));
            let sections = LayerSections::new(decoded, &again).unwrap();
            assert_eq!(sections.verify(), Ok(()));
            // The name is a hash of the head, which hashes the rest. (What was to be ignored is not written again.)
            assert_eq!(id == header.id(), again == bytes);
        }
    }
}

/// A sketch run: its rows, checked and unchecked.
pub fn sketch_run(data: &[u8]) {
    for bytes in [data.to_vec(), reseal::sketch_run(data)] {
        let length = bytes.len() as u64;
        let Ok(header) = SketchRunHeader::decode(&bytes, length) else {
            continue;
        };
        let run = SketchRun::new(&header, &bytes).expect("the head fits the bytes");
        // Rows are looked up before anything is verified: that may miss, never fail.
        let rows: Vec<_> = run.rows().collect();
        assert_eq!(rows.len(), run.len());
        assert_eq!(run.row(rows.len()), None);
        let found = |feature| run.find(feature).count();
        rows.iter().for_each(|row| _ = found(row.feature));
        if run.verify().is_ok() {
            for row in &rows {
                assert!(run.find(row.feature).any(|chunk| chunk == row.chunk));
            }
            let again = encode_sketch_run(&rows);
            let header = SketchRunHeader::decode(&again, again.len() as u64).unwrap();
            let run = SketchRun::new(&header, &again).unwrap();
            assert_eq!(run.verify(), Ok(()));
            assert!(run.rows().eq(rows.iter().copied()));
        }
    }
}
