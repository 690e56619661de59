//! Images of any kind and none: how the bytes are cut makes no difference, and what is accepted is what it says.
//!
//! Headers stand far apart, so an input is not the image but tells of it: what to cut it by, its length, and patches of an
//! otherwise empty one, each with its place and length.

use tegula_domain::inspect::{Inspection, InspectionRules, Inspector};
use tegula_io::SeededRandom;

/// The longest image: room for what a VHDX file has behind its second mebibyte.
const IMAGE_BYTES_MAX: usize = 3 << 20;

const CLAIMS: [&str; 11] = [
    "raw", "qcow2", "qed", "vhd", "vhdx", "vmdk", "vdi", "iso", "gpt", "luks", "ami",
];

/// Looks at an image whole and in pieces, and judges it by every claim.
pub fn inspect(data: &[u8]) {
    let (seed, image) = decode(data);
    let whole = in_pieces(&image, usize::MAX, seed);
    assert_eq!(whole.bytes, image.len() as u64);
    for longest in [700, 70_000] {
        if longest > 1000 || image.len() < 200_000 {
            assert_eq!(
                in_pieces(&image, longest, seed),
                whole,
                "pieces of at most {longest}"
            );
        }
    }
    let rules = InspectionRules::default();
    let accepted: Vec<_> = CLAIMS
        .iter()
        .filter_map(|claimed| Some((*claimed, whole.judge(claimed, &rules).ok()?)))
        .collect();
    for (claimed, judgement) in &accepted {
        if let Some(found) = judgement.found {
            assert!(
                ["raw", found.as_str()].contains(claimed),
                "{found} as {claimed}"
            );
        }
        if *claimed == "raw" {
            assert_eq!(judgement.virtual_size, Some(whole.bytes));
        }
        // Nobody who looks at the first bytes can be led to another file.
        assert!(!image.starts_with(b"QED\0"));
        if image.starts_with(b"QFI\xfb") {
            assert_eq!(image[8..16], [0; 8], "a backing file as {claimed}");
            let names_data = image[7] == 3 && image[79] & 4 != 0;
            assert!(!names_data, "a data file as {claimed}");
        }
        assert!(!image.starts_with(b"# Disk DescriptorFile"));
    }
    let formats = accepted
        .iter()
        .filter(|(claimed, _)| !["raw", "ami"].contains(claimed));
    assert!(formats.count() <= 1, "{accepted:?}");
}

fn in_pieces(image: &[u8], longest: usize, seed: u8) -> Inspection {
    let random = SeededRandom::new(seed.into());
    let mut inspector = Inspector::new();
    let mut rest = image;
    while !rest.is_empty() {
        let drawn = usize::try_from(random.next_u64() >> 40).unwrap() % longest.max(1);
        let length = match longest {
            usize::MAX => rest.len(),
            _ => drawn.min(rest.len()),
        };
        let (piece, after) = rest.split_at(length);
        inspector.push(piece);
        rest = after;
    }
    inspector.finish()
}

/// Tells of an image: see the module.
pub(crate) fn encode(seed: u8, length: usize, patches: &[(usize, &[u8])]) -> Vec<u8> {
    let three = |number: usize| u32::try_from(number).unwrap().to_le_bytes()[..3].to_vec();
    let mut data = [vec![seed], three(length)].concat();
    for (at, bytes) in patches {
        data.extend(three(*at));
        data.push(u8::try_from(bytes.len()).unwrap());
        data.extend_from_slice(bytes);
    }
    data
}

fn decode(data: &[u8]) -> (u8, Vec<u8>) {
    let three = |bytes: &[u8]| {
        let mut number = [0; 4];
        number[..bytes.len().min(3)].copy_from_slice(&bytes[..bytes.len().min(3)]);
        u32::from_le_bytes(number) as usize
    };
    let (head, mut rest) = data.split_at(data.len().min(4));
    let seed = head.first().copied().unwrap_or_default();
    let length = three(head.get(1..).unwrap_or_default()).min(IMAGE_BYTES_MAX);
    let mut image = vec![0; length];
    while let Some((place, after)) = rest.split_at_checked(4) {
        let (bytes, after) = after.split_at(usize::from(place[3]).min(after.len()));
        let at = three(&place[..3]).min(image.len());
        let room = bytes.len().min(image.len() - at);
        image[at..at + room].copy_from_slice(&bytes[..room]);
        rest = after;
    }
    (seed, image)
}
