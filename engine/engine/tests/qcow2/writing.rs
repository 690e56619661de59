//! Images written as qcow2, whole and as overlays: what qemu-img says of them, and what comes back.

use crate::support::{World, data_of, length_of, name, noise, text};
use proptest::prelude::*;
use std::ops::Range;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::disk_formats::qcow2::{
    BackingName, ClusterSize, Compression, Qcow2, Qcow2Options, Qcow2WriteError,
};
use tegula_engine::{
    BlockSize, BlockSource, Content, Destination, EngineError, GetReport, RawDisk, Task,
};

const MIB: u64 = 1 << 20;
const KINDS: [Option<Compression>; 3] = [None, Some(Compression::Deflate), Some(Compression::Zstd)];

fn options(cluster_bytes: u64, compression: Option<Compression>) -> Qcow2Options<'static> {
    Qcow2Options {
        cluster_size: ClusterSize::from_bytes(cluster_bytes).unwrap(),
        compression,
        backing: None,
    }
}

fn get(
    world: &World,
    image: &str,
    base: Option<&str>,
    file: &str,
    options: &Qcow2Options<'_>,
) -> Result<GetReport, EngineError> {
    let path = world.path(file);
    let to = Destination::File {
        path: &path,
        force: true,
    };
    let base = base.map(name);
    world
        .engine
        .get_qcow2(&name(image), base.as_ref(), to, options, Task::unattended())
}

/// Checks a whole file with qemu-img, and that it comes back as the image it was made of.
#[track_caller]
fn is_whole_and_sound(world: &World, image: &str, file: &str, raw: &str, what: &str) {
    world.qemu_img(&["check", "-q", "-f", "qcow2", file]);
    world.qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", raw, file]);
    world.extents_are_as_qemu_maps(file);
    let digest = world.put(file, None);
    assert_eq!(
        digest,
        world.engine.show(&name(image)).unwrap().record.digest,
        "{what}"
    );
}

#[test]
fn an_image_written_as_qcow2_is_sound_and_comes_back() {
    for block_bytes in [4096, 65_536, MIB] {
        let world = World::with_blocks(BlockSize::from_bytes(block_bytes).unwrap());
        let disks = [
            ("nothing", 0, vec![]),
            ("sector", 512, vec![(0, noise(1, 512))]),
            ("empty", 100 * MIB, vec![]),
            (
                "sparse",
                70 * MIB + 512,
                vec![
                    (4096, noise(2, 512)),
                    (MIB - 512, noise(3, 70_000)),
                    (2 * MIB, text(4, 700_000)),
                    (40 * MIB, vec![0xff; 4096]),
                    (70 * MIB, noise(5, 512)),
                ],
            ),
            (
                "full",
                2 * MIB + 1536,
                vec![(0, noise(6, 1 << 20)), (MIB, text(7, (1 << 20) + 1536))],
            ),
        ];
        for (disk, bytes, pieces) in disks {
            world.disk(disk, bytes, &pieces);
            world.put_raw(disk);
            for cluster in [512, 4096, 65_536, 2 * MIB] {
                for compression in KINDS {
                    let what = format!(
                        "{disk}, blocks of {block_bytes}, clusters of {cluster}, {compression:?}"
                    );
                    let report = get(
                        &world,
                        disk,
                        None,
                        "w.qcow2",
                        &options(cluster, compression),
                    )
                    .unwrap();
                    assert_eq!(report.virtual_size, bytes);
                    is_whole_and_sound(&world, disk, "w.qcow2", disk, &what);
                }
            }
        }
    }
}

#[test]
fn compression_makes_files_smaller_and_qemu_reads_them() {
    let world = World::new();
    world.disk("text", 8 * MIB, &[(0, text(1, 8 << 20))]);
    world.put_raw("text");
    let mut lengths = Vec::new();
    for compression in KINDS {
        get(
            &world,
            "text",
            None,
            "c.qcow2",
            &options(65_536, compression),
        )
        .unwrap();
        lengths.push(length_of(&world.path("c.qcow2")));
        is_whole_and_sound(&world, "text", "c.qcow2", "text", "text");
    }
    assert!(
        lengths[1] < lengths[0] / 10 && lengths[2] < lengths[0] / 10,
        "{lengths:?}"
    );
}

