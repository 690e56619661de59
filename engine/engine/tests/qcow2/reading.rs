//! The same disk, raw and as qcow2 by every option that qemu-img has.

use crate::support::{World, noise, text};
use tegula_engine::EngineError;
use tegula_engine::disk_formats::DiskFormat;

const MIB: u64 = 1 << 20;

/// What qemu-img is told, and whether clusters are compressed.
fn options() -> Vec<(String, bool)> {
    let mut options = Vec::new();
    for cluster in ["512", "4k", "64k", "2M"] {
        for compat in ["0.10", "1.1"] {
            let option = format!("compat={compat},cluster_size={cluster}");
            options.extend([(option.clone(), false), (option, true)]);
        }
        let option = format!("compression_type=zstd,cluster_size={cluster}");
        options.extend([(option.clone(), false), (option, true)]);
    }
    for cluster in ["16k", "64k", "2M"] {
        let option = format!("extended_l2=on,cluster_size={cluster}");
        options.extend([(option.clone(), false), (option, true)]);
    }
    for option in [
        "extended_l2=on,compression_type=zstd",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
        "preallocation=metadata,extended_l2=on",
    ] {
        options.push((option.to_owned(), false));
    }
    for bits in [1, 2, 4, 8, 16, 32, 64] {
        options.push((format!("refcount_bits={bits}"), false));
    }
    options
}

/// Bytes, each piece at its offset.
type Pieces = Vec<(u64, Vec<u8>)>;

/// Disks of several shapes: what they are, their length, what is in them.
fn disks() -> Vec<(&'static str, u64, Pieces)> {
    vec![
        ("nothing", 0, vec![]),
        ("sector", 512, vec![(0, noise(1, 512))]),
        ("empty", 3 * MIB, vec![]),
        (
            "sparse",
            5 * MIB + 512,
            vec![
                (4096, noise(2, 512)),
                (MIB - 512, noise(3, 70_000)),
                (2 * MIB, text(4, 700_000)),
                (5 * MIB, noise(5, 512)),
            ],
        ),
        (
            "full",
            2 * MIB + 1536,
            vec![(0, noise(6, 1 << 20)), (MIB, text(7, (1 << 20) + 1536))],
        ),
        ("ones", MIB, vec![(0, vec![0xff; 1 << 20])]),
    ]
}

#[test]
fn a_disk_has_the_same_digest_raw_and_in_every_kind_of_qcow2() {
    let world = World::new();
    let mut count = 0;
    for (disk, bytes, pieces) in disks() {
        world.disk(disk, bytes, &pieces);
        let raw = world.put_raw(disk);
        for (options, compressed) in options() {
            let file = format!("{disk}.qcow2");
            let mut convert = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", &options];
            convert.extend(compressed.then_some("-c"));
            convert.extend([disk, &file]);
            world.qemu_img(&convert);
            world.extents_are_as_qemu_maps(&file);
            assert_eq!(
                world.put(&file, None),
                raw,
                "{disk} by {options}, compressed: {compressed}"
            );
            std::fs::remove_file(world.path(&file)).unwrap();
            count += 1;
        }
    }
    println!("soak: {count} files");
}

#[test]
fn what_was_never_written_reads_as_zeros_whatever_was_allocated() {
    let world = World::new();
    let bytes = 10 * MIB;
    world.disk("zeros", bytes, &[]);
    let zeros = world.put_raw("zeros");
    for (options, _) in options() {
        world.qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &options,
            "new.qcow2",
            "10M",
        ]);
        assert_eq!(world.put("new.qcow2", None), zeros, "{options}");
    }
}

#[test]
fn clusters_that_were_written_zeroed_discarded_and_written_again_are_read_as_qemu_does() {
    let world = World::new();
    for options in [
        "compat=0.10",
        "cluster_size=4k",
        "extended_l2=on",
        "cluster_size=2M",
        "lazy_refcounts=on",
    ] {
        world.qemu_img(&[
            "create", "-q", "-f", "qcow2", "-o", options, "w.qcow2", "9M",
        ]);
        let writes = [
            "write -P 1 0 1M",
            "write -P 2 4k 8k",
            "write -z 64k 64k",
            "write -z -u 256k 100k",
            "discard 512k 128k",
            "write -P 3 8M 1000k",
            "write -c -P 4 2M 64k",
            "write -P 5 2080k 1k",
            "write -z 3M 2k",
            "write -P 6 3075k 512",
            "write -P 7 9436672 512",
        ];
        // Compressed writes are of whole clusters.
        let writes: Vec<_> = writes
            .into_iter()
            .filter(|one| !one.contains("-c") || !options.contains("2M"))
            .collect();
        world.qemu_io("w.qcow2", &writes);
        let expected = world.put_as_qemu_reads("w.qcow2", &[]);
        assert_eq!(world.put("w.qcow2", None), expected, "{options}");
    }
}

