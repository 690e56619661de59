//! Headers of every format, good and bent, against what is claimed.

use super::*;

/// Writes bytes into others.
fn set(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// The last bytes of a number, most significant first: what big-endian formats have.
fn big(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = little(number, length);
    bytes.reverse();
    bytes
}

fn little(number: u64, length: usize) -> Vec<u8> {
    number.to_le_bytes()[..length].to_vec()
}

fn inspect(bytes: &[u8]) -> Inspection {
    let mut inspector = Inspector::new();
    inspector.push(bytes);
    inspector.finish()
}

fn judge(bytes: &[u8], claimed: &str) -> Result<Option<u64>, String> {
    let judged = inspect(bytes).judge(claimed, &InspectionRules::default());
    judged
        .map(|judgement| judgement.virtual_size)
        .map_err(|refusal| refusal.to_string())
}

fn qcow2() -> Vec<u8> {
    let mut bytes = vec![0; 5 << 16];
    set(&mut bytes, 0, b"QFI\xfb\0\0\0\x03");
    set(&mut bytes, 20, &big(16, 4));
    set(&mut bytes, 24, &big(1 << 30, 8));
    set(&mut bytes, 36, &big(2, 4));
    set(&mut bytes, 40, &big(3 << 16, 8));
    set(&mut bytes, 48, &big(1 << 16, 8));
    set(&mut bytes, 56, &big(1, 4));
    set(&mut bytes, 96, &big(4, 4));
    set(&mut bytes, 100, &big(104, 4));
    // An extension that is none of ours, and the end.
    set(&mut bytes, 104, &big(0x6803_f857, 4));
    set(&mut bytes, 108, &big(5, 4));
    bytes
}

fn footer(kind: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    set(&mut bytes, 0, b"conectix");
    set(&mut bytes, 16, &big(512, 8));
    set(&mut bytes, 48, &big(size, 8));
    set(&mut bytes, 60, &big(kind, 4));
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    set(&mut bytes, 64, &big(u64::from(!sum), 4));
    bytes
}

fn vhd() -> Vec<u8> {
    let footer = footer(3, 3 << 20);
    let mut bytes = vec![0; 4096];
    set(&mut bytes, 0, &footer);
    set(&mut bytes, 512, b"cxsparse");
    set(&mut bytes, 512 + 28, &big(2, 4));
    set(&mut bytes, 512 + 32, &big(2 << 20, 4));
    bytes.extend(footer);
    bytes
}

fn fixed_vhd(disk: &[u8]) -> Vec<u8> {
    [disk, &footer(2, disk.len() as u64)].concat()
}

fn vdi() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    set(&mut bytes, 64, &[0x7f, 0x10, 0xda, 0xbe, 1, 0, 1, 0]);
    set(&mut bytes, 76, &little(1, 4));
    set(&mut bytes, 368, &little(5 << 20, 8));
    set(&mut bytes, 376, &little(1 << 20, 4));
    set(&mut bytes, 384, &little(5, 4));
    bytes
}

const DESCRIPTOR: &str = r#"# Disk DescriptorFile
version=1
CID=9bf9b1c2
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 4096 SPARSE "disk.vmdk"

#DDB
ddb.virtualHWVersion = "4"
"#;

fn vmdk(descriptor: &str) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    set(&mut bytes, 0, b"KDMV");
    set(&mut bytes, 4, &little(1, 4));
    set(&mut bytes, 12, &little(4096, 8));
    set(&mut bytes, 20, &little(128, 8));
    set(&mut bytes, 28, &little(1, 8));
    set(&mut bytes, 36, &little(20, 8));
    set(&mut bytes, 44, &little(512, 4));
    set(&mut bytes, 56, &little(21, 8));
    set(&mut bytes, 512, descriptor.as_bytes());
    bytes
}

fn streamed_vmdk() -> Vec<u8> {
    let mut bytes = vmdk(&DESCRIPTOR.replace("monolithicSparse", "streamOptimized"));
    set(&mut bytes, 56, &[0xff; 8]);
    let mut footer = bytes[..512].to_vec();
    set(&mut footer, 56, &little(30, 8));
    let mut marker = vec![0; 512];
    set(&mut marker, 12, &little(3, 4));
    bytes.extend([marker, footer, vec![0; 512]].concat());
    bytes
}

