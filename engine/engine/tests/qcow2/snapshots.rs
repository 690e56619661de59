//! Internal snapshots.

use crate::support::{World, noise};
use tegula_engine::EngineError;
use tegula_engine::RawDisk;
use tegula_engine::disk_formats::qcow2::{Qcow2, Qcow2Error};

const MIB: u64 = 1 << 20;

#[test]
fn every_snapshot_is_the_disk_as_it_was_then() {
    for options in [
        "compat=1.1",
        "compat=0.10",
        "extended_l2=on",
        "cluster_size=512",
    ] {
        let world = World::new();
        world.disk("d", 3 * MIB, &[(0, noise(1, 2 << 20))]);
        world.qemu_img(&["convert", "-O", "qcow2", "-o", options, "d", "s.qcow2"]);
        world.qemu_img(&["snapshot", "-c", "monday", "s.qcow2"]);
        world.qemu_io("s.qcow2", &["write -P 1 0 1M", "write -z 1500k 64k"]);
        world.qemu_img(&["snapshot", "-c", "tuesday", "s.qcow2"]);
        world.qemu_io("s.qcow2", &["write -P 2 2M 1M"]);
        let expected = world.put_as_qemu_reads("s.qcow2", &[]);
        assert_eq!(world.put("s.qcow2", None), expected, "{options}");
        for (id, name) in [("1", "monday"), ("2", "tuesday")] {
            let selected = format!("snapshot.id={id}");
            let expected = world.put_as_qemu_reads("s.qcow2", &["-l", &selected]);
            for wanted in [id, name] {
                let put = world
                    .try_put("snap", "s.qcow2", None, Some(wanted))
                    .unwrap();
                assert_eq!(put.report.record.digest, expected, "{options}, {name}");
            }
        }
        let monday = world.try_put("m", "s.qcow2", None, Some("monday")).unwrap();
        assert_eq!(monday.report.record.digest, world.put_raw("d"));
    }
}

#[test]
fn a_snapshot_has_the_length_of_its_day() {
    let world = World::new();
    world.qemu_img(&["create", "-q", "-f", "qcow2", "s.qcow2", "1M"]);
    world.qemu_io("s.qcow2", &["write -P 1 0 1M"]);
    world.qemu_img(&["snapshot", "-c", "short", "s.qcow2"]);
    world.qemu_img(&["resize", "-q", "s.qcow2", "5M"]);
    world.qemu_io("s.qcow2", &["write -P 2 4M 1M"]);
    let put = world
        .try_put("short", "s.qcow2", None, Some("short"))
        .unwrap();
    assert_eq!(put.report.record.virtual_size, MIB);
    assert_eq!(
        world.put("s.qcow2", None),
        world.put_as_qemu_reads("s.qcow2", &[])
    );
}

#[test]
fn snapshots_are_listed_and_what_is_not_there_or_not_certain_is_refused() {
    let world = World::new();
    world.qemu_img(&["create", "-q", "-f", "qcow2", "s.qcow2", "1M"]);
    for name in ["same", "same", "other"] {
        world.qemu_img(&["snapshot", "-c", name, "s.qcow2"]);
    }
    let file = RawDisk::open(&world.path("s.qcow2")).unwrap();
    let image = Qcow2::open(&file).unwrap();
    let list: Vec<_> = image
        .snapshots()
        .iter()
        .map(|one| (one.id.as_str(), one.name.as_str()))
        .collect();
    assert_eq!(list, [("1", "same"), ("2", "same"), ("3", "other")]);
    assert!(image.snapshots()[0].taken.as_secs() > 1_700_000_000);
    let put = |wanted| world.try_put("x", "s.qcow2", None, Some(wanted));
    assert!(put("other").is_ok() && put("2").is_ok());
    let refused = |wanted| match put(wanted).unwrap_err() {
        EngineError::Qcow2 { source, .. } => source,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        refused("same"),
        Qcow2Error::SnapshotAmbiguous { count: 2, .. }
    ));
    assert!(matches!(refused("4"), Qcow2Error::SnapshotNotFound { .. }));
    world.disk("raw", 512, &[]);
    let error = world.try_put("x", "raw", None, Some("1")).unwrap_err();
    assert!(matches!(error, EngineError::NoSnapshots { .. }), "{error}");
}
