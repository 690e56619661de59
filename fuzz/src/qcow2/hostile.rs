//! Files that are made to do harm: to have another file opened, to have memory or time used up, to be read as what they
//! are not. Made here, not kept: each is a valid file with one thing bent.

#![expect(clippy::big_endian_bytes, reason = "qcow2 is big-endian")]

use super::image::{
    BACKING_FORMAT, BITMAPS, COMPRESSED, COPIED, EXTENDED_L2, Image, ZERO, repeated, stored,
};

/// A file that is to be refused.
#[derive(Debug)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
    /// What the refusal says, in part.
    pub says: &'static str,
}

/// Every file that is to be refused.
pub fn hostile() -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name, says, bend: &dyn Fn(&mut Image)| {
        let mut image = Image::new(9);
        image.add_data(0, 1);
        image.add_data(1, 2);
        bend(&mut image);
        let bytes = image.bytes;
        all.push(Hostile { name, bytes, says });
    };
    references(&mut add);
    geometry(&mut add);
    tables(&mut add);
    clusters(&mut add);
    snapshots(&mut add);
    bitmaps(&mut add);
    all.extend(subclusters());
    all
}

type Add<'a> = dyn FnMut(&'static str, &'static str, &dyn Fn(&mut Image)) + 'a;

fn references(add: &mut Add<'_>) {
    const DATA_FILE: u32 = 0x4441_5441;
    let other = "another file";
    add("data file, bit alone", other, &|image| image.need(1 << 2));
    add("data file, name alone", other, &|image| {
        image.extend(DATA_FILE, b"/etc/passwd")
    });
    add("data file, both", other, &|image| {
        image.need(1 << 2);
        image.extend(DATA_FILE, b"/etc/passwd");
    });
    add("data file, empty name", other, &|image| {
        image.extend(DATA_FILE, b"")
    });
    add("raw data file", other, &|image| image.set_u64(88, 2));
    add("raw data file, named", other, &|image| {
        image.need(1 << 2);
        image.set_u64(88, 2);
        image.extend(DATA_FILE, b"nbd:localhost:1");
    });
    add(
        "backing format without a backing file",
        "backing format",
        &|image| {
            image.extend(BACKING_FORMAT, b"raw");
        },
    );
    add(
        "backing name past the first cluster",
        "backing_file_offset",
        &|image| {
            image.set_u64(8, 510);
            image.set_u32(16, 11);
        },
    );
    add("backing name far away", "backing_file_offset", &|image| {
        image.set_u64(8, u64::MAX - 3);
        image.set_u32(16, 11);
    });
    add(
        "backing name over the header",
        "backing_file_offset",
        &|image| {
            image.set_u64(8, 24);
            image.set_u32(16, 11);
        },
    );
    add("backing name too long", "backing_file_size", &|image| {
        image.set_u64(8, 120);
        image.set_u32(16, 1024);
    });
    add(
        "backing name without length",
        "backing_file_size",
        &|image| image.set_u64(8, 120),
    );
}