#[test]
fn a_disk_that_was_made_longer_or_shorter_is_read_to_its_end() {
    let world = World::new();
    world.disk("d", 3 * MIB, &[(0, noise(1, 3 << 20))]);
    for options in [
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
    ] {
        for (size, how) in [
            ("7M", None),
            ("1001k", Some("--shrink")),
            ("512", Some("--shrink")),
        ] {
            world.qemu_img(&["convert", "-O", "qcow2", "-o", options, "d", "r.qcow2"]);
            let mut resize = vec!["resize", "-q"];
            resize.extend(how);
            resize.extend(["r.qcow2", size]);
            world.qemu_img(&resize);
            let expected = world.put_as_qemu_reads("r.qcow2", &[]);
            assert_eq!(world.put("r.qcow2", None), expected, "{options} {size}");
        }
    }
}

#[test]
fn a_disk_of_64_tib_costs_what_is_in_it() {
    let world = World::new();
    for options in [
        "cluster_size=64k",
        "cluster_size=2M",
        "extended_l2=on,cluster_size=128k",
    ] {
        world.qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            options,
            "huge.qcow2",
            "64T",
        ]);
        world.qemu_io(
            "huge.qcow2",
            &[
                "write -P 1 0 64k",
                "write -P 2 35T 1M",
                "write -P 3 70368744112128 64k",
            ],
        );
        let put = world
            .try_put("huge", "huge.qcow2", None, None)
            .unwrap()
            .report;
        assert_eq!(put.record.virtual_size, 64 << 40);
        assert!(put.read_bytes <= 8 * MIB, "{options}: {}", put.read_bytes);
        assert_eq!(put.record.data_blocks, 18);
    }
}

#[test]
fn a_dirty_file_is_read_and_one_marked_as_corrupt_refused() {
    let world = World::new();
    world.disk("d", MIB, &[(0, noise(1, 1 << 20))]);
    let raw = world.put_raw("d");
    world.qemu_img(&[
        "convert",
        "-O",
        "qcow2",
        "-o",
        "lazy_refcounts=on",
        "d",
        "d.qcow2",
    ]);
    set_incompatible(&world, "d.qcow2", 1);
    assert_eq!(world.put("d.qcow2", None), raw);
    set_incompatible(&world, "d.qcow2", 2);
    let error = world.try_put("x", "d.qcow2", None, None).unwrap_err();
    assert!(
        chain(&error).contains("marked as corrupt"),
        "{}",
        chain(&error)
    );
}

/// Sets the last byte of the incompatible features.
fn set_incompatible(world: &World, file: &str, features: u8) {
    let path = world.path(file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[79] = features;
    std::fs::write(&path, bytes).unwrap();
}

fn chain(error: &EngineError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[test]
fn encryption_and_external_data_files_are_refused_by_name() {
    let world = World::new();
    let secret = "secret,id=s,data=abc123";
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    world.qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        secret,
        "-o",
        luks,
        "luks.qcow2",
        "1M",
    ]);
    let aes = "encrypt.format=aes,encrypt.key-secret=s";
    world.qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "--object",
        secret,
        "-o",
        aes,
        "aes.qcow2",
        "1M",
    ]);
    world.qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=data.raw",
        "data.qcow2",
        "1M",
    ]);
    let raw = "data_file=data.raw,data_file_raw=on";
    world.qemu_img(&["create", "-q", "-f", "qcow2", "-o", raw, "raw.qcow2", "1M"]);
    for (file, says) in [
        ("luks.qcow2", "encrypted (LUKS)"),
        ("aes.qcow2", "encrypted (AES)"),
        ("data.qcow2", "another file"),
        ("raw.qcow2", "another file"),
    ] {
        let error = world.try_put("refused", file, None, None).unwrap_err();
        assert!(matches!(error, EngineError::Qcow2 { .. }));
        assert!(chain(&error).contains(says), "{file}: {}", chain(&error));
    }
    assert_eq!(world.engine.list().unwrap(), []);
}

#[test]
fn a_file_is_taken_for_what_it_is_said_to_be() {
    let world = World::new();
    world.disk("d", MIB, &[(0, text(1, 1 << 20))]);
    world.qemu_img(&["convert", "-O", "qcow2", "d", "d.qcow2"]);
    let path = world.path("d.qcow2");
    let request = |format| tegula_engine::PutFile {
        name: crate::support::name("said"),
        path: &path,
        parent: None,
        replace: true,
        format,
        snapshot: None,
    };
    let task = tegula_engine::Task::unattended();
    let put = world
        .engine
        .put_file(request(Some(DiskFormat::Raw)), task)
        .unwrap();
    assert_eq!(
        put.report.record.virtual_size,
        crate::support::length_of(&path)
    );
    let put = world.engine.put_file(request(None), task).unwrap();
    assert_eq!(
        (put.format, put.report.record.virtual_size),
        (DiskFormat::Qcow2, MIB)
    );
    let raw = world.path("d");
    let mut request = request(Some(DiskFormat::Qcow2));
    request.path = &raw;
    let error = world.engine.put_file(request, task).unwrap_err();
    assert!(
        chain(&error).contains("does not begin with"),
        "{}",
        chain(&error)
    );
}