fn vhdx() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    set(&mut bytes, 0, b"vhdxfile");
    for (number, at) in [(1, 64 << 10), (2, 128 << 10)] {
        set(&mut bytes, at, b"head");
        set(&mut bytes, at + 8, &little(number, 8));
    }
    for at in [192 << 10, 256 << 10] {
        set(&mut bytes, at, b"regi");
        set(&mut bytes, at + 8, &little(1, 4));
        let metadata = [
            0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f,
            0x88, 0x6e,
        ];
        set(&mut bytes, at + 16, &metadata);
        set(&mut bytes, at + 32, &little(2 << 20, 8));
        set(&mut bytes, at + 40, &little(1 << 20, 4));
        set(&mut bytes, at + 44, &little(1, 4));
    }
    let table = 2 << 20;
    set(&mut bytes, table, b"metadata");
    set(&mut bytes, table + 10, &little(2, 2));
    let parameters = [
        0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
        0x6b,
    ];
    let size = [
        0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4,
        0xb8,
    ];
    for (number, id) in [parameters, size].iter().enumerate() {
        let entry = table + 32 + 32 * number;
        set(&mut bytes, entry, id);
        set(
            &mut bytes,
            entry + 16,
            &little((64 << 10) + 8 * number as u64, 4),
        );
        set(&mut bytes, entry + 20, &little(8, 4));
    }
    set(&mut bytes, table + (64 << 10), &little(32 << 20, 8));
    set(&mut bytes, table + (64 << 10) + 8, &little(7 << 30, 8));
    bytes
}

fn iso() -> Vec<u8> {
    let mut bytes = vec![0; 40 << 10];
    set(&mut bytes, 32 << 10, b"\x01CD001\x01");
    set(&mut bytes, (32 << 10) + 80, &little(20, 4));
    set(&mut bytes, (32 << 10) + 128, &little(2048, 2));
    set(&mut bytes, 34 << 10, b"\xffCD001\x01");
    bytes
}

fn udf() -> Vec<u8> {
    let mut bytes = vec![0; 40 << 10];
    for (number, identifier) in [b"BEA01", b"NSR02", b"TEA01"].iter().enumerate() {
        set(&mut bytes, (32 << 10) + 2048 * number + 1, *identifier);
    }
    bytes
}

fn mbr(entries: &[[u8; 16]]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for (number, entry) in entries.iter().enumerate() {
        set(&mut bytes, 446 + 16 * number, entry);
    }
    set(&mut bytes, 510, &[0x55, 0xaa]);
    bytes
}

const LINUX: [u8; 16] = [0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0];
const PROTECTIVE: [u8; 16] = [0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 7, 0, 0, 0];

fn luks() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    set(&mut bytes, 0, b"LUKS\xba\xbe\0\x01");
    set(&mut bytes, 104, &big(8, 4));
    bytes
}

fn every_format() -> Vec<(Format, Vec<u8>, u64)> {
    vec![
        (Format::Qcow2, qcow2(), 1 << 30),
        (Format::Vhd, vhd(), 3 << 20),
        (Format::Vhd, fixed_vhd(&[7; 2048]), 2048),
        (Format::Vhdx, vhdx(), 7 << 30),
        (Format::Vmdk, vmdk(DESCRIPTOR), 2 << 20),
        (Format::Vmdk, streamed_vmdk(), 2 << 20),
        (Format::Vdi, vdi(), 5 << 20),
        (Format::Iso, iso(), 40 << 10),
        (Format::Iso, udf(), 40 << 10),
        (Format::Gpt, mbr(&[LINUX]), 4096),
        (Format::Gpt, mbr(&[PROTECTIVE]), 4096),
        (Format::Luks, luks(), (1 << 16) - 4096),
    ]
}

const CLAIMS: [&str; 12] = [
    "qcow2", "vhd", "vhdx", "vmdk", "vdi", "iso", "gpt", "luks", "ami", "aki", "ploop", "custom",
];

#[test]
fn an_image_is_accepted_as_what_it_is_and_as_raw_and_as_nothing_else() {
    for (format, bytes, disk) in every_format() {
        assert_eq!(judge(&bytes, format.as_str()), Ok(Some(disk)), "{format}");
        assert_eq!(
            judge(&bytes, "raw"),
            Ok(Some(bytes.len() as u64)),
            "{format}"
        );
        for claimed in CLAIMS.iter().filter(|claimed| **claimed != format.as_str()) {
            let judged = judge(&bytes, claimed);
            if (format, *claimed) == (Format::Gpt, "aki") {
                assert_eq!(judged, Ok(None), "a kernel may have any boot sector");
                continue;
            }
            let expected = format!("the image is said to be {claimed}, and its bytes are {format}");
            assert_eq!(judged, Err(expected));
        }
    }
}