fn geometry(add: &mut Add<'_>) {
    add("no mark", "QFI", &|image| image.bytes[3] = 0xfa);
    add("version 1", "version 1", &|image| image.set_u32(4, 1));
    add("version 4", "version 4", &|image| image.set_u32(4, 4));
    for (name, bits) in [("no clusters", 0), ("clusters of 256 bytes", 8)] {
        add(name, "cluster_bits", &|image| image.set_u32(20, bits));
    }
    for (name, bits) in [
        ("clusters of 4 MiB", 22),
        ("clusters of 2 GiB", 31),
        ("clusters of 2^255", 255),
    ] {
        add(name, "cluster_bits", &|image| image.set_u32(20, bits));
    }
    add("AES", "encrypted (AES)", &|image| image.set_u32(32, 1));
    add("LUKS", "encrypted (LUKS)", &|image| image.set_u32(32, 2));
    add("another encryption", "encrypted (method 7)", &|image| {
        image.set_u32(32, 7)
    });
    add("an encryption header alone", "encrypted", &|image| {
        image.extend(0x0537_be77, &[0; 16])
    });
    add("an unknown feature", "feature bit 5", &|image| {
        image.need(1 << 5)
    });
    add("the last feature", "feature bit 63", &|image| {
        image.need(1 << 63)
    });
    add("a feature with a name", "(\"time travel\")", &|image| {
        image.need(1 << 7);
        let mut entry = vec![0, 7];
        entry.extend_from_slice(b"time travel");
        entry.resize(48, 0);
        image.extend(0x6803_f857, &entry);
    });
    add("marked as corrupt", "corrupt", &|image| image.need(1 << 1));
    add("header too short", "header_length", &|image| {
        image.set_u32(100, 72)
    });
    add("odd header length", "header_length", &|image| {
        image.set_u32(100, 105)
    });
    add("header longer than a cluster", "header_length", &|image| {
        image.set_u32(100, 520)
    });
    add("huge header", "header_length", &|image| {
        image.set_u32(100, u32::MAX - 7)
    });
    add("refcounts of 128 bits", "refcount_order", &|image| {
        image.set_u32(96, 7)
    });
    add(
        "compression bit without a type",
        "compression_type",
        &|image| image.need(1 << 3),
    );
    add(
        "compression type without the bit",
        "compression_type",
        &|image| {
            image.use_zstd();
            image.set_u64(72, 0);
        },
    );
    add("another compression", "not known (type 2)", &|image| {
        image.use_zstd();
        image.bytes[104] = 2;
    });
    add("subclusters of 16 bytes", "cluster_bits", &|image| {
        image.need(EXTENDED_L2)
    });
    add("a disk of 2^63 bytes", "the disk has", &|image| {
        image.set_u64(24, 1 << 63)
    });
    add("a disk of 2^64 - 1 bytes", "the disk has", &|image| {
        image.set_u64(24, u64::MAX)
    });
    add(
        "a disk larger than its map",
        "length of an L1 table",
        &|image| image.set_u64(24, 32_769),
    );
    add("extensions without end", "header extensions", &|image| {
        for at in (104..512).step_by(8) {
            image.set_u32(at, 0x1234_5678);
        }
    });
    add("a huge extension", "header extension", &|image| {
        image.set_u32(104, 0x1234_5678);
        image.set_u32(108, u32::MAX);
    });
    add("an extension twice", "each kind only once", &|image| {
        image.lie_over("below");
        image.set_u64(8, 200);
        image.extend(BACKING_FORMAT, b"raw");
        image.extend(BACKING_FORMAT, b"raw");
    });
}

fn tables(add: &mut Add<'_>) {
    for (at, size_at, names) in [
        (
            40,
            36,
            [
                "L1 in the header",
                "L1 unaligned",
                "L1 past the end",
                "L1 at 2^64",
                "L1 too large",
            ],
        ),
        (
            48,
            56,
            [
                "refcounts in the header",
                "refcounts unaligned",
                "refcounts past the end",
                "refcounts at 2^64",
                "refcounts too large",
            ],
        ),
    ] {
        add(names[0], "lies over the header", &|image| {
            image.set_u64(at, 0)
        });
        add(names[1], "not at the beginning of a cluster", &|image| {
            image.set_u64(at, 1537)
        });
        add(names[2], "the file at", &|image| image.set_u64(at, 1 << 40));
        add(names[3], "the file at", &|image| {
            image.set_u64(at, u64::MAX - 511)
        });
        add(names[4], "more than the", &|image| {
            image.set_u32(size_at, u32::MAX)
        });
    }
    add("no refcounts", "refcount_table_clusters", &|image| {
        image.set_u32(56, 0)
    });
    add("L1 over the refcounts", "lies over", &|image| {
        image.set_u64(40, 512)
    });
    add("no L1", "length of an L1 table", &|image| {
        image.set_u32(36, 0)
    });
    let l1 = 3 * 512;
    add("L2 at the L1 table", "lies over the L1 table", &|image| {
        image.set_u64(l1, COPIED | (3 * 512))
    });
    add("L2 unaligned", "beginning of a cluster", &|image| {
        *image = Image::new(12);
        image.set_u64(image.at(3), COPIED | (4 * 4096 + 512));
    });
    add("L2 past the end", "the file at", &|image| {
        image.set_u64(l1, COPIED | 1 << 40)
    });
    add("L2 as far away as can be", "the file at", &|image| {
        image.set_u64(l1, COPIED | 0x00ff_ffff_ffff_fe00)
    });
    add("reserved bits in L1", "reserved bits", &|image| {
        image.set_u64(l1, COPIED | 1 << 60 | (4 * 512))
    });
    add("low reserved bits in L1", "reserved bits", &|image| {
        image.set_u64(l1, COPIED | 1 | (4 * 512))
    });
    add("one L2 table for the whole disk", "used twice", &|image| {
        let table = image.add(&[0; 512 * 8]);
        for at in 0..512 {
            image.set_u64(usize::try_from(table).unwrap() + at * 8, COPIED | (4 * 512));
        }
        image.set_u64(24, 512 * 32_768);
        image.set_u32(36, 512);
        image.set_u64(40, table);
    });
    add("the L2 table as data", "used twice", &|image| {
        image.map(2, COPIED | (4 * 512))
    });
}