#[test]
fn a_file_written_in_order_is_the_one_written_in_any_order() {
    let world = World::with_blocks(BlockSize::MIN);
    world.disk(
        "d",
        9 * MIB + 512,
        &[
            (0, noise(1, 100_000)),
            (5 * MIB, text(2, 100_000)),
            (9 * MIB, noise(3, 512)),
        ],
    );
    world.put_raw("d");
    for cluster in [512, 65_536, 2 * MIB] {
        let options = options(cluster, None);
        get(&world, "d", None, "file.qcow2", &options).unwrap();
        let mut streamed = Vec::new();
        let to = Destination::Stream(&mut streamed);
        world
            .engine
            .get_qcow2(&name("d"), None, to, &options, Task::unattended())
            .unwrap();
        assert!(
            std::fs::read(world.path("file.qcow2")).unwrap() == streamed,
            "{cluster}"
        );
    }
}

#[test]
fn a_disk_that_is_not_whole_sectors_is_filled_with_zeros() {
    let world = World::new();
    world.disk("odd", 100_001, &[(0, noise(1, 100_001))]);
    world.put_raw("odd");
    let mut bytes = noise(1, 100_001);
    bytes.resize(100_352, 0);
    world.disk("even", 100_352, &[(0, bytes)]);
    let even = world.put_raw("even");
    for compression in KINDS {
        get(
            &world,
            "odd",
            None,
            "odd.qcow2",
            &options(65_536, compression),
        )
        .unwrap();
        world.qemu_img(&["check", "-q", "odd.qcow2"]);
        world.qemu_img(&["compare", "-q", "odd", "odd.qcow2"]);
        assert_eq!(world.put("odd.qcow2", None), even);
    }
}

#[test]
fn a_disk_of_64_tib_is_written_by_what_is_in_it() {
    let world = World::new();
    world.disk("huge", 1 << 30, &[(0, noise(1, 4096))]);
    world.qemu_img(&["create", "-q", "-f", "qcow2", "huge.qcow2", "64T"]);
    world.qemu_io(
        "huge.qcow2",
        &[
            "write -P 1 0 64k",
            "write -P 2 35T 1M",
            "write -P 3 70368744112128 64k",
        ],
    );
    let digest = world.put("huge.qcow2", None);
    for compression in KINDS {
        get(
            &world,
            "huge.qcow2",
            None,
            "again.qcow2",
            &options(65_536, compression),
        )
        .unwrap();
        assert!(length_of(&world.path("again.qcow2")) < 8 * MIB);
        world.qemu_img(&["check", "-q", "again.qcow2"]);
        assert_eq!(world.put("again.qcow2", None), digest);
    }
    let too_small = get(&world, "huge.qcow2", None, "no.qcow2", &options(512, None)).unwrap_err();
    assert!(
        matches!(
            too_small,
            EngineError::Qcow2Write(Qcow2WriteError::TooLarge { .. })
        ),
        "{too_small}"
    );
    assert!(!world.path("no.qcow2").exists());
}

/// Ranges of a file's disk that are not the backing file's.
fn own_ranges(world: &World, file: &str) -> Vec<Range<u64>> {
    let source = RawDisk::open(&world.path(file)).unwrap();
    let disk = Qcow2::open(&source).unwrap().disk();
    let (mut own, mut at) = (Vec::new(), 0);
    while let Some(extent) = disk.next_extent(at).unwrap() {
        if extent.content == Content::Inherited {
            if at < extent.range.start {
                own.push(at..extent.range.start);
            }
            at = extent.range.end;
        } else {
            own.push(at.min(extent.range.start)..extent.range.end);
            at = extent.range.end;
        }
    }
    if at < disk.bytes() {
        own.push(at..disk.bytes());
    }
    own
}