#[test]
fn bytes_without_any_mark_are_raw_or_one_of_the_formats_that_have_none() {
    for bytes in [&[][..], &[7], &[0; 100_000], b"#!/bin/sh\n"] {
        assert_eq!(inspect(bytes).found, []);
        assert_eq!(judge(bytes, "raw"), Ok(Some(bytes.len() as u64)));
        for claimed in ["ami", "ari", "aki", "ploop", "custom"] {
            assert_eq!(judge(bytes, claimed), Ok(None));
        }
        for claimed in ["qcow2", "vhd", "vhdx", "vmdk", "vdi", "iso", "gpt", "luks"] {
            let expected = format!("the image is said to be {claimed}, and its bytes are raw");
            assert_eq!(judge(bytes, claimed), Err(expected));
        }
    }
}

#[test]
fn without_the_rule_only_what_is_dangerous_is_refused() {
    let rules = InspectionRules {
        require_match: false,
        ..InspectionRules::default()
    };
    let judged = inspect(&vdi()).judge("qcow2", &rules).unwrap();
    assert_eq!(
        (judged.found, judged.virtual_size),
        (Some(Format::Vdi), None)
    );
    assert_eq!(inspect(b"").judge("qcow2", &rules).unwrap().found, None);
    let mut backed = qcow2();
    set(&mut backed, 8, &big(400, 8));
    assert!(inspect(&backed).judge("vdi", &rules).is_err());
    let none = InspectionRules {
        vmdk_types: Vec::new(),
        ..InspectionRules::default()
    };
    let refused = inspect(&vmdk(DESCRIPTOR)).judge("vmdk", &none);
    assert!(
        matches!(refused, Err(Refusal::Unsafe { .. })),
        "{refused:?}"
    );
}

/// Something bent in a good header, and a word of the reason.
type Bend = (&'static str, fn(&mut Vec<u8>), &'static str);

fn refuses(format: Format, good: &[u8], bends: &[Bend]) {
    for (name, bend, reason) in bends {
        let mut bytes = good.to_vec();
        bend(&mut bytes);
        // As raw too: who takes it for raw need not be the last to look at it.
        for claimed in [format.as_str(), "raw"] {
            let text = judge(&bytes, claimed).expect_err(name);
            let names = text.contains(&format!("not acceptable as {format}"));
            assert!(
                names && text.contains(reason),
                "{name} as {claimed}: {text}"
            );
        }
    }
}

#[test]
fn hostile_qcow2_headers_are_refused_by_name() {
    let bends: &[Bend] = &[
        ("a backing file", |b| set(b, 8, &big(300, 8)), "backing"),
        ("version 1", |b| set(b, 4, &big(1, 4)), "version"),
        ("version 4", |b| set(b, 4, &big(4, 4)), "version"),
        ("tiny clusters", |b| set(b, 20, &big(8, 4)), "cluster_bits"),
        ("huge clusters", |b| set(b, 20, &big(63, 4)), "cluster_bits"),
        ("a negative size", |b| set(b, 24, &[0xff; 8]), "its size"),
        (
            "an unknown cipher",
            |b| set(b, 32, &big(3, 4)),
            "encryption",
        ),
        ("a huge L1", |b| set(b, 36, &[0xff; 4]), "32 MiB"),
        (
            "an L1 in the header",
            |b| set(b, 40, &big(0, 8)),
            "L1 table",
        ),
        (
            "an L1 past the end",
            |b| set(b, 40, &big(5 << 16, 8)),
            "L1 table",
        ),
        (
            "an L1 out of step",
            |b| set(b, 40, &big((3 << 16) + 8, 8)),
            "L1 table",
        ),
        (
            "an L1 at the end of time",
            |b| set(b, 40, &[0xff; 8]),
            "L1 table",
        ),
        (
            "refcounts past the end",
            |b| set(b, 56, &[0xff; 4]),
            "refcount table",
        ),
        (
            "snapshots past the end",
            |b| set(b, 60, &[0xff; 4]),
            "snapshot table",
        ),
        (
            "an external data file",
            |b| set(b, 79, &[4]),
            "in another file",
        ),
        ("extended L2 entries", |b| set(b, 79, &[16]), "features"),
        ("an unknown feature", |b| set(b, 72, &[0x80]), "features"),
        (
            "wide refcounts",
            |b| set(b, 96, &big(7, 4)),
            "refcount_order",
        ),
        (
            "a short header",
            |b| set(b, 100, &big(96, 4)),
            "length of its header",
        ),
        (
            "an odd header",
            |b| set(b, 100, &big(105, 4)),
            "length of its header",
        ),
        (
            "a huge header",
            |b| set(b, 100, &[0xff; 4]),
            "length of its header",
        ),
        (
            "a name of data",
            |b| set(b, 104, &big(0x4441_5441, 4)),
            "data file",
        ),
        (
            "an endless extension",
            |b| set(b, 108, &[0xff; 4]),
            "extensions",
        ),
        (
            "a name of data farther on",
            |b| set(b, 120, &big(0x4441_5441, 4)),
            "data file",
        ),
        (
            "nothing but a magic",
            |b| b.truncate(4),
            "it ends in its header",
        ),
        ("half a header", |b| b.truncate(50), "it ends in its header"),
    ];
    refuses(Format::Qcow2, &qcow2(), bends);
    let mut version_2 = qcow2();
    set(&mut version_2, 4, &big(2, 4));
    set(&mut version_2, 72, &[0; 48]);
    assert_eq!(judge(&version_2, "qcow2"), Ok(Some(1 << 30)));
    set(&mut version_2, 72, &big(0x4441_5441, 4));
    assert!(
        judge(&version_2, "qcow2")
            .unwrap_err()
            .contains("data file")
    );
}

