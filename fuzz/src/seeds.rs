//! What every target starts from: valid inputs made by the real encoders, and some that nearly are.

use crate::world::{self, BLOCK, WORLD};
use tegula_engine::{DeltaDestination, RbdNames, RbdVersion, Recompress, Task};
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, Feature, GcState, IdPrefix, ImageDigest, ImageName,
    ImageRecord, IngestId, JournalHead, JournalMark, JournalRow, JournalSeal, LayerId, LayerIds,
    LayerParts, ParentReference, Place, QuarantineList, RecordId, RunRow, SegmentHeader,
    SegmentNumber, SketchRow, Slot, StoreConfig, StoreId, Toc, encode_record, encode_run,
    encode_sketch_run,
};
use tegula_store::{compress, compress_with_bases};

/// Store configurations.
pub fn store_config() -> Vec<Vec<u8>> {
    let config = |log2, zstd_level, prefix_frames| StoreConfig {
        id: StoreId::from_bytes([7; 16]),
        block_size: BlockSize::from_log2(log2).unwrap(),
        zstd_level,
        prefix_frames,
        has_copy: prefix_frames,
        created_at_us: -1,
    };
    let mut seeds: Vec<_> = [(12, 1, false), (16, -7, true), (22, 19, false)]
        .map(|(log2, level, prefix_frames)| config(log2, level, prefix_frames).encode())
        .to_vec();
    with_a_later_version(&mut seeds);
    seeds
}

/// Collection states.
pub fn gc_state() -> Vec<Vec<u8>> {
    let state = |epoch, segments: &[u32], layers: &[u8]| GcState {
        epoch,
        segment_floor: 3,
        condemned_segments: segments.iter().copied().map(SegmentNumber::new).collect(),
        condemned_layers: layers
            .iter()
            .map(|byte| LayerId::from_bytes([*byte; 32]))
            .collect(),
    };
    let mut seeds = vec![
        state(0, &[], &[]).encode(),
        state(1, &[1, 2, u32::MAX], &[1, 255]).encode(),
        state(u64::MAX, &[], &[9]).encode(),
    ];
    with_a_later_version(&mut seeds);
    seeds
}

