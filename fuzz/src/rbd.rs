//! Ceph's differences, applied in a store; held against a reader that only knows the simple ones.

use crate::world::{self, BLOCK, WORLD};
use tegula_engine::{DeltaSource, Depth, RbdRequest, RbdVersion, Task};

/// What is made of any difference is what it says of its base, and the store stays sound. The first byte tells the version,
/// whether there is a base, and whether the difference can be read anywhere or comes in order.
pub fn rbd(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let version = match choice & 1 {
        0 => RbdVersion::V1,
        _ => RbdVersion::V2,
    };
    let base = (choice & 2 != 0).then_some("parent");
    let (_, engine) = world::open(&WORLD.files).unwrap();
    let before = engine.list().unwrap();
    let mut stream = bytes;
    let request = RbdRequest {
        source: DeltaSource::Stream(&mut stream),
        version,
        base: base.map(world::name),
        name: world::name("made"),
        replace: false,
    };
    let expected = applied(base.map(|base| &WORLD.images[base]), bytes, version);
    match engine.apply_rbd(request, Task::unattended()) {
        Ok(record) if record.virtual_size < 1 << 20 => {
            let found = world::get(&engine, &world::name("made")).unwrap();
            assert!(expected.is_none_or(|expected| expected == found));
        }
        Ok(_) => {}
        Err(_) => {
            assert_eq!(expected, None);
            assert_eq!(engine.list().unwrap(), before);
        }
    }
    let found = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
    assert_eq!(found.findings, []);
}

/// Applies a short difference that has nothing but a size and ranges in order, and the name of a snapshot first if it has a
/// base; `None` if it is another.
fn applied(base: Option<&Vec<u8>>, bytes: &[u8], version: RbdVersion) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(taken)
    };
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let (banner, framed) = match version {
        RbdVersion::V1 => (b"rbd diff v1\n", false),
        RbdVersion::V2 => (b"rbd diff v2\n", true),
    };
    (take(12)? == banner).then_some(())?;
    let (mut image, mut end, mut starts_from) = (None::<Vec<u8>>, 0, false);
    loop {
        let tag = take(1)?[0];
        if tag == b'e' {
            let nothing_follows = take(1).is_none();
            return image.filter(|_| nothing_follows && starts_from == base.is_some());
        }
        let stated = framed.then(|| take(8).map(number));
        let fits = |length: u64| stated.is_none_or(|stated| stated == Some(length));
        match (tag, &mut image) {
            (b'f', None) if !starts_from => {
                let length = u32::from_le_bytes(take(4)?.try_into().unwrap());
                (length <= 4096 && fits(4 + u64::from(length))).then_some(())?;
                take(length as usize)?;
                starts_from = true;
            }
            (b's', none @ None) => {
                let size = usize::try_from(number(take(8)?)).ok()?;
                (size <= 16 * BLOCK && fits(8)).then_some(())?;
                let mut begun = base.cloned().unwrap_or_default();
                begun.resize(size, 0);
                *none = Some(begun);
            }
            (b'w' | b'z', Some(image)) => {
                let offset = usize::try_from(number(take(8)?)).ok()?;
                let length = usize::try_from(number(take(8)?)).ok()?;
                let range = offset..offset.checked_add(length)?;
                (length > 0 && offset >= end && range.end <= image.len()).then_some(())?;
                end = range.end;
                let (content, stated) = match tag {
                    b'w' => (take(length)?.to_vec(), 16 + length as u64),
                    _ => (vec![0; length], 16),
                };
                fits(stated).then_some(())?;
                image[range].copy_from_slice(&content);
            }
            _ => return None,
        }
    }
}