#[test]
fn qed_is_refused_whatever_it_is_called() {
    for claimed in CLAIMS.iter().chain(&["raw", "qed"]) {
        let text = judge(b"QED\0and so on", claimed).unwrap_err();
        assert!(text.contains("not acceptable as qed"), "{text}");
    }
}

fn again(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    // The footer, its copy, and both checksums.
    let end = bytes.len() - 512;
    for at in [0, end] {
        let footer = &mut bytes[at..at + 512];
        change(footer);
        set(footer, 64, &[0; 4]);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        set(footer, 64, &big(u64::from(!sum), 4));
    }
}

#[test]
fn hostile_vhd_headers_are_refused_by_name() {
    let bends: &[Bend] = &[
        ("a wrong checksum", |b| b[70] ^= 1, "checksum"),
        (
            "a differencing disk",
            |b| again(b, |f| f[63] = 4),
            "differs",
        ),
        ("an unknown type", |b| again(b, |f| f[63] = 9), "its type"),
        (
            "a fixed disk with a copy in front",
            |b| again(b, |f| f[63] = 2),
            "its type",
        ),
        ("no footer", |b| b.truncate(4096), "end with its footer"),
        (
            "the copy as the footer",
            |b| b.truncate(512),
            "end with its footer",
        ),
        (
            "a footer that says something else",
            |b| {
                let end = b.len() - 512;
                let copy = b[..512].to_vec();
                again(b, |f| f[55] = 1);
                set(b, 0, &copy);
                assert_ne!(&b[..512], &b[end..]);
            },
            "not the same",
        ),
        (
            "a header elsewhere",
            |b| again(b, |f| f[22] = 3),
            "dynamic header",
        ),
        ("no header", |b| b[512] = 0, "cxsparse"),
        ("no blocks", |b| set(b, 540, &[0; 4]), "its size"),
        ("empty blocks", |b| set(b, 544, &[0; 4]), "block size"),
        (
            "huge blocks",
            |b| set(b, 544, &big(1 << 31, 4)),
            "block size",
        ),
        ("a parent", |b| b[552] = 1, "parent"),
    ];
    refuses(Format::Vhd, &vhd(), bends);
}

#[test]
fn a_footer_behind_a_raw_disk_makes_a_vhd_only_if_it_fits() {
    let disk = mbr(&[LINUX]);
    let fixed = fixed_vhd(&disk);
    assert_eq!(judge(&fixed, "vhd"), Ok(Some(4096)));
    // With a partition table it is two things, one of which is a byte range of the other.
    let text = judge(&fixed, "raw").unwrap_err();
    assert!(text.contains("as vhd and as gpt"), "{text}");
    let mut longer = [&[7; 512][..], &fixed_vhd(&[7; 2048])].concat();
    assert_eq!(inspect(&longer).found, []);
    longer.drain(..512);
    assert_eq!(inspect(&longer).found.len(), 1);
    let last = longer.len() - 1;
    longer[last] = 1;
    assert_eq!(inspect(&longer).found, []);
}

