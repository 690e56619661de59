//! Holds the decoders and encoders against the golden files of `format-spec/vectors`.
//!
//! Those files come from an encoder that was written from SPEC.md alone, in another language. Every one that is whole
//! must decode to the fields its index states, and encode to the same bytes again; every broken one must give the
//! error that is named there.

#![expect(
    clippy::indexing_slicing,
    reason = "a test may panic, and writing to a field of a JSON object does not"
)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tegula_format::{
    Bases, BlockIndex, BlockSet, BlockSize, ChunkId, ChunkRules, Codec, Corruption,
    DELTA_TRAILER_BYTES, DeltaEnd, DeltaHeader, DeltaParts, DeltaTrailer, GcState, Hex,
    ImageDigest, ImageDigester, ImageName, ImageRecord, IngestId, JOURNAL_MARK_BYTES,
    JOURNAL_ROW_BYTES, JournalHead, JournalMark, JournalRow, JournalSeal, LayerHeader, LayerId,
    LayerIds, LayerParts, LayerSections, NameError, ParentReference, Place, QuarantineList,
    RunHeader, RunRow, RunSections, SEGMENT_DATA_START, SEGMENT_TRAILER_BYTES, SegmentHeader,
    SegmentNumber, SegmentTrailer, Sketch, SketchRow, SketchRun, SketchRunHeader, StoreConfig,
    Structure, Toc, TocRow, encode_record, encode_run, encode_sketch_run,
};

/// What a decoder made of a file: its fields as the index words them, and the bytes they encode to.
type Reading = Result<(Value, Vec<u8>), Corruption>;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../format-spec/vectors")
}