#[test]
fn an_overlay_holds_what_differs_and_is_the_image_over_its_base() {
    for block_bytes in [4096, 65_536, MIB] {
        let world = World::with_blocks(BlockSize::from_bytes(block_bytes).unwrap());
        world.disk(
            "base",
            6 * MIB + 1024,
            &[(0, noise(1, 4 << 20)), (6 * MIB, noise(2, 1024))],
        );
        world.put_raw("base");
        let change = |pieces: Vec<(u64, Vec<u8>)>| {
            let mut all = vec![(0, noise(1, 4 << 20)), (6 * MIB, noise(2, 1024))];
            all.extend(pieces);
            all
        };
        let images = [
            ("same", 6 * MIB + 1024, change(vec![])),
            (
                "changed",
                6 * MIB + 1024,
                change(vec![
                    (MIB + 5, noise(3, 100)),
                    (2 * MIB, vec![0; 1 << 19]),
                    (5 * MIB, noise(4, 70_000)),
                ]),
            ),
            (
                "shorter",
                3 * MIB + 512,
                change(vec![(0, vec![0; 100_000])]),
            ),
            (
                "longer",
                20 * MIB,
                change(vec![
                    (15 * MIB, noise(5, 4096)),
                    (3 * MIB, vec![0; 1 << 20]),
                ]),
            ),
            ("zeros", 8 * MIB, vec![]),
            ("unlike", 7 * MIB, vec![(0, noise(9, 7 << 20))]),
        ];
        for (image, bytes, pieces) in images {
            world.disk(image, bytes, &pieces);
            let digest = world.put_raw(image);
            for cluster in [512, 65_536, 2 * MIB] {
                for compression in KINDS {
                    let what = format!(
                        "{image}, blocks of {block_bytes}, clusters of {cluster}, {compression:?}"
                    );
                    let backing = BackingName {
                        name: "base",
                        format: DiskFormat::Raw,
                    };
                    let options = Qcow2Options {
                        backing: Some(backing),
                        ..options(cluster, compression)
                    };
                    get(&world, image, Some("base"), "o.qcow2", &options).unwrap();
                    world.qemu_img(&["check", "-q", "-f", "qcow2", "o.qcow2"]);
                    world.qemu_img(&[
                        "compare", "-q", "-f", "raw", "-F", "qcow2", image, "o.qcow2",
                    ]);
                    world.extents_are_as_qemu_maps("o.qcow2");
                    assert_eq!(world.put("o.qcow2", Some("base")), digest, "{what}");
                    match image {
                        "same" => assert_eq!(own_ranges(&world, "o.qcow2"), [], "{what}"),
                        "zeros" => assert_eq!(data_of_file(&world, "o.qcow2"), [], "{what}"),
                        "changed" => assert!(
                            data_of_file(&world, "o.qcow2")
                                .iter()
                                .map(|range| range.end - range.start)
                                .sum::<u64>()
                                <= 6 * MIB
                        ),
                        _ => {}
                    }
                }
            }
        }
    }
}

fn data_of_file(world: &World, file: &str) -> Vec<Range<u64>> {
    let source = RawDisk::open(&world.path(file)).unwrap();
    data_of(&Qcow2::open(&source).unwrap().disk())
}