#[test]
fn hostile_vhdx_files_are_refused_by_name() {
    const TABLE: usize = 2 << 20;
    const LOCATOR: [u8; 16] = [
        0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab,
        0x0c,
    ];
    let bends: &[Bend] = &[
        (
            "nothing but a signature",
            |b| b.truncate(8),
            "it ends in its header",
        ),
        ("no metadata", |b| b.truncate(1 << 20), "it ends"),
        ("metadata cut short", |b| b.truncate(TABLE + 100), "it ends"),
        (
            "no headers",
            |b| {
                b[64 << 10] = 0;
                b[128 << 10] = 0
            },
            "head",
        ),
        (
            "a log in the newer header",
            |b| b[(128 << 10) + 48] = 1,
            "log",
        ),
        (
            "a log in one of two that are as new",
            |b| {
                b[(64 << 10) + 8] = 2;
                b[(64 << 10) + 50] = 1
            },
            "log",
        ),
        (
            "two different tables",
            |b| b[(256 << 10) + 100] = 1,
            "not the same",
        ),
        (
            "no table",
            |b| {
                b[192 << 10] = 0;
                b[256 << 10] = 0
            },
            "regi",
        ),
        (
            "too many regions",
            |b| {
                [192, 256]
                    .iter()
                    .for_each(|at| set(b, (at << 10) + 8, &[0xff; 4]))
            },
            "regions",
        ),
        (
            "a region that nobody knows",
            |b| [192, 256].iter().for_each(|at| b[(at << 10) + 16] ^= 1),
            "nobody knows",
        ),
        (
            "metadata in the header",
            |b| {
                [192, 256]
                    .iter()
                    .for_each(|at| set(b, (at << 10) + 32, &[0; 8]))
            },
            "offset of its metadata",
        ),
        (
            "metadata at the end of time",
            |b| {
                [192, 256]
                    .iter()
                    .for_each(|at| set(b, (at << 10) + 37, &[0xff; 3]))
            },
            "offset of its metadata",
        ),
        ("no metadata table", |b| b[TABLE] = 0, "begin with metadata"),
        (
            "too many items",
            |b| set(b, TABLE + 10, &[0xff; 2]),
            "items",
        ),
        (
            "a parent locator",
            |b| set(b, TABLE + 32, &LOCATOR),
            "parent",
        ),
        ("a parent", |b| b[TABLE + (64 << 10) + 4] = 2, "parent"),
        (
            "tiny blocks",
            |b| b[TABLE + (64 << 10) + 3] = 0,
            "block size",
        ),
        (
            "an item in the table",
            |b| set(b, TABLE + 48, &little(100, 4)),
            "offset of a metadata item",
        ),
        (
            "an item far off",
            |b| set(b, TABLE + 48, &[0xff; 4]),
            "offset of a metadata item",
        ),
        (
            "an item of another length",
            |b| b[TABLE + 52] = 9,
            "length of a metadata item",
        ),
        ("no size", |b| b[TABLE + 10] = 1, "its size"),
        (
            "an endless size",
            |b| set(b, TABLE + (64 << 10) + 8, &[0xff; 8]),
            "its size",
        ),
    ];
    refuses(Format::Vhdx, &vhdx(), bends);
    let mut twice = vhdx();
    let entry = twice[TABLE + 32..TABLE + 64].to_vec();
    set(&mut twice, TABLE + 64, &entry);
    assert!(judge(&twice, "vhdx").unwrap_err().contains("twice"));
}