fn clusters(add: &mut Add<'_>) {
    add("one cluster for the whole disk", "used twice", &|image| {
        for index in 0..64 {
            image.map(index, COPIED | (5 * 512));
        }
    });
    add("data in the header", "beginning of the file", &|image| {
        image.map(2, COPIED)
    });
    add(
        "data over the refcounts",
        "lies over the refcount table",
        &|image| image.map(2, COPIED | 512),
    );
    add(
        "data over the L1 table",
        "lies over the L1 table",
        &|image| image.map(2, COPIED | (3 * 512)),
    );
    add("data past the end", "the file at", &|image| {
        image.map(2, COPIED | 1 << 30)
    });
    add("reserved bits in L2", "reserved bits", &|image| {
        image.map(2, COPIED | 1 << 57 | (5 * 512))
    });
    add("low reserved bits in L2", "reserved bits", &|image| {
        image.map(2, COPIED | 2 | (5 * 512))
    });
    add("zero cluster in version 2", "version 2", &|image| {
        image.set_u32(4, 2);
        image.bytes[72..104].fill(0);
        image.map(2, ZERO);
    });
    add("unaligned data", "beginning of a cluster", &|image| {
        *image = Image::new(12);
        let host = image.add(&[1; 8192]);
        image.map(0, COPIED | (host + 512));
    });
    add(
        "unaligned data under a zero cluster",
        "beginning of a cluster",
        &|image| {
            *image = Image::new(12);
            let host = image.add(&[1; 8192]);
            image.map(0, COPIED | (host + 512) | ZERO);
        },
    );
    add("compressed past the end", "the file at", &|image| {
        image.map(2, image.compressed_entry(1 << 30, 0))
    });
    add(
        "compressed in the header",
        "lies over the header",
        &|image| image.map(2, image.compressed_entry(100, 0)),
    );
    add("compressed over the tables", "lies over", &|image| {
        image.map(2, image.compressed_entry(400, 1))
    });
    add(
        "compressed with a reserved bit",
        "reserved bits",
        &|image| image.map(2, COMPRESSED | 1 << 58 | 2560),
    );
    add(
        "compressed and not to be copied",
        "not to be copied",
        &|image| {
            image.map(2, COPIED | image.compressed_entry(2560, 0));
        },
    );
    add(
        "compressed, but not deflate",
        "does not decompress",
        &|image| image.add_compressed(2, &[0xff; 100]),
    );
    add(
        "expands to less than a cluster",
        "less than a cluster",
        &|image| image.add_compressed(2, &stored(&[7; 511])),
    );
    add(
        "expands to more than a cluster",
        "more than a cluster",
        &|image| image.add_compressed(2, &stored(&[7; 513])),
    );
    add(
        "one compressed cluster for all",
        "would need more bytes",
        &|image| {
            let stream = stored(&[7; 512]);
            let host = image.add(&stream);
            for index in 0..64 {
                image.map(index, image.compressed_entry(host, 1));
            }
        },
    );
    let zstd = |image: &mut Image, frame: &[u8]| {
        *image = Image::new(9);
        image.use_zstd();
        image.add_compressed(2, frame);
    };
    add(
        "compressed, but not zstd",
        "does not decompress",
        &|image| zstd(image, &[0xff; 100]),
    );
    add(
        "zstd with a window of 2 GiB",
        "a window of more",
        &|image| zstd(image, &repeated(7, 512, Some(21 << 3))),
    );
    add("zstd to less than a cluster", "cluster", &|image| {
        zstd(image, &repeated(7, 511, None))
    });
    add(
        "zstd to more than a cluster",
        "more than a cluster",
        &|image| zstd(image, &repeated(7, 513, None)),
    );
    add("zstd to far more than it says", "decompress", &|image| {
        zstd(image, &repeated(7, 100_000, Some(0x38)))
    });
}