fn bytes_of(file: &str) -> Vec<u8> {
    std::fs::read(directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn index() -> Value {
    serde_json::from_slice(&bytes_of("index.json")).expect("index.json is JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let found = value.get(key).and_then(Value::as_array);
    found.unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let found = value.get(key).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    let found = value.get(key).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn block_size(value: &Value) -> BlockSize {
    BlockSize::from_bytes(1 << number(value, "block_size_log2")).expect("a block size")
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    Hex::parse(text).unwrap_or_else(|| panic!("not {N} bytes of hexadecimal: {text}"))
}

fn part(bytes: &[u8], start: usize, end: usize) -> &[u8] {
    bytes.get(start..end).unwrap_or_default()
}

/// Returns the error's name in SPEC.md, and the field it accuses.
fn name_of(error: &Corruption) -> (&'static str, Option<&'static str>) {
    match error {
        Corruption::Truncated { .. } => ("Truncated", None),
        Corruption::BadMagic { .. } => ("BadMagic", None),
        Corruption::UnsupportedVersion { .. } => ("UnsupportedVersion", None),
        Corruption::UnsupportedFeatures { .. } => ("UnsupportedFeatures", None),
        Corruption::Checksum { .. } => ("Checksum", None),
        Corruption::Hash { .. } => ("Hash", None),
        Corruption::Field { field, .. } => ("Field", Some(field)),
        Corruption::Body { .. } => ("Body", None),
    }
}

fn read(vector: &Value, bytes: &[u8]) -> Reading {
    match text(vector, "structure") {
        "store_config" => store_config(bytes),
        "chunk" => chunk(bytes, block_size(vector)),
        "block_set" => block_set(vector, bytes),
        "segment_header" => segment_header(bytes),
        "record" => record(bytes, block_size(vector)),
        "segment" => segment(bytes),
        "unsealed_segment" => unsealed_segment(bytes),
        "run" => run(vector, bytes),
        "sketch" => sketch(bytes),
        "sketch_run" => sketch_run(bytes),
        "layer" => layer(vector, bytes),
        "image_record" => image_record(bytes),
        "gc_state" => gc_state(bytes),
        "quarantine" => quarantine(bytes),
        "delta" => delta(bytes),
        "journal" => journal(bytes),
        other => panic!("{other} is no structure"),
    }
}

fn store_config(bytes: &[u8]) -> Reading {
    let config = StoreConfig::decode(bytes)?;
    let fields = json!({
        "id": config.id.to_string(),
        "block_size_log2": config.block_size.log2(),
        "zstd_level": config.zstd_level,
        "prefix_frames": config.prefix_frames,
        "has_copy": config.has_copy,
        "created_at_us": config.created_at_us,
    });
    Ok((fields, config.encode()))
}

fn chunk(bytes: &[u8], block_size: BlockSize) -> Reading {
    let mut chunk = bytes.to_vec();
    chunk.resize(block_size.as_usize(), 0);
    Ok((
        json!({ "id": ChunkId::of(&chunk).to_string() }),
        bytes.to_vec(),
    ))
}

fn block_set(vector: &Value, bytes: &[u8]) -> Reading {
    let set = BlockSet::decode(bytes, number(vector, "block_count"), Structure::Layer)?;
    let fields = vector.get("fields").cloned().unwrap_or_default();
    let mut expected = BlockSet::new();
    for range in list(&fields, "ranges") {
        let range: [u64; 3] = serde_json::from_value(range.clone()).expect("a range");
        for block in (range[0]..range[1]).step_by(usize::try_from(range[2]).expect("a step")) {
            expected.push(BlockIndex::new(u32::try_from(block).expect("a block")));
        }
    }
    assert_eq!(set, expected, "{}", text(vector, "file"));
    assert_eq!(expected.encode(), bytes, "built anew");
    Ok((fields, set.encode()))
}

fn header_fields(header: &SegmentHeader) -> Value {
    json!({
        "store": header.store.to_string(),
        "number": header.number.get(),
        "block_size_log2": header.block_size.log2(),
        "ingest": header.ingest.to_string(),
    })
}

fn segment_header(bytes: &[u8]) -> Reading {
    let header = SegmentHeader::decode(bytes)?;
    assert_eq!(
        IngestId::parse(&header.ingest.to_string()),
        Some(header.ingest)
    );
    Ok((header_fields(&header), header.encode()))
}

fn rules(block_size: BlockSize) -> ChunkRules {
    ChunkRules {
        block_size,
        prefix_frames: true,
    }
}

fn ids_of(ids: &[ChunkId]) -> Value {
    ids.iter().map(ToString::to_string).collect()
}

fn record(bytes: &[u8], block_size: BlockSize) -> Reading {
    let header = tegula_format::RecordHeader::decode(bytes, &rules(block_size))?;
    header.verify(bytes)?;
    let bases = header.bases(bytes)?;
    let payload_offset = tegula_format::RECORD_HEADER_BYTES;
    let frame = part(bytes, header.frame_offset(), bytes.len());
    let fields = json!({
        "codec": header.codec.code(),
        "bases": ids_of(bases.ids()),
        "stored_length": header.stored_length,
        "raw_length": header.raw_length,
        "id": header.id.to_string(),
        "payload_offset": payload_offset,
    });
    if header.codec == Codec::Raw {
        assert_eq!(ChunkId::of(frame), header.id);
    }
    let mut again = Vec::new();
    encode_record(
        &mut again,
        &header.id,
        header.codec,
        &bases,
        frame,
        header.raw_length,
    );
    Ok((fields, again))
}

/// Reads records from the end of the header on, until the bytes end or hold no whole record.
fn scan(bytes: &[u8], block_size: BlockSize) -> Toc {
    let mut toc = Toc::new();
    let mut offset = usize::try_from(SEGMENT_DATA_START).expect("a small number");
    loop {
        let rest = part(bytes, offset, bytes.len());
        let Ok(header) = tegula_format::RecordHeader::decode(rest, &rules(block_size)) else {
            break;
        };
        let record = part(rest, 0, header.record_bytes());
        let Ok(bases) = header.verify(record).and_then(|()| header.bases(record)) else {
            break;
        };
        let at = u32::try_from(offset).expect("a small file");
        toc.push(header.id, at, header.stored_length, header.codec, &bases);
        offset += header.record_bytes();
    }
    toc
}

fn row_fields(toc: &Toc) -> Value {
    let row = |row: &TocRow| {
        json!({
            "id": row.id.to_string(),
            "offset": row.offset,
            "stored_length": row.stored_length,
            "codec": row.codec.code(),
            "bases": ids_of(toc.bases_of(row)),
        })
    };
    toc.rows().iter().map(row).collect()
}

/// Encodes header and records again, with the payloads that stand in `bytes`.
fn written_again(header: &SegmentHeader, toc: &Toc, bytes: &[u8]) -> Vec<u8> {
    let mut again = header.encode();
    for row in toc.rows() {
        let end = row.offset as usize + row.record_bytes();
        let ids = toc.bases_of(row);
        let frame = part(
            bytes,
            end + 32 * ids.len() - row.stored_length as usize,
            end,
        );
        let bases = Bases::new(ids).expect("at most two");
        let raw_length = header.block_size.bytes();
        encode_record(&mut again, &row.id, row.codec, &bases, frame, raw_length);
    }
    again
}

fn segment(bytes: &[u8]) -> Reading {
    let header = SegmentHeader::decode(bytes)?;
    let end = bytes.len() - SEGMENT_TRAILER_BYTES.min(bytes.len());
    let trailer = SegmentTrailer::decode(part(bytes, end, bytes.len()), bytes.len() as u64)?;
    let toc = part(bytes, end - trailer.toc_bytes(), end);
    let toc = trailer.decode_toc(toc, &rules(header.block_size))?;
    let toc_offset = trailer.toc_offset as usize;
    assert_eq!(
        scan(part(bytes, 0, toc_offset), header.block_size),
        toc,
        "the records are what the table says"
    );
    let mut fields = header_fields(&header);
    fields["rows"] = row_fields(&toc);
    let mut again = written_again(&header, &toc, bytes);
    again.extend(toc.encode(trailer.toc_offset, header.block_size));
    Ok((fields, again))
}

fn unsealed_segment(bytes: &[u8]) -> Reading {
    let header = SegmentHeader::decode(bytes)?;
    let toc = scan(bytes, header.block_size);
    let again = written_again(&header, &toc, bytes);
    let mut fields = header_fields(&header);
    fields["rows"] = row_fields(&toc);
    fields["valid_bytes"] = json!(again.len());
    let torn = part(bytes, again.len(), bytes.len());
    Ok((fields, [&again, torn].concat()))
}

fn sketch(bytes: &[u8]) -> Reading {
    let size = BlockSize::from_bytes(bytes.len() as u64).expect("a block");
    let sketch = Sketch::of(bytes, size);
    let features: Vec<u32> = sketch.features().iter().map(|f| f.get()).collect();
    Ok((json!({ "features": features }), bytes.to_vec()))
}

fn sketch_run(bytes: &[u8]) -> Reading {
    let header = SketchRunHeader::decode(bytes, bytes.len() as u64)?;
    let run = SketchRun::new(&header, bytes)?;
    run.verify()?;
    let rows: Vec<SketchRow> = run.rows().collect();
    let shown = rows.iter().map(|row| {
        assert!(run.find(row.feature).any(|chunk| chunk == row.chunk));
        let chunk = Hex(&row.chunk.to_bytes()).to_string();
        json!({ "feature": row.feature.get(), "chunk": chunk })
    });
    let fields = json!({ "rows": shown.collect::<Vec<_>>() });
    Ok((fields, encode_sketch_run(&rows)))
}

fn run(vector: &Value, bytes: &[u8]) -> Reading {
    let header = RunHeader::decode(bytes, bytes.len() as u64)?;
    let run = RunSections::new(&header, bytes)?;
    run.verify()?;
    let segments = run.segments()?;
    let rows: Vec<RunRow> = run.rows().collect();
    let mut fields = json!({
        "segments": segments.iter().map(|segment| segment.get()).collect::<Vec<_>>(),
        "rows": rows.iter().map(|row| json!({
            "id": row.id.to_string(),
            "segment": row.place.segment.get(),
            "slot": row.place.slot.get(),
            "offset": row.offset,
            "stored_length": row.stored_length,
            "bases": row.bases,
        })).collect::<Vec<_>>(),
    });
    for row in &rows {
        assert!(run.may_contain(&row.id), "the filter knows {}", row.id);
        assert!(run.find(&row.id).any(|found| found == *row));
    }
    if let Some(absent) = vector.pointer("/fields/absent") {
        let id = ChunkId::from_bytes(hex(absent.as_str().expect("an id")));
        assert_eq!(run.find(&id).next(), None);
        fields["absent"] = absent.clone();
    }
    Ok((fields, encode_run(&rows, segments)))
}

fn ranges(set: &BlockSet) -> Value {
    set.runs().map(|run| json!([run.start, run.end])).collect()
}

fn layer(vector: &Value, bytes: &[u8]) -> Reading {
    let header = LayerHeader::decode(bytes, bytes.len() as u64)?;
    let layer = LayerSections::new(header, bytes)?;
    layer.verify()?;
    let (data, zero, summary) = (layer.data()?, layer.zero()?, header.summary);
    let mut fields = json!({
        "id": header.id().to_string(),
        "ingest": summary.ingest.to_string(),
        "block_size_log2": summary.block_size.log2(),
        "virtual_size": summary.virtual_size,
        "parent": summary.parent.map(|parent| parent.to_string()),
        "depth": summary.depth,
        "differs": summary.differs,
        "data": ranges(&data),
        "zero": ranges(&zero),
        "ids_hash": Hex(ChunkId::of(layer.ids()).as_bytes()).to_string(),
    });
    if vector.pointer("/fields/ids").is_some() {
        let ids =
            (0..summary.data_blocks).map(|position| layer.id(position).map(|id| id.to_string()));
        fields["ids"] = ids.collect();
    }
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
    .finish(&LayerIds::of(layer.ids()));
    assert_eq!(id, header.id());
    Ok((fields, [&head, layer.ids()].concat()))
}

fn image_record(bytes: &[u8]) -> Reading {
    let record = ImageRecord::decode(bytes)?;
    let parent = |parent: &ParentReference| json!({ "name": parent.name.as_str(), "digest": parent.digest.to_string() });
    let fields = json!({
        "id": record.id.to_string(),
        "name": record.name.as_str(),
        "virtual_size": record.virtual_size,
        "block_size_log2": record.block_size.log2(),
        "digest": record.digest.to_string(),
        "layer": record.layer.to_string(),
        "parent": record.parent.as_ref().map(parent),
        "supersedes": record.supersedes.map(|id| id.to_string()),
        "data_blocks": record.data_blocks,
        "created_at_us": record.created_at_us,
    });
    Ok((fields, record.encode()))
}

fn gc_state(bytes: &[u8]) -> Reading {
    let state = GcState::decode(bytes)?;
    let segments = state.condemned_segments.iter();
    let layers = state.condemned_layers.iter();
    let fields = json!({
        "epoch": state.epoch,
        "segment_floor": state.segment_floor,
        "condemned_segments": segments.map(|segment| segment.get()).collect::<Vec<_>>(),
        "condemned_layers": layers.map(LayerId::to_string).collect::<Vec<_>>(),
    });
    Ok((fields, state.encode()))
}

fn quarantine(bytes: &[u8]) -> Reading {
    let list = QuarantineList::decode(bytes)?;
    let place = |place: &Place| {
        assert!(list.contains(*place));
        json!({
            "segment": place.segment.get(),
            "slot": place.slot.get(),
            "ordinal": place.ordinal(),
        })
    };
    let fields = json!({ "places": list.places.iter().map(place).collect::<Vec<_>>() });
    Ok((fields, list.encode()))
}

/// Returns the next part of a file and what is left behind it.
fn cut(bytes: &[u8], length: u64) -> Result<(&[u8], &[u8]), Corruption> {
    let parts = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length));
    parts.ok_or(Corruption::Truncated {
        what: Structure::Delta,
        need: length,
        have: bytes.len() as u64,
    })
}

fn delta(bytes: &[u8]) -> Reading {
    let (header, length) = DeltaHeader::decode(bytes)?;
    let (_, rest) = cut(bytes, length as u64)?;
    let (data_bytes, rest) = cut(rest, header.data_bytes())?;
    let (zero_bytes, rest) = cut(rest, header.zero_bytes())?;
    let (ids, rest) = cut(rest, header.ids_bytes())?;
    let (records, trailer) = match rest.len().checked_sub(DELTA_TRAILER_BYTES) {
        Some(length) => cut(rest, length as u64)?,
        None => return Err(cut(rest, DELTA_TRAILER_BYTES as u64).expect_err("it is too short")),
    };
    let data = header.decode_data(data_bytes)?;
    let zero = header.decode_zero(zero_bytes, &data)?;
    let ids_hash = *blake3::hash(ids).as_bytes();
    header.check_ids_hash(&ids_hash)?;
    let zero_chunk = ChunkId::of(&vec![0; header.block_size.as_usize()]);
    let id_of = |id: &[u8]| ChunkId::from_bytes(*id.first_chunk().expect("32 bytes"));
    let ids: Vec<_> = ids.chunks_exact(32).map(id_of).collect();
    ids.iter()
        .try_for_each(|id| header.check_id(id, &zero_chunk))?;
    let trailer = DeltaTrailer::decode(trailer)?;
    trailer.check_counts(trailer.records, records.len() as u64)?;
    header.check_records(&trailer)?;
    let (mut left, mut carried, mut hashed) = (records, Vec::new(), Vec::new());
    while !left.is_empty() {
        let record = tegula_format::RecordHeader::decode(left, &rules(header.block_size))?;
        let (bytes, rest) = cut(left, record.record_bytes() as u64)?;
        record.verify(bytes)?;
        carried.push(record.id.to_string());
        hashed.push((record.id, bytes));
        left = rest;
    }
    let mut hasher = blake3::Hasher::new();
    let before = bytes.len() - DELTA_TRAILER_BYTES - records.len();
    hasher.update(part(bytes, 0, before));
    hashed
        .iter()
        .for_each(|(id, record)| header.hashed.take(&mut hasher, id, record));
    trailer.check(carried.len() as u64, records.len() as u64, &mut hasher)?;
    let runs = |set: &BlockSet| -> Vec<_> { set.runs().map(|run| [run.start, run.end]).collect() };
    let end = |end: DeltaEnd| json!({ "virtual_size": end.virtual_size, "digest": end.digest.to_string() });
    let (_, head) = DeltaParts {
        block_size: header.block_size,
        base: header.base,
        target: header.target,
        data: &data,
        zero: &zero,
        ids_hash,
        hashed: header.hashed,
    }
    .encode();
    let id_bytes: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
    let fields = json!({
        "block_size_log2": header.block_size.log2(),
        "base": header.base.map(end),
        "virtual_size": header.target.virtual_size,
        "digest": header.target.digest.to_string(),
        "data": runs(&data),
        "zero": runs(&zero),
        "ids": ids.iter().map(ChunkId::to_string).collect::<Vec<_>>(),
        "records": carried,
        "record_bytes": trailer.record_bytes,
    });
    Ok((
        fields,
        [&head[..], &id_bytes, records, &trailer.encode()].concat(),
    ))
}

fn journal(bytes: &[u8]) -> Reading {
    let head = JournalHead::decode(part(bytes, 0, JournalHead::BYTES))?;
    let (_, rest) = cut(bytes, JournalHead::BYTES as u64)?;
    let (row_bytes, rest) = cut(rest, head.rows_bytes())?;
    let (saved, rest) = cut(rest, head.saved_bytes())?;
    let (seal, marks) = cut(rest, JournalSeal::BYTES as u64)?;
    let rows: Result<Vec<_>, _> = row_bytes
        .chunks_exact(JOURNAL_ROW_BYTES)
        .map(|row| JournalRow::decode(row, &head))
        .collect();
    let rows = rows?;
    let seal = JournalSeal::decode(seal)?;
    let before = part(bytes, 0, JournalHead::BYTES + row_bytes.len() + saved.len());
    if *blake3::hash(before).as_bytes() != seal.hash {
        return Err(Corruption::Hash {
            what: Structure::Journal,
            part: "what is before the seal",
        });
    }
    let marks: Vec<_> = marks
        .chunks_exact(JOURNAL_MARK_BYTES)
        .filter_map(|mark| JournalMark::decode(mark).ok())
        .collect();
    let shown_row = |(id, row): &(ChunkId, JournalRow)| {
        let (kind, number) = match row {
            JournalRow::Block(block) => (0, block.get()),
            JournalRow::Saved(at) => (1, *at),
        };
        json!({ "id": id.to_string(), "kind": kind, "number": number })
    };
    let chunks = saved.chunks_exact(head.block_size.as_usize());
    let fields = json!({
        "delta": Hex(&head.delta).to_string(),
        "disk": [head.disk.0, head.disk.1],
        "block_size_log2": head.block_size.log2(),
        "rows": rows.iter().map(shown_row).collect::<Vec<_>>(),
        "saved": chunks.map(|chunk| ChunkId::of(chunk).to_string()).collect::<Vec<_>>(),
        "done": marks.last().map_or(0, |mark| mark.done),
    });
    let again: Vec<u8> = rows.iter().flat_map(|(id, row)| row.encode(id)).collect();
    let marks: Vec<u8> = marks.iter().flat_map(JournalMark::encode).collect();
    Ok((
        fields,
        [&head.encode()[..], &again, saved, &seal.encode(), &marks].concat(),
    ))
}

#[test]
fn every_whole_vector_decodes_to_its_fields_and_encodes_to_its_bytes() {
    let index = index();
    let whole = list(&index, "vectors").iter().filter_map(|vector| {
        vector
            .get("fields")
            .map(|fields| (text(vector, "file"), vector, fields))
    });
    let mut seen = 0;
    for (file, vector, expected) in whole {
        let bytes = bytes_of(file);
        let (fields, again) =
            read(vector, &bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut expected = expected.clone();
        // What a delta makes of its base takes more than decoding: that is for whoever applies it.
        _ = expected
            .as_object_mut()
            .and_then(|fields| fields.remove("sha256"));
        assert_eq!(fields, expected, "{file}");
        if vector.get("reencodes") != Some(&json!(false)) {
            assert!(again == bytes, "{file} encodes to other bytes");
        }
        seen += 1;
    }
    assert!(seen > 30, "only {seen} vectors");
}

#[test]
fn every_broken_vector_gives_the_error_it_names() {
    let index = index();
    let mut seen = 0;
    for vector in list(&index, "vectors") {
        let Some(expected) = vector.get("error") else {
            continue;
        };
        let file = text(vector, "file");
        let Err(error) = read(vector, &bytes_of(file)) else {
            panic!("{file} decodes");
        };
        let (name, field) = name_of(&error);
        assert_eq!(name, text(expected, "name"), "{file}: {error}");
        if let Some(expected) = expected.get("field") {
            assert_eq!(field, expected.as_str(), "{file}: {error}");
        }
        seen += 1;
    }
    assert!(seen > 80, "only {seen} vectors");
}

#[test]
fn names_are_taken_and_refused_by_the_rule_the_index_names() {
    for case in list(&index(), "names") {
        let name = text(case, "name");
        let broken = match ImageName::parse(name) {
            Ok(parsed) => {
                assert_eq!(parsed.as_str(), name);
                None
            }
            Err(NameError::Empty) => Some("Empty"),
            Err(NameError::TooLong(_)) => Some("TooLong"),
            Err(NameError::Character(_)) => Some("Character"),
            Err(NameError::Edge(_)) => Some("Edge"),
        };
        assert_eq!(broken, case["error"].as_str(), "{name:?}");
    }
}

#[test]
fn digests_are_those_of_the_index() {
    for case in list(&index(), "digests") {
        let mut digester = ImageDigester::new(number(case, "virtual_size"), block_size(case));
        for block in list(case, "blocks") {
            match block.get("zeros").and_then(Value::as_u64) {
                Some(zeros) => digester.push_zeros(zeros),
                None => digester.push_data(&ChunkId::from_bytes(hex(text(block, "data")))),
            }
        }
        let digest = digester.finish().to_string();
        assert_eq!(digest, text(case, "digest"), "{}", text(case, "what"));
    }
}

/// The example store's layer of that id, which must be its file's name.
fn stored_layer(id: LayerId) -> (LayerHeader, BlockSet, BlockSet, Vec<u8>) {
    let bytes = bytes_of(&format!("store/layers/{id}.layer"));
    let header = LayerHeader::decode(&bytes, bytes.len() as u64).expect("a layer");
    let sections = LayerSections::new(header, &bytes).expect("a whole layer");
    sections.verify().expect("a sound layer");
    assert_eq!(header.id(), id);
    let (data, zero) = (sections.data(), sections.zero());
    let ids = sections.ids().to_vec();
    (header, data.expect("a set"), zero.expect("a set"), ids)
}

/// Reads a stack of layers as SPEC 6.2 says, slowly; returns the image's digest and how many blocks hold data.
fn content_of(layer: LayerId) -> (ImageDigest, u64) {
    let mut stack = vec![stored_layer(layer)];
    while let Some(parent) = stack.last().and_then(|(header, ..)| header.summary.parent) {
        stack.push(stored_layer(parent));
    }
    let summary = stack.first().expect("the newest layer").0.summary;
    let mut digester = ImageDigester::new(summary.virtual_size, summary.block_size);
    let mut data_blocks = 0;
    for block in 0..summary.block_size.blocks_in(summary.virtual_size) {
        let index = BlockIndex::new(u32::try_from(block).expect("a block"));
        let id = stack
            .iter()
            .find_map(|(header, data, zero, ids)| {
                let past = block >= summary.block_size.blocks_in(header.summary.virtual_size);
                let position = usize::try_from(data.rank_before(index)).expect("a position");
                match (past || zero.contains(index), data.contains(index)) {
                    (true, _) => Some(None),
                    (_, true) => Some(ids.chunks(32).nth(position)),
                    _ => None,
                }
            })
            .flatten();
        match id {
            None => digester.push_zeros(1),
            Some(id) => {
                let id = id.first_chunk().expect("32 bytes");
                digester.push_data(&ChunkId::from_bytes(*id));
                data_blocks += 1;
            }
        }
    }
    (digester.finish(), data_blocks)
}

#[test]
fn the_example_store_reads_as_its_index_says() {
    let index = index();
    let store = &index["store"];
    let config = StoreConfig::decode(&bytes_of("store/tegula.store")).expect("a configuration");
    assert_eq!(config.id.to_string(), text(store, "id"));
    let copy = StoreConfig::decode(&bytes_of("store/tegula.store.copy"));
    assert_eq!(copy, Ok(config));
    let state = GcState::decode(&bytes_of("store/gc.state")).expect("a collection state");
    for (number, rows) in store["segments"].as_object().expect("segments") {
        let number = SegmentNumber::new(number.parse().expect("a number"));
        assert!(number.get() > state.segment_floor);
        let bytes = bytes_of(&format!("store/segments/{number}.seg"));
        let header = SegmentHeader::decode(&bytes).expect("a header");
        assert_eq!((header.store, header.number), (config.id, number));
        let (fields, again) = segment(&bytes).expect("a sealed segment");
        assert_eq!(&fields["rows"], rows);
        assert!(again == bytes);
    }
    for expected in list(store, "images") {
        let name = text(expected, "name");
        let record = ImageRecord::decode(&bytes_of(&format!("store/images/{name}.image")))
            .expect("an image record");
        assert_eq!(record.name.as_str(), name);
        assert_eq!(record.digest.to_string(), text(expected, "digest"));
        let content = (record.digest, record.data_blocks);
        assert_eq!(content_of(record.layer), content, "{name}");
        assert_eq!(record.virtual_size, number(expected, "virtual_size"));
        assert_eq!(record.data_blocks, number(expected, "data_blocks"));
    }
}