/// Hints of what was changed, a form each, and one that says too much.
pub fn hint() -> Vec<Vec<u8>> {
    let digest = "5".repeat(64);
    let object = format!(
        r#"{{"base_digest": "{digest}", "base_size": 1048576, "size": 1048576, "extents": [{{"offset": 4096, "length": 8192, "type": "data"}}]}}"#
    );
    [
        object.as_str(),
        r#"[{"start": 0, "length": 4096, "dirty": true}, {"start": 4096, "length": 1044480, "dirty": false}]"#,
        r#"[{"offset": 0, "length": 65536, "type": 1, "description": "dirty"}, {"offset": 65536, "length": 983040, "type": 0, "description": "clean"}]"#,
        r#"[{"start": 0, "length": 1048576, "depth": 1, "present": true, "zero": false, "data": true, "offset": 327680}]"#,
        r#"[{"offset": 0, "length": 4194304, "exists": "true"}, {"offset": 512, "length": 512, "exists": false}]"#,
        r#"<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="9"><diff left="1" right="2"><same begin="0" length="2"/><different begin="2" length="3"/><left_only begin="7" length="1"/></diff></superblock>"#,
        r#"<?xml version="1.0"?><superblock data_block_size="8"><diff><right_only><range begin="1" length="2"/></right_only></diff></superblock>"#,
        r#"{"extents": [[[[]]], {}, 1, -1, 1e400, "x", null, {"offset": 18446744073709551615, "length": 18446744073709551615}]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Policies: the default one, an operator's, and some that are refused.
pub fn policy() -> Vec<Vec<u8>> {
    let defaults: String = tegula_domain::policy::Rule::ALL
        .iter()
        .map(|rule| format!("{}: {}\n", rule.name(), rule.default_text()))
        .collect();
    [
        defaults.as_str(),
        "a: role:x and (not rule:b or 'it\\'s':%(name)s-%(size)s%%)\nb: NOT (@ Or !)\nget_image: \n",
        "a: True:%(protected)s or None:%(owner)s or -17:%(size)s or \"q\":%(q)s or is_admin:False or system_scope:all",
        "a: rule:b\nb: rule:c or rule:c\nc: rule:d and rule:d\nd: user_id:%(user)s\n",
        "a: rule:b\nb: rule:a\n",
        "a: ((((((((((not not not not not @\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Property protection files, one of roles, one of rules of the policy, and some that are refused.
pub fn protection() -> Vec<Vec<u8>> {
    [
        "# roles\n[^x_(ro|rw)_.*$]\ncreate = admin,\n  Billing\nread: @\nupdate=!\ndelete =\n\n[hw[:_]\\w{1,3}?]\ncreate=member\nread=member\nupdate=member\ndelete=member\n",
        "[.*]\ncreate = context_is_admin\nread = @\nupdate = default\ndelete = !\n",
        "[(?i)^[]^\\W-]+\\Z|a{,2}{|\\<b\\>] ; both\nCREATE=@\nREAD=@\nUPDATE=@\nDELETE=@\n# xyz -- a{ <b>\n",
        "[((a{99}){99}){99}]\ncreate=@\nread=@\nupdate=@\ndelete=@\n",
        "[(?=a)]\n[\\1]\n[[[]\n[a++]\n[os_glance]\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Quarantine lists.
pub fn quarantine() -> Vec<Vec<u8>> {
    let list = |ordinals: &[u64]| QuarantineList {
        places: ordinals
            .iter()
            .map(|ordinal| Place::from_ordinal(*ordinal).unwrap())
            .collect(),
    };
    vec![
        list(&[]).encode(),
        list(&[0, 1, 0x1_0000, 0xffff_ffff_ffff]).encode(),
    ]
}

/// Image records.
pub fn image_record() -> Vec<Vec<u8>> {
    let full = ImageRecord {
        id: RecordId::from_bytes([1; 16]),
        name: world::name("roof (draft) 7"),
        virtual_size: 10 * BLOCK as u64 - 1,
        block_size: BlockSize::MIN,
        digest: ImageDigest::from_bytes([2; 32]),
        layer: LayerId::from_bytes([3; 32]),
        parent: None,
        supersedes: None,
        data_blocks: 10,
        created_at_us: 1_800_000_000_000_000,
    };
    let child = ImageRecord {
        name: ImageName::parse("Dächer/2".replace('/', " ").as_str()).unwrap(),
        parent: Some(ParentReference {
            name: world::name("roof"),
            digest: ImageDigest::from_bytes([4; 32]),
        }),
        supersedes: Some(RecordId::from_bytes([5; 16])),
        ..full.clone()
    };
    let mut seeds = vec![full.encode(), child.encode()];
    with_a_later_version(&mut seeds);
    seeds
}

/// Names, good and bad.
pub fn image_name() -> Vec<Vec<u8>> {
    let long = "n".repeat(201);
    let names = [
        "roof",
        "Dächer 2.0",
        "a/b",
        ".hidden",
        "-v",
        " x",
        "x ",
        "\u{202e}txt",
        "\u{0}",
        "..",
        "\u{feff}",
        "x\u{2066}",
        &long,
    ];
    let mut seeds: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    seeds.push(vec![0xff, 0xfe, b'x']);
    seeds.push(Vec::new());
    seeds
}

/// A structure of each kind.
pub fn envelope() -> Vec<Vec<u8>> {
    let kinds = [
        store_config,
        gc_state,
        quarantine,
        image_record,
        segment_header,
        run,
        sketch_run,
        layer,
    ];
    kinds
        .iter()
        .filter_map(|seeds| seeds().into_iter().next())
        .collect()
}

/// Sets of blocks in every form a serialized bitmap has.
pub fn block_set() -> Vec<Vec<u8>> {
    let few: BlockSet = [0, 5, 65_535, 65_536, u32::MAX]
        .map(BlockIndex::new)
        .into_iter()
        .collect();
    let every_other: BlockSet = (0..20_000).step_by(2).map(BlockIndex::new).collect();
    let mut runs = BlockSet::new();
    runs.insert_range(3..70_000);
    runs.insert_range(200_000..200_001);
    let mut all = BlockSet::new();
    all.insert_range(0..1 << 32);
    // The whole range in runs is half a mebibyte: a seed need not be.
    all.truncate(5 << 16);
    [BlockSet::new(), few, every_other, runs, all]
        .map(|set| set.encode())
        .to_vec()
}

/// Heads of segments.
pub fn segment_header() -> Vec<Vec<u8>> {
    let header = SegmentHeader {
        store: StoreId::from_bytes([7; 16]),
        number: SegmentNumber::new(3),
        block_size: BlockSize::MIN,
        ingest: IngestId::from_bytes([8; 16]),
    };
    let mut seeds = vec![header.encode(), [header.encode(), vec![1, 2, 3]].concat()];
    with_a_later_version(&mut seeds);
    seeds
}

/// Whole segments, short of their records' payload.
pub fn segment_table() -> Vec<Vec<u8>> {
    let header = &segment_header()[0];
    let mut sealed = header.clone();
    let mut toc = Toc::new();
    for kind in [10, 11, 12] {
        let block = world::block(kind);
        let chunk = compress(ChunkId::of(&block), &block, 1);
        let offset = u32::try_from(sealed.len()).unwrap();
        toc.push(
            chunk.id,
            offset,
            chunk.stored_length,
            chunk.codec,
            &chunk.bases,
        );
        sealed.extend_from_slice(&chunk.record);
    }
    let seal = |mut bytes: Vec<u8>, toc: &Toc| {
        let end = u32::try_from(bytes.len()).unwrap();
        bytes.extend_from_slice(&toc.encode(end, BlockSize::MIN));
        bytes
    };
    vec![seal(sealed, &toc), seal(header.clone(), &Toc::new())]
}

/// Chunk records of both codecs, and a frame that is not a block.
pub fn record() -> Vec<Vec<u8>> {
    let record = |block: &[u8]| {
        let chunk = compress(ChunkId::of(block), block, 1);
        chunk.record.to_vec()
    };
    let framed = |count: usize| {
        let bases = [20, 21].map(world::block);
        let bases = bases.each_ref().map(|base| (ChunkId::of(base), &base[..]));
        let block = [
            &bases[0].1[..BLOCK / 2],
            &bases[count - 1].1[BLOCK / 2 - 9..BLOCK - 9],
        ]
        .concat();
        let chunk = compress_with_bases(ChunkId::of(&block), &block, &bases[..count], 1, 4096);
        chunk.unwrap().record.to_vec()
    };
    // A frame of another length under a header that does not say so.
    let short = record(&[3; 2048]);
    let mut lying = short.clone();
    lying[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    let mut wrong = Vec::new();
    encode_record(
        &mut wrong,
        &ChunkId::of(b"another"),
        tegula_format::Codec::Raw,
        &tegula_format::Bases::NONE,
        &[1; BLOCK],
        4096,
    );
    wrong.truncate(600);
    vec![
        record(&world::block(12)),
        record(&world::block(1)),
        record(&world::disk(&[12, 1], BLOCK / 2)[BLOCK / 2..]),
        lying,
        wrong,
        framed(1),
        framed(2),
    ]
}

/// Index runs.
pub fn run() -> Vec<Vec<u8>> {
    let mut rows: Vec<RunRow> = (0..20_u32)
        .map(|n| RunRow {
            id: ChunkId::of(&(n / 2).to_le_bytes()),
            place: Place {
                segment: SegmentNumber::new(n % 3 + 1),
                slot: Slot::new(u16::try_from(n).unwrap()),
            },
            offset: 73 + n * 100,
            stored_length: 48,
            bases: u8::try_from(n % 3).unwrap(),
        })
        .collect();
    rows.sort_unstable();
    let segments = || (1..=3).map(SegmentNumber::new);
    vec![
        encode_run(&rows, segments()),
        encode_run(&rows[..1], [rows[0].place.segment]),
        encode_run(&[], segments()),
    ]
}

/// Sketch runs.
pub fn sketch_run() -> Vec<Vec<u8>> {
    let row = |n: u32| SketchRow {
        feature: Feature::new((n / 2).wrapping_mul(0x9e37_79b9)),
        chunk: IdPrefix::of(&ChunkId::of(&n.to_le_bytes())),
    };
    let mut rows: Vec<_> = (0..20).map(row).collect();
    rows.sort_unstable();
    vec![
        encode_sketch_run(&rows),
        encode_sketch_run(&rows[..1]),
        encode_sketch_run(&[]),
    ]
}

/// Layers: empty, full, child.
pub fn layer() -> Vec<Vec<u8>> {
    let encode = |virtual_size, parent, data: &BlockSet, zero: &BlockSet| {
        let ids: Vec<u8> = (0..data.len())
            .flat_map(|n| *ChunkId::of(&n.to_le_bytes()).as_bytes())
            .collect();
        let (_, head) = LayerParts {
            ingest: IngestId::from_bytes([8; 16]),
            block_size: BlockSize::MIN,
            virtual_size,
            parent,
            data,
            zero,
            differs: parent.is_some(),
        }
        .begin_head()
        .finish(&LayerIds::of(&ids));
        [head, ids].concat()
    };
    let (none, mut data, mut zero) = (BlockSet::new(), BlockSet::new(), BlockSet::new());
    data.insert_range(0..5);
    data.insert_range(8..9);
    zero.insert_range(5..8);
    let parent = Some((LayerId::from_bytes([3; 32]), 4));
    vec![
        encode(0, None, &none, &none),
        encode(9 * BLOCK as u64 - 5, None, &data, &none),
        encode(12 * BLOCK as u64, parent, &data, &zero),
        encode(1 << 44, parent, &none, &none),
    ]
}

/// Unsealed segments of the sound store: whole, torn, another store's, with records it has and has not.
pub fn abandoned_segment() -> Vec<Vec<u8>> {
    let segment = WORLD
        .files
        .iter()
        .find(|(path, _)| path.starts_with("segments/"));
    let head = segment.unwrap().1[..73].to_vec();
    let record = |kind| {
        let block = world::block(kind);
        compress(ChunkId::of(&block), &block, 1).record.to_vec()
    };
    let whole = [head.clone(), record(13), record(10), record(14)].concat();
    let mut torn = whole.clone();
    torn.truncate(whole.len() - 10);
    let mut holed = whole.clone();
    holed[130..140].fill(0);
    let twice = [head.clone(), record(13), record(13)].concat();
    let foreign = [segment_header()[0].clone(), record(13)].concat();
    // Frames: over a chunk that the store has, over one that stands before them, over one that is nowhere.
    let framed = |kind, base| {
        let (block, base) = (world::block(kind), world::block(base));
        let bases = [(ChunkId::of(&base), &base[..])];
        let framed = compress_with_bases(ChunkId::of(&block), &block, &bases, 1, u32::MAX);
        framed.unwrap().record.to_vec()
    };
    let on_stored = [head.clone(), framed(13, 10), framed(14, 12)].concat();
    let on_each_other = [head.clone(), record(13), framed(14, 13), framed(15, 14)].concat();
    let on_later = [head.clone(), framed(14, 13), record(13)].concat();
    let on_nothing = [head.clone(), framed(14, 15)].concat();
    let mut cut = on_each_other.clone();
    cut.truncate(cut.len() - 3);
    vec![
        whole,
        torn,
        holed,
        twice,
        foreign,
        head,
        Vec::new(),
        on_stored,
        on_each_other,
        on_later,
        on_nothing,
        cut,
    ]
}

/// Deltas between the images of the sound store, all of an image, one for an absent base, and some that are cut.
pub fn delta() -> Vec<Vec<u8>> {
    let (_, engine) = world::open(&WORLD.files).unwrap();
    let absent = world::name("absent");
    world::put(&engine, &absent, &world::disk(&[11, 12, 1], 0), None, false).unwrap();
    let create = |from: Option<&str>, to: &str, recompress| {
        let mut bytes = Vec::new();
        let (from, out) = (from.map(world::name), DeltaDestination::Stream(&mut bytes));
        let (to, task) = (world::name(to), Task::unattended());
        engine
            .create_delta(from.as_ref(), &to, recompress, out, task)
            .unwrap();
        bytes
    };
    let mut seeds = vec![
        create(Some("parent"), "child", Recompress::Needed),
        create(Some("child"), "parent", Recompress::SameBlock),
        create(None, "other", Recompress::Needed),
        create(Some("absent"), "other", Recompress::SameBlock),
    ];
    let cut = seeds[0].len() - 70;
    seeds.push(seeds[0][..cut].to_vec());
    seeds
}

/// Ceph's differences, a byte of choice before each: what the engine writes of the images of the sound store, and some by hand.
pub fn rbd() -> Vec<Vec<u8>> {
    let (_, engine) = world::open(&WORLD.files).unwrap();
    let create = |from: Option<&str>, version, choice: u8| {
        let mut bytes = vec![choice];
        let (from, to) = (from.map(world::name), world::name("child"));
        let names = RbdNames {
            from: None,
            to: Some("now"),
        };
        let out = DeltaDestination::Stream(&mut bytes);
        let task = Task::unattended();
        engine
            .create_rbd(from.as_ref(), &to, (version, names), out, task)
            .unwrap();
        bytes
    };
    let mut seeds = vec![
        create(Some("parent"), RbdVersion::V1, 2),
        create(Some("parent"), RbdVersion::V2, 3),
        create(None, RbdVersion::V1, 0),
        create(None, RbdVersion::V2, 1),
    ];
    let short = |records: &[&[u8]]| {
        [
            &[2][..],
            b"rbd diff v1\nf\x04\0\0\0thens\0\x20\0\0\0\0\0\0",
            &records.concat(),
        ]
        .concat()
    };
    let range = |tag: u8, offset: u64, length: u64| {
        [&[tag][..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    };
    seeds.extend([
        short(&[
            &range(b'w', 5, 3),
            b"abc",
            &range(b'z', 4095, 2),
            &range(b'w', 8190, 2),
            b"yze",
        ]),
        short(&[b"e"]),
        short(&[&range(b'w', 8190, 3), b"xyze"]),
        short(&[&range(b'w', 0, u64::MAX), b"xe"]),
    ]);
    let cut = seeds[0].len() - 70;
    seeds.push(seeds[0][..cut].to_vec());
    seeds
}

/// Journals of the apply in place from parent to child: begun, sealed, with marks, torn. Delta and disk are filled in by the target.
pub fn raw_journal() -> Vec<Vec<u8>> {
    // The chunk of block 3, which becomes zeros, is that of the child's block 5.
    let block = world::block(10);
    let id = ChunkId::of(&block);
    let begun = |rows, saved| {
        JournalHead {
            delta: [0; 32],
            disk: (0, 0),
            block_size: BlockSize::MIN,
            rows,
            saved,
        }
        .encode()
    };
    let sealed = |row: JournalRow, saved: &[u8]| {
        let before = [
            &begun(1, u64::from(!saved.is_empty()))[..],
            &row.encode(&id),
            saved,
        ]
        .concat();
        let seal = JournalSeal {
            hash: *blake3::hash(&before).as_bytes(),
        };
        [before, seal.encode().to_vec()].concat()
    };
    let mark = |done| JournalMark { done }.encode().to_vec();
    let saved = sealed(JournalRow::Saved(0), &block);
    let first = [saved.clone(), mark(0), mark(1)].concat();
    let torn = [first.clone(), mark(2)[..9].to_vec()].concat();
    let all = [saved.clone(), mark(1 << 20)].concat();
    let there = sealed(JournalRow::Block(BlockIndex::new(3)), &[]);
    let past = sealed(JournalRow::Block(BlockIndex::new(u32::MAX)), &[]);
    vec![
        begun(1, 1),
        saved,
        first,
        torn,
        all,
        there,
        past,
        Vec::new(),
    ]
}

/// Choices of a file and what becomes of it.
pub fn store_file() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, (path, bytes)) in (0..).zip(&WORLD.files) {
        // The file as it is; changed blindly; changed and resealed; cut.
        let edits = [&[at, 2][..], &[40, 0, 1]].concat();
        let resealed = [&[at, 3][..], &[60, 0, 1], &[100, 0, 0x80]].concat();
        let cut = [at, 2, 7];
        seeds.extend([edits, resealed, cut.to_vec()]);
        if !path.starts_with("segments/") {
            seeds.push([&[at, 0][..], bytes].concat());
        }
    }
    // States and lists that are well-formed and tell what cannot be.
    let at = |wanted| {
        let at = WORLD.files.keys().position(|path| path == wanted);
        u8::try_from(at.unwrap_or(WORLD.files.len())).unwrap()
    };
    seeds.extend(
        gc_state()
            .iter()
            .map(|state| [&[at("gc.state"), 0][..], state].concat()),
    );
    let lists = quarantine();
    seeds.extend(
        lists
            .iter()
            .map(|list| [&[at("quarantine/places"), 0][..], list].concat()),
    );
    // Each kind of file in another's place.
    let files: Vec<_> = WORLD
        .files
        .values()
        .filter(|bytes| bytes.len() < 2000)
        .collect();
    for (at, bytes) in (0..).zip(&files) {
        seeds.push([&[at + 1, 1][..], bytes].concat());
    }
    seeds
}

/// Histories.
pub fn model() -> Vec<Vec<u8>> {
    // The numbers are those of `History::step` and of what each step reads.
    let put = |image: u8, kinds: &[u8]| {
        let count = u8::try_from(kinds.len()).unwrap();
        [&[0, image, 0, count], kinds].concat()
    };
    let child = |image: u8, parent: u8, edits: &[[u8; 4]]| {
        let count = u8::try_from(edits.len()).unwrap();
        [&[3, image, parent, 1, count], edits.concat().as_slice()].concat()
    };
    let collect = |min_live: u8| vec![16, min_live, 0];
    let remove = |image: u8| vec![13, image];
    let family = [
        put(0, &[1, 2, 3, 0, 10, 11]),
        child(1, 0, &[[2, 4, 1, 0], [2, 0, 2, 0]]),
        child(2, 1, &[[2, 5, 3, 0]]),
        vec![11, 0, 2],
        vec![17],
        remove(0),
        collect(255),
        vec![15, 2],
        remove(1),
        collect(255),
        vec![18, 0, 0],
        collect(255),
        vec![19],
    ]
    .concat();
    let meanwhile = [
        put(0, &[1, 2, 3, 4]),
        put(1, &[4, 5, 6]),
        // While b is put anew as a child of a, a goes and is collected.
        vec![8, 1, 0, 1, 1, 2, 7, 1, 0, 255],
        vec![9, 2, 1, 0, 4, 4, 5, 6, 1, 0, 255],
        vec![7, 3, 3, 1, 2, 3],
        collect(128),
    ]
    .concat();
    let mut deep = put(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    for step in 0..18 {
        deep.extend(child(0, 0, &[[2, step % 12 + 1, step % 3, 0]]));
    }
    deep.extend(collect(255));
    let names = [
        put(0, &[1]),
        vec![12, 0, 1],
        vec![12, 1, 1],
        put(0, &[1, 2]),
        vec![12, 0, 1],
        vec![10, 1, 1, 0, 255, 2],
        remove(1),
        vec![12, 1, 0],
    ]
    .concat();
    // Blocks that differ in a byte from those before: what collection moves is stored over what else it moves.
    let byte = |block: u8, change: u8| [1, 7, block * 16, change];
    let resembling = [
        put(0, &[1, 2, 3]),
        child(1, 0, &[byte(0, 1), byte(2, 1)]),
        put(4, &[5, 6]),
        child(2, 1, &[byte(0, 2), byte(1, 2)]),
        remove(0),
        collect(255),
        child(3, 2, &[byte(0, 4), byte(1, 4), byte(2, 4)]),
        remove(4),
        vec![16, 255, 4],
        remove(1),
        collect(255),
        vec![19],
        remove(2),
        collect(255),
    ]
    .concat();
    vec![family, meanwhile, deep, names, Vec::new(), resembling]
}

/// Adds the first seed as a later version of the format would begin.
fn with_a_later_version(seeds: &mut Vec<Vec<u8>>) {
    let mut later = seeds[0].clone();
    later[8] = 2;
    seeds.push(later);
    let mut features = seeds[0].clone();
    features[12..24].fill(0xff);
    seeds.push(crate::reseal::whole_envelope(&features));
}

/// qcow2 files of every kind, and hostile ones that get far before they are refused.
pub fn qcow2() -> Vec<Vec<u8>> {
    let valid = crate::qcow2::valid().into_iter().map(|(_, bytes)| bytes);
    let far = [
        "one cluster for the whole disk",
        "bitmap with a huge table",
        "one compressed cluster for all",
    ];
    let hostile = crate::qcow2::hostile().into_iter();
    let hostile = hostile.filter(|hostile| far.contains(&hostile.name));
    valid.chain(hostile.map(|hostile| hostile.bytes)).collect()
}