fn snapshots(add: &mut Add<'_>) {
    add(
        "snapshot table past the end",
        "the snapshot table",
        &|image| {
            image.set_u32(60, 1);
            image.set_u64(64, 1 << 40);
        },
    );
    add(
        "snapshot table unaligned",
        "beginning of a cluster",
        &|image| {
            image.set_u32(60, 1);
            image.set_u64(64, 8);
        },
    );
    add(
        "snapshot table in the header",
        "lies over the header",
        &|image| {
            image.set_u32(60, 1);
            image.set_u64(64, 0);
        },
    );
    add("too many snapshots", "nb_snapshots", &|image| {
        image.set_u32(60, 65_537);
        image.set_u64(64, 512);
    });
    add(
        "65,536 snapshots that are not there",
        "the snapshot table",
        &|image| {
            image.set_u32(60, 65_536);
            image.set_u64(64, 5 * 512);
        },
    );
    add(
        "snapshots with long names",
        "the snapshot table has",
        &|image| {
            *image = long_snapshot_names();
        },
    );
    add(
        "snapshot with a huge L1 table",
        "a snapshot's L1 table has",
        &|image| {
            let table = usize::try_from(image.add_snapshot("1", "one")).unwrap();
            image.set_u32(table + 8, u32::MAX);
        },
    );
    add(
        "snapshot with an L1 table past the end",
        "a snapshot's L1 table",
        &|image| {
            let table = usize::try_from(image.add_snapshot("1", "one")).unwrap();
            image.set_u64(table, 1 << 40);
        },
    );
    add(
        "snapshot with an L1 table in the header",
        "lies over the header",
        &|image| {
            let table = usize::try_from(image.add_snapshot("1", "one")).unwrap();
            image.set_u64(table, 0);
        },
    );
    add(
        "snapshot larger than its map",
        "length of an L1 table",
        &|image| {
            let table = usize::try_from(image.add_snapshot("1", "one")).unwrap();
            image.set_u64(table + 48, 1 << 40);
        },
    );
    add(
        "snapshot with too much extra data",
        "a snapshot's extra data",
        &|image| {
            let table = usize::try_from(image.add_snapshot("1", "one")).unwrap();
            image.set_u32(table + 36, u32::MAX);
        },
    );
    add("snapshot without extra data", "extra_data_size", &|image| {
        let table = usize::try_from(image.add_snapshot("1", "one")).unwrap();
        image.set_u32(table + 36, 0);
    });
}

/// A table longer than is read, all of it in the file.
fn long_snapshot_names() -> Image {
    let mut image = Image::new(9);
    image.add_snapshot("1", &"n".repeat(200));
    let table = image.bytes.len();
    let first = usize::try_from(u64::from_be_bytes(
        *image.bytes[64..].first_chunk().unwrap(),
    ))
    .unwrap();
    let mut entry = image.bytes[first..first + 56].to_vec();
    entry[12..16].fill(0xff);
    entry.resize(entry.len() + 2 * 65_535, b'n');
    entry.resize(entry.len().next_multiple_of(8), 0);
    for _ in 0..140 {
        image.bytes.extend_from_slice(&entry);
    }
    image.set_u32(60, 140);
    image.set_u64(64, table as u64);
    image
}