#[test]
fn an_overlay_names_its_backing_file_and_format() {
    let world = World::new();
    world.disk("d", MIB, &[(0, noise(1, 4096))]);
    world.put_raw("d");
    let long = "b".repeat(1023);
    for (backing, format, cluster) in [
        ("base.raw", DiskFormat::Raw, 512),
        ("dir/näme.qcow2", DiskFormat::Qcow2, 65_536),
        (&long, DiskFormat::Raw, 4096),
    ] {
        let options = Qcow2Options {
            backing: Some(BackingName {
                name: backing,
                format,
            }),
            ..options(cluster, None)
        };
        get(&world, "d", Some("d"), "o.qcow2", &options).unwrap();
        let info = world.qemu_img(&["info", "--output=json", "-f", "qcow2", "o.qcow2"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["backing-filename"], backing);
        assert_eq!(info["backing-filename-format"], format.to_string());
    }
    for backing in ["", &long, &"b".repeat(400)] {
        let options = Qcow2Options {
            backing: Some(BackingName {
                name: backing,
                format: DiskFormat::Raw,
            }),
            ..options(512, None)
        };
        let error = get(&world, "d", Some("d"), "no.qcow2", &options).unwrap_err();
        assert!(
            matches!(
                error,
                EngineError::Qcow2Write(Qcow2WriteError::BackingName { .. })
            ),
            "{error}"
        );
    }
}

#[test]
fn what_cannot_take_a_qcow2_file_is_refused() {
    let world = World::new();
    world.disk("d", MIB, &[(0, noise(1, 4096))]);
    world.put_raw("d");
    let path = world.path("d");
    let compressed = options(65_536, Some(Compression::Deflate));
    let mut streamed = Vec::new();
    let refused = |to: Destination<'_>| {
        let got = world
            .engine
            .get_qcow2(&name("d"), None, to, &compressed, Task::unattended());
        match got.unwrap_err() {
            EngineError::Qcow2Write(error) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(
        refused(Destination::Stream(&mut streamed)),
        Qcow2WriteError::NotInOrder
    ));
    assert!(matches!(
        refused(Destination::InPlace { path: &path }),
        Qcow2WriteError::NotInPlace { .. }
    ));
    assert!(streamed.is_empty());
    let to = Destination::File {
        path: &path,
        force: false,
    };
    let got = world
        .engine
        .get_qcow2(&name("d"), None, to, &compressed, Task::unattended());
    assert!(matches!(
        got.unwrap_err(),
        EngineError::DestinationExists { .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_disk_comes_back_from_any_qcow2(
        pieces in prop::collection::vec((0..3_000_000_u64, 1..200_000_usize, any::<bool>(), 0..9_u64), 0..8),
        sectors in 0..6000_u64,
        block_log2 in 12..18_u8,
        cluster_log2 in 9..22_u32,
        kind in 0..3_usize,
        change in prop::collection::vec((0..3_000_000_u64, 1..100_000_usize), 0..4),
        other_sectors in 0..6000_u64,
    ) {
        let world = World::with_blocks(BlockSize::from_log2(block_log2).unwrap());
        let mut all: Vec<_> = pieces
            .iter()
            .map(|(at, length, compresses, seed)| {
                (*at, if *compresses { text(*seed, *length) } else { noise(*seed, *length) })
            })
            .collect();
        let within = |bytes: u64, pieces: &[(u64, Vec<u8>)]| {
            pieces.iter().filter(|(at, _)| *at < bytes).cloned().collect::<Vec<_>>()
        };
        let bytes = sectors * 512;
        world.disk("one", bytes, &within(bytes, &all));
        let one = world.put_raw("one");
        let options = options(1 << cluster_log2, KINDS[kind]);
        get(&world, "one", None, "one.qcow2", &options).unwrap();
        prop_assert_eq!(world.put("one.qcow2", None), one);

        let bytes = other_sectors * 512;
        all.extend(change.iter().map(|(at, length)| (*at, vec![u8::try_from(at % 2).unwrap(); *length])));
        world.disk("two", bytes, &within(bytes, &all));
        let two = world.put_raw("two");
        let backing = Some(BackingName { name: "one", format: DiskFormat::Raw });
        get(&world, "two", Some("one"), "two.qcow2", &Qcow2Options { backing, ..options }).unwrap();
        prop_assert_eq!(world.put("two.qcow2", Some("one")), two);
    }
}
