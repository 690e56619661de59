//! Persistent dirty bitmaps, as qemu writes them.

use crate::support::World;
use std::ops::Range;
use tegula_engine::RawDisk;
use tegula_engine::disk_formats::qcow2::{Qcow2, Qcow2Error};

fn changed(world: &World, bitmap: &str) -> Result<Vec<Range<u64>>, Qcow2Error> {
    let file = RawDisk::open(&world.path("b.qcow2")).unwrap();
    let changed = Qcow2::open(&file).unwrap().changed_blocks(bitmap)?;
    Ok(changed.extents().collect())
}

const fn kib(range: Range<u64>) -> Range<u64> {
    range.start << 10..range.end << 10
}

#[test]
fn a_bitmap_names_what_was_written_since_it_was_made() {
    let world = World::new();
    for options in ["cluster_size=64k", "cluster_size=512", "extended_l2=on"] {
        world.qemu_img(&[
            "create", "-q", "-f", "qcow2", "-o", options, "b.qcow2", "40000k",
        ]);
        world.qemu_io("b.qcow2", &["write -P 1 0 1M"]);
        for (name, granularity) in [("coarse", "1M"), ("usual", "64k"), ("fine", "512")] {
            world.qemu_img(&["bitmap", "--add", "-g", granularity, "b.qcow2", name]);
        }
        assert_eq!(changed(&world, "usual").unwrap(), []);
        world.qemu_io(
            "b.qcow2",
            &[
                "write -P 2 100k 512",
                "write -P 3 2M 8M",
                "discard 39999k 1k",
            ],
        );
        let fine = [
            100 << 10..(100 << 10) + 512,
            kib(2048..10_240),
            kib(39_999..40_000),
        ];
        assert_eq!(changed(&world, "fine").unwrap(), fine, "{options}");
        let usual = [kib(64..128), kib(2048..10_240), kib(39_936..40_000)];
        assert_eq!(changed(&world, "usual").unwrap(), usual, "{options}");
        let coarse = [kib(0..1024), kib(2048..10_240), kib(39_936..40_000)];
        assert_eq!(changed(&world, "coarse").unwrap(), coarse, "{options}");
        world.qemu_img(&["bitmap", "--clear", "b.qcow2", "fine"]);
        assert_eq!(changed(&world, "fine").unwrap(), []);
        // The whole disk: clusters of the bitmap that are all ones need not be stored.
        world.qemu_io("b.qcow2", &["write -z 0 40000k"]);
        assert_eq!(changed(&world, "fine").unwrap(), [kib(0..40_000)]);
    }
}

#[test]
fn a_bitmap_that_does_not_take_note_of_writes_is_not_relied_on() {
    let world = World::new();
    world.qemu_img(&["create", "-q", "-f", "qcow2", "b.qcow2", "1M"]);
    world.qemu_img(&["bitmap", "--add", "b.qcow2", "b"]);
    world.qemu_img(&["bitmap", "--disable", "b.qcow2", "b"]);
    let error = changed(&world, "b").unwrap_err();
    assert!(
        matches!(error, Qcow2Error::BitmapUnusable { .. }),
        "{error}"
    );
    world.qemu_img(&["bitmap", "--enable", "b.qcow2", "b"]);
    assert_eq!(changed(&world, "b").unwrap(), []);
}