fn bitmaps(add: &mut Add<'_>) {
    let with = |image: &mut Image, at: usize, value: u32| {
        let directory = image.add_bitmap("since", 2, &[1]);
        image.set_u32(usize::try_from(directory).unwrap() + at, value);
    };
    // The extension stands at 104: its head, then the count, a reserved field, the directory's size and place.
    let extension = |image: &mut Image, at: usize, value: u64| {
        image.add_bitmap("since", 2, &[1]);
        image.set_u64(112 + at, value);
    };
    add(
        "bitmaps without their extension",
        "autoclear_features",
        &|image| image.set_u64(88, 1),
    );
    add("short bitmaps extension", "extension's length", &|image| {
        image.extend(BITMAPS, &[0; 16]);
        image.set_u64(88, 1);
    });
    add("no bitmaps in the directory", "nb_bitmaps", &|image| {
        extension(image, 0, 0)
    });
    add("65,536 bitmaps", "nb_bitmaps", &|image| {
        extension(image, 0, 65_536 << 32)
    });
    add("reserved field of bitmaps", "reserved field", &|image| {
        extension(image, 0, (1 << 32) | 7)
    });
    add("huge bitmap directory", "the bitmap directory", &|image| {
        extension(image, 8, 1 << 40)
    });
    add(
        "bitmap directory of 2^64",
        "the bitmap directory",
        &|image| extension(image, 8, u64::MAX),
    );
    add(
        "bitmap directory past the end",
        "the bitmap directory",
        &|image| extension(image, 16, 1 << 40),
    );
    add(
        "bitmap directory unaligned",
        "beginning of a cluster",
        &|image| extension(image, 16, 5 * 512 + 8),
    );
    add(
        "bitmap directory in the header",
        "lies over the header",
        &|image| extension(image, 16, 0),
    );
    add(
        "fewer bitmaps than the directory has",
        "what follows the last bitmap",
        &|image| {
            extension(image, 8, 64);
        },
    );
    add("bitmap with reserved flags", "a bitmap's flags", &|image| {
        with(image, 12, 1 << 20)
    });
    add("bitmap of another type", "a bitmap's type", &|image| {
        with(image, 16, 0x0209_0005)
    });
    add("bitmap of 2^63 granularity", "granularity_bits", &|image| {
        with(image, 16, 0x013f_0005)
    });
    add("bitmap without a name", "name_size", &|image| {
        with(image, 16, 0x0109_0000)
    });
    add(
        "bitmap with a name past the directory",
        "the bitmap directory",
        &|image| with(image, 16, 0x0109_0300),
    );
    add("bitmap with huge extra data", "extra data", &|image| {
        with(image, 20, u32::MAX)
    });
    add("bitmap with a huge table", "bitmap_table_size", &|image| {
        with(image, 8, u32::MAX)
    });
    add("bitmap table past the end", "a bitmap table", &|image| {
        with(image, 4, 1 << 30)
    });
    add(
        "bitmap table over the header",
        "lies over the header",
        &|image| with(image, 4, 0),
    );
    add("bitmap with reserved bits", "reserved bits", &|image| {
        image.add_bitmap("since", 2, &[1]);
        let table = image.bytes.len() - 1024;
        image.set_u64(table, 1 << 60);
    });
    add(
        "bitmap's bits past the end",
        "a cluster of a bitmap",
        &|image| {
            image.add_bitmap("since", 2, &[1]);
            let table = image.bytes.len() - 1024;
            image.set_u64(table, 1 << 40);
        },
    );
}

fn subclusters() -> Vec<Hostile> {
    let bend = |name, says, bend: &dyn Fn(&mut Image, u64)| {
        let mut image = Image::new(14);
        image.need(EXTENDED_L2);
        image.set_u64(24, 16_384 * 1024);
        let host = image.add(&[1; 16_384]);
        bend(&mut image, host);
        let bytes = image.bytes;
        Hostile { name, bytes, says }
    };
    vec![
        bend(
            "subcluster both allocated and zero",
            "at once",
            &|image, host| {
                image.map_subclusters(0, COPIED | host, 1 << 32 | 1);
            },
        ),
        bend(
            "subcluster allocated nowhere",
            "in a cluster that is not",
            &|image, _| {
                image.map_subclusters(0, 0, 1);
            },
        ),
        bend(
            "zero cluster among subclusters",
            "where there are subclusters",
            &|image, _| {
                image.map_subclusters(0, ZERO, 0);
            },
        ),
        bend(
            "compressed with subclusters",
            "and has subclusters",
            &|image, host| {
                image.map_subclusters(0, image.compressed_entry(host, 0), 1);
            },
        ),
        bend(
            "subclusters of one cluster twice",
            "used twice",
            &|image, host| {
                image.map_subclusters(0, COPIED | host, 1);
                image.map_subclusters(1, COPIED | host, 2);
            },
        ),
        bend(
            "L2 table as data of subclusters",
            "used twice",
            &|image, _| {
                image.map_subclusters(0, COPIED | 4 << 14, 1);
            },
        ),
    ]
}
