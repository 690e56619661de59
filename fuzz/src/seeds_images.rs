//! Images for the inspector to start from: a small one of each format, and some that are two at once.

use crate::inspect::encode;

#[expect(
    clippy::big_endian_bytes,
    reason = "qcow2, VHD and others are big-endian"
)]
fn big(number: u64, length: usize) -> Vec<u8> {
    number.to_be_bytes()[8 - length..].to_vec()
}

fn little(number: u64, length: usize) -> Vec<u8> {
    number.to_le_bytes()[..length].to_vec()
}

/// Fields at their places.
type Fields = Vec<(usize, Vec<u8>)>;

fn image(length: usize, fields: &Fields) -> Vec<u8> {
    let patches: Vec<_> = fields
        .iter()
        .map(|(at, bytes)| (*at, bytes.as_slice()))
        .collect();
    encode(u8::try_from(length % 251).unwrap(), length, &patches)
}

fn qcow2() -> Fields {
    vec![
        (0, b"QFI\xfb\0\0\0\x03".to_vec()),
        (20, big(16, 4)),
        (24, big(1 << 30, 8)),
        (36, big(2, 4)),
        (40, big(3 << 16, 8)),
        (48, big(1 << 16, 8)),
        (56, big(1, 4)),
        (96, big(4, 4)),
        (100, big(104, 4)),
        (104, big(0x6803_f857, 4)),
        (108, big(5, 4)),
    ]
}

fn vmdk(kind: &str) -> Fields {
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"{kind}\"\nRW 4096 SPARSE \"d.vmdk\"\n\
         ddb.adapterType = \"ide\"\n"
    );
    vec![
        (0, b"KDMV\x01\0\0\0".to_vec()),
        (12, little(4096, 8)),
        (20, little(128, 8)),
        (28, little(1, 8)),
        (36, little(20, 8)),
        (44, little(512, 4)),
        (56, little(21, 8)),
        (512, text.into_bytes()),
    ]
}

fn footer(at: usize, kind: u64, size: u64) -> Fields {
    let mut fields = vec![
        (at, b"conectix".to_vec()),
        (at + 16, big(512, 8)),
        (at + 48, big(size, 8)),
        (at + 60, big(kind, 4)),
    ];
    let bytes = fields.iter().flat_map(|(_, bytes)| bytes);
    let sum: u32 = bytes.map(|byte| u32::from(*byte)).sum();
    fields.push((at + 64, big(u64::from(!sum), 4)));
    fields
}

fn vhdx() -> Fields {
    const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    const PARAMETERS: [u8; 16] =
        *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    const SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    let mut fields = vec![(0, b"vhdxfile".to_vec())];
    for (number, at) in [(1, 64 << 10), (2, 128 << 10)] {
        fields.extend([(at, b"head".to_vec()), (at + 8, little(number, 8))]);
    }
    for at in [192 << 10, 256 << 10] {
        fields.extend([
            (at, b"regi".to_vec()),
            (at + 8, little(1, 4)),
            (at + 16, METADATA.to_vec()),
            (at + 32, little(1 << 20, 8)),
            (at + 40, little(1 << 20, 4)),
        ]);
    }
    let table = 1 << 20;
    fields.extend([(table, b"metadata\0\0\x02\0".to_vec())]);
    for (number, id) in [PARAMETERS, SIZE].iter().enumerate() {
        let entry = table + 32 + 32 * number;
        fields.extend([
            (entry, id.to_vec()),
            (entry + 16, little((64 << 10) + 8 * number as u64, 4)),
            (entry + 20, little(8, 4)),
        ]);
    }
    let items = table + (64 << 10);
    fields.extend([
        (items, little(32 << 20, 8)),
        (items + 8, little(7 << 30, 8)),
    ]);
    fields
}

fn iso() -> Fields {
    vec![
        (32 << 10, b"\x01CD001\x01".to_vec()),
        ((32 << 10) + 80, little(20, 4)),
        ((32 << 10) + 128, little(2048, 2)),
    ]
}

fn partitions() -> Fields {
    vec![
        (446, vec![0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 7]),
        (510, vec![0x55, 0xaa]),
    ]
}

/// Images.
pub(crate) fn inspect() -> Vec<Vec<u8>> {
    let dynamic = [
        footer(0, 3, 3 << 20),
        vec![
            (512, b"cxsparse".to_vec()),
            (540, big(2, 4)),
            (544, big(2 << 20, 4)),
        ],
        footer(4096, 3, 3 << 20),
    ];
    let mut streamed = vmdk("streamOptimized");
    streamed.retain(|(at, _)| *at != 56);
    streamed.push((56, vec![0xff; 8]));
    let header: Fields = streamed
        .iter()
        .filter(|(at, _)| *at < 56)
        .cloned()
        .collect();
    let end = 12_000;
    streamed.extend(
        header
            .into_iter()
            .map(|(at, bytes)| (end + 512 + at, bytes)),
    );
    streamed.extend([(end + 12, little(3, 4)), (end + 512 + 56, little(20, 8))]);
    let vdi = vec![
        (64, b"\x7f\x10\xda\xbe\x01\0\x01\0".to_vec()),
        (76, little(1, 4)),
        (368, little(5 << 20, 8)),
        (376, little(1 << 20, 4)),
        (384, little(5, 4)),
    ];
    let luks = vec![(0, b"LUKS\xba\xbe\0\x01".to_vec()), (104, big(8, 4))];
    let udf = vec![
        ((32 << 10) + 1, b"BEA01".to_vec()),
        ((34 << 10) + 1, b"NSR03".to_vec()),
    ];
    let mut backed = qcow2();
    backed.push((8, big(512, 8)));
    vec![
        image(0, &vec![]),
        image(5 << 16, &qcow2()),
        image(5 << 16, &backed),
        image(1000, &vec![(0, b"QED\0".to_vec())]),
        image(4608, &dynamic.concat()),
        image(2560, &footer(2048, 2, 2048)),
        image(2560, &[partitions(), footer(2048, 2, 2048)].concat()),
        image((1 << 20) + (130 << 10), &vhdx()),
        image(1 << 14, &vmdk("monolithicSparse")),
        image(1 << 14, &vmdk("monolithicFlat")),
        image(end + 1536, &streamed),
        image(4096, &vdi),
        image(40 << 10, &iso()),
        image(40 << 10, &[partitions(), iso()].concat()),
        image(40 << 10, &udf),
        image(1024, &partitions()),
        image(8192, &luks),
    ]
}