#[test]
fn hostile_vmdk_descriptors_are_refused_by_name() {
    let with = |from: &str, to: &str| {
        assert!(DESCRIPTOR.contains(from));
        vmdk(&DESCRIPTOR.replace(from, to))
    };
    let extent = r#"RW 4096 SPARSE "disk.vmdk""#;
    let extent_as = |line: &str| with(extent, line);
    for (bytes, reason) in [
        (with("monolithicSparse", "monolithicFlat"), "createType"),
        (with("monolithicSparse", "custom"), "createType"),
        (with("createType=", "# createType="), "createType"),
        (with("CID=9bf9b1c2", "createType=\"x\""), "createTypes"),
        (
            with("parentCID=ffffffff", "parentCID=12345678"),
            "parentCID",
        ),
        (
            with("#DDB", "parentFileNameHint=\"/etc/passwd\""),
            "known kind",
        ),
        (with("#DDB", "changeTrackPath=\"x\""), "file of changes"),
        (with("#DDB", "GOTO 10"), "known kind"),
        (with("#DDB", "key=value"), "known kind"),
        (with("#DDB", "\u{1}"), "known kind"),
        (extent_as(""), "extents"),
        (
            extent_as(r#"RW 4096 FLAT "disk.vmdk" 0"#),
            "kind of an extent",
        ),
        (
            extent_as(r#"RW 4096 VMFSRDM "disk.vmdk""#),
            "kind of an extent",
        ),
        (extent_as(r#"RW 4096 SPARSE "/etc/passwd""#), "no path"),
        (extent_as(r#"RW 4096 SPARSE "..""#), "no path"),
        (extent_as(r#"RW 4096 SPARSE "a\b""#), "no path"),
        (extent_as(r#"RW 4096 SPARSE "nbd:x""#), "no path"),
        (extent_as("RW 4096 SPARSE disk.vmdk"), "no path"),
        (extent_as("RW 4096"), "kind of an extent"),
        (extent_as("rdonly 4096 flat \"x\""), "kind of an extent"),
    ] {
        for claimed in ["vmdk", "raw"] {
            let text = judge(&bytes, claimed).expect_err(reason);
            assert!(
                text.contains("vmdk") && text.contains(reason),
                "{reason}: {text}"
            );
        }
    }
    let bends: &[Bend] = &[
        ("no version", |b| b[4] = 0, "version"),
        ("no grains", |b| set(b, 20, &[0; 8]), "grain size"),
        (
            "huge grains",
            |b| set(b, 20, &little(1 << 30, 8)),
            "grain size",
        ),
        ("odd grains", |b| b[20] = 127, "grain size"),
        ("no grain tables", |b| set(b, 44, &[0; 4]), "grain tables"),
        ("an endless disk", |b| set(b, 12, &[0xff; 8]), "capacity"),
        ("no descriptor", |b| b[28] = 0, "descriptor"),
        (
            "a descriptor far off",
            |b| set(b, 28, &[0xff; 8]),
            "it ends in its header",
        ),
        ("a long descriptor", |b| set(b, 36, &[0xff; 8]), "64 KiB"),
        (
            "a second text behind the first",
            |b| b[512 + 4000] = b'x',
            "not zeros",
        ),
        ("a text in no language", |b| b[520] = 0xff, "UTF-8"),
        (
            "a directory in a footer that is not there",
            |b| set(b, 56, &[0xff; 8]),
            "footer",
        ),
        (
            "nothing but a magic",
            |b| b.truncate(4),
            "it ends in its header",
        ),
        (
            "a descriptor alone",
            |b| *b = DESCRIPTOR.as_bytes().to_vec(),
            "descriptor alone",
        ),
        (
            "a descriptor behind blank lines",
            |b| *b = [b"\n \r\n", DESCRIPTOR.to_lowercase().as_bytes()].concat(),
            "descriptor alone",
        ),
        ("a sparse file of ESX", |b| set(b, 0, b"COWD"), "ESX"),
    ];
    refuses(Format::Vmdk, &vmdk(DESCRIPTOR), bends);
    let bends: &[Bend] = &[
        (
            "a footer with another capacity",
            |b| {
                let at = b.len() - 1024 + 12;
                b[at] ^= 1
            },
            "byte 12",
        ),
        (
            "a footer with another descriptor",
            |b| {
                let at = b.len() - 1024 + 28;
                b[at] ^= 2
            },
            "byte 28",
        ),
        (
            "no marker",
            |b| {
                let at = b.len() - 1536 + 12;
                b[at] = 0
            },
            "marker",
        ),
        (
            "bytes behind the end",
            |b| {
                let at = b.len() - 1;
                b[at] = 1
            },
            "mark of the end",
        ),
        (
            "a footer without a directory",
            |b| {
                let at = b.len() - 1024 + 56;
                b[at] = 0
            },
            "directory",
        ),
        (
            "a directory past the end",
            |b| {
                let at = b.len() - 1024 + 58;
                b[at] = 9
            },
            "directory",
        ),
    ];
    refuses(Format::Vmdk, &streamed_vmdk(), bends);
}

#[test]
fn hostile_headers_of_the_other_formats_are_refused_by_name() {
    let bends: &[Bend] = &[
        ("an undo file", |b| b[76] = 3, "its type"),
        ("a differencing disk", |b| b[76] = 4, "its type"),
        ("version 2", |b| b[70] = 2, "version"),
        ("a link", |b| b[430] = 1, "linked"),
        ("a parent", |b| b[455] = 1, "parent"),
        ("odd blocks", |b| b[376] = 1, "block size"),
        ("more disk than blocks", |b| b[384] = 4, "its size"),
        (
            "half a header",
            |b| b.truncate(100),
            "it ends in its header",
        ),
    ];
    refuses(Format::Vdi, &vdi(), bends);
    let bends: &[Bend] = &[
        ("version 2", |b| b[7] = 2, "version"),
        (
            "a payload past the end",
            |b| set(b, 104, &[0xff; 4]),
            "payload",
        ),
        ("half a header", |b| b.truncate(60), "it ends in its header"),
    ];
    refuses(Format::Luks, &luks(), bends);
    let bends: &[Bend] = &[
        ("odd blocks", |b| b[(32 << 10) + 128] = 7, "block size"),
        ("no primary descriptor", |b| b[32 << 10] = 2, "primary"),
        (
            "half a descriptor",
            |b| b.truncate((32 << 10) + 100),
            "it ends in its header",
        ),
    ];
    refuses(Format::Iso, &iso(), bends);
}

#[test]
fn partition_tables_that_no_tool_makes_are_refused() {
    let changed = |entry: [u8; 16], at: usize, value: u8| {
        let mut entry = entry;
        entry[at] = value;
        entry
    };
    for (entries, reason) in [
        (vec![], "number of its partitions"),
        (vec![changed(LINUX, 0, 0x81)], "boot flag"),
        (vec![LINUX, changed([0; 16], 0, 7)], "boot flag"),
        (vec![PROTECTIVE, LINUX], "protects a GPT"),
        (vec![PROTECTIVE, PROTECTIVE], "protects a GPT"),
        (vec![changed(PROTECTIVE, 2, 1)], "CHS"),
        (vec![changed(PROTECTIVE, 8, 2)], "first sector"),
    ] {
        let bytes = mbr(&entries);
        for claimed in ["raw", "gpt"] {
            let text = judge(&bytes, claimed).expect_err(reason);
            assert!(text.contains("gpt") && text.contains(reason), "{text}");
        }
        // A kernel's boot sector has whatever it likes there.
        assert_eq!(judge(&bytes, "aki"), Ok(None));
        let rules = InspectionRules {
            accept_bad_mbr: true,
            ..InspectionRules::default()
        };
        assert!(inspect(&bytes).judge("raw", &rules).is_ok());
    }
    // The boot sector of a FAT has the same signature, and anything where the table would be.
    let mut fat = mbr(&[[0x13; 16]; 4]);
    set(&mut fat, 0, &[0xeb, 0x3c, 0x90]);
    set(&mut fat, 11, &[0, 2, 1, 1, 0, 2]);
    fat[21] = 0xf8;
    assert_eq!(inspect(&fat).found, []);
    fat[0] = 0xea;
    assert!(judge(&fat, "raw").is_err());
}

#[test]
fn what_can_be_read_as_two_things_is_refused_but_for_discs_to_boot_from() {
    let hybrid = {
        let mut bytes = iso();
        set(&mut bytes, 0, &mbr(&[LINUX])[..512]);
        bytes
    };
    assert_eq!(judge(&hybrid, "iso"), Ok(Some(40 << 10)));
    assert_eq!(judge(&hybrid, "raw"), Ok(Some(40 << 10)));
    assert!(judge(&hybrid, "gpt").is_err());
    let mut strange = hybrid;
    strange[446] = 9;
    assert_eq!(judge(&strange, "iso"), Ok(Some(40 << 10)));

    let sector = mbr(&[LINUX]);
    let mut in_system_area = iso();
    set(&mut in_system_area, 0, &qcow2()[..512]);
    let mut with_table = vmdk(DESCRIPTOR);
    set(&mut with_table, 446, &sector[446..512]);
    let mut vdi_in_front = qcow2();
    set(&mut vdi_in_front, 64, &[0x7f, 0x10, 0xda, 0xbe]);
    for (bytes, both) in [
        (in_system_area, "as qcow2 and as iso"),
        (with_table, "as vmdk and as gpt"),
        (vdi_in_front, "as qcow2 and as vdi"),
        (fixed_vhd(&qcow2()), "as qcow2 and as vhd"),
    ] {
        for claimed in ["raw", "qcow2", "vmdk", "iso", "vhd", "ami"] {
            let text = judge(&bytes, claimed).expect_err(both);
            assert!(text.contains(both), "{claimed}: {text}");
        }
    }
}

/// Pieces of lengths that are drawn from a seed, short and long ones.
fn in_pieces(bytes: &[u8], mut seed: u64) -> Inspection {
    let mut inspector = Inspector::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let shift = 64 - 2 * (1 + (seed >> 20) % 11);
        let length = usize::try_from(seed >> shift).unwrap().min(rest.len());
        let (piece, after) = rest.split_at(length);
        inspector.push(piece);
        rest = after;
    }
    inspector.push(&[]);
    inspector.finish()
}

#[test]
fn how_the_bytes_are_cut_makes_no_difference() {
    for (format, bytes, _) in every_format() {
        let whole = inspect(&bytes);
        for seed in 0..40 {
            assert_eq!(in_pieces(&bytes, seed), whole, "{format}, seed {seed}");
        }
        let mut bytewise = Inspector::new();
        bytes.iter().for_each(|byte| bytewise.push(&[*byte]));
        assert_eq!(bytewise.finish(), whole, "{format}, byte by byte");
    }
}

#[test]
fn any_beginning_of_a_good_file_is_judged_without_a_panic() {
    for (_, bytes, _) in every_format() {
        let step = (bytes.len() / 500).max(1);
        for length in (0..bytes.len())
            .step_by(step)
            .chain(0..1024.min(bytes.len()))
        {
            let cut = inspect(&bytes[..length]);
            for claimed in CLAIMS {
                drop(cut.judge(claimed, &InspectionRules::default()));
            }
            assert_eq!(cut.bytes, length as u64);
        }
    }
}

#[test]
fn what_is_passed_over_in_the_middle_makes_no_difference() {
    let mut disk = vec![7; 3 << 20];
    disk[510] = 0x55;
    disk[511] = 0xaa;
    let footer = disk.len() - 512;
    disk[footer..footer + 8].copy_from_slice(b"conectix");
    let mut all = Inspector::new();
    all.push(&disk);
    let mut some = Inspector::new();
    some.push(&disk[..1 << 20]);
    assert!(!some.needs_all(), "a disk has its headers at its ends");
    some.pass_over((2 << 20) - 4096);
    some.push(&disk[(3 << 20) - 4096..]);
    assert_eq!(some.finish(), all.finish());
    let mut vhdx = Inspector::new();
    let mut head = vec![0; 1 << 20];
    head[..8].copy_from_slice(b"vhdxfile");
    vhdx.push(&head);
    assert!(!vhdx.needs_all(), "a head that says nothing leads nowhere");
}

#[test]
fn what_the_beginning_refuses_all_of_it_is_refused_for() {
    let mut images: Vec<Vec<u8>> = every_format()
        .into_iter()
        .map(|(_, good, _)| good)
        .collect();
    let mut backed = qcow2();
    set(&mut backed, 8, &big(4096, 8));
    images.extend([backed, b"QED\0".to_vec(), vec![0; 4], b"anything".to_vec()]);
    let strict = InspectionRules::default();
    let lax = InspectionRules {
        require_match: false,
        ..InspectionRules::default()
    };
    let mut early = 0;
    for mut image in images {
        image.resize(image.len().max(200_000), 0);
        for (claimed, rules) in CLAIMS
            .iter()
            .flat_map(|claimed| [(claimed, &strict), (claimed, &lax)])
        {
            for announced in [None, Some(image.len() as u64)] {
                let mut inspector = Inspector::new();
                let mut refused = None;
                for piece in image.chunks(32 << 10) {
                    inspector.push(piece);
                    let now = inspector.refusal_so_far((claimed, rules), announced);
                    assert!(refused.is_none() || now == refused, "it does not change");
                    refused = now;
                }
                let judged = inspector.finish().judge(claimed, rules);
                early += usize::from(refused.is_some());
                assert!(
                    refused.is_none() || judged.is_err(),
                    "{claimed}: {refused:?}"
                );
            }
        }
    }
    assert!(early > 0);
}

#[test]
fn what_is_no_qcow2_or_a_dangerous_one_is_refused_by_its_beginning() {
    let refused = |bytes: &[u8], claimed: &str| {
        let mut inspector = Inspector::new();
        inspector.push(bytes);
        let rules = InspectionRules::default();
        let refusal = inspector.refusal_so_far((claimed, &rules), None);
        refusal.map(|refusal| refusal.to_string())
    };
    let mut good = qcow2();
    good.resize(200_000, 0);
    assert_eq!(refused(&good, "qcow2"), None);
    assert_eq!(refused(&good, "raw"), None);
    assert_eq!(refused(&[0; 200_000], "raw"), None);
    assert_eq!(refused(&[0; 1000], "qcow2"), None, "it may be all");
    assert!(
        refused(&good, "vhd")
            .unwrap()
            .ends_with("its bytes are qcow2")
    );
    assert!(
        refused(&[0; 200_000], "qcow2")
            .unwrap()
            .ends_with("something else")
    );
    set(&mut good, 8, &big(4096, 8));
    for claimed in ["raw", "qcow2", "ami"] {
        assert!(refused(&good, claimed).unwrap().contains("backing file"));
    }
}
