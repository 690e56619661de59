//! Whole stores with one hostile file.

use crate::reseal;
use crate::world::{self, Files, WORLD, get, name};
use std::time::Duration;
use tegula_engine::{
    BlockSize, CollectOptions, Depth, Engine, EngineError, ImageDigest, OpenImage, Task,
};
use tegula_format::{ChunkId, ImageDigester, ImageRecord, LayerHeader};

/// How a file becomes hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// As disks and bugs do it: checksums stay as they are.
    Blind,
    /// As an enemy does it: checksums fit.
    Resealed,
}

/// The first two bytes choose a file of a sound store and how the rest changes it.
///
/// Opening, listing, verifying, reading, collecting and writing may fail but neither panic nor go on for ever. Without
/// fitting checksums no wrong byte is served; with them, none that the image's own record does not vouch for.
pub fn store_file(data: &[u8]) {
    let Some(([file, mode], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut files = WORLD.files.clone();
    let file = usize::from(*file) % (files.len() + 1);
    // A sound store has no quarantine list; a hostile one may.
    let list = "quarantine/places".to_owned();
    let path = files.keys().nth(file).cloned().unwrap_or(list);
    let before = files.get(&path).cloned().unwrap_or_default();
    let changed = match mode % 4 {
        0 | 1 => rest.to_vec(),
        _ => edited(&before, rest),
    };
    let damage = match mode % 2 {
        0 => Damage::Blind,
        _ => Damage::Resealed,
    };
    let sound = files.get(&path) == Some(&changed);
    files.insert(path.clone(), changed);
    if damage == Damage::Resealed {
        reseal_file(&mut files, &path);
    }
    let engine = match world::open(&files) {
        Ok((_, engine)) => engine,
        // Without its configuration.
        Err(_) => match world::open_to_repair(&files) {
            Ok(engine) => engine,
            Err(_) => return,
        },
    };
    let listed = engine.list();
    let found = engine.verify(Depth::Full, &[], Task::unattended());
    if sound && damage == Damage::Blind {
        assert!(listed.is_ok() && found.is_ok_and(|found| found.findings.is_empty()));
    }
    for image in WORLD.images.keys() {
        check_image(&engine, image, damage);
    }
    _ = engine.usage(&[]);
    _ = engine.statistics();
    _ = engine.diff(&name("parent"), &name("child"));
    change_store(&engine);
}

/// Applies edits of three bytes: an offset of 16 bits, and what to exclusive-or the byte there with. A last odd byte
/// cuts the file by as much.
fn edited(bytes: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let edits = edits.chunks_exact(3);
    let rest = edits.remainder();
    for edit in edits {
        let [low, high, change] = edit else { continue };
        let at = usize::from(u16::from_le_bytes([*low, *high])) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= change;
        }
    }
    let cut = rest.first().copied().map_or(0, usize::from);
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

/// Makes a file's checksums fit. A layer's name is a hash of its bytes: it gets its new one, and so do the records
/// that name it.
fn reseal_file(files: &mut Files, path: &str) {
    let Some(bytes) = files.get_mut(path) else {
        return;
    };
    *bytes = match path.split_once('/').map(|(directory, _)| directory) {
        Some("segments") => reseal::segment(bytes),
        Some("index") if path.ends_with(".sketches") => reseal::sketch_run(bytes),
        Some("index") => reseal::run(bytes),
        Some("layers") => reseal::layer(bytes),
        _ => reseal::whole_envelope(bytes),
    };
    let head = LayerHeader::decode(bytes, bytes.len() as u64);
    if let (Ok(head), true) = (head, path.starts_with("layers/")) {
        let bytes = files.remove(path).unwrap_or_default();
        files.insert(format!("layers/{}.layer", head.id()), bytes);
        for (_, bytes) in files
            .iter_mut()
            .filter(|(path, _)| path.starts_with("images/"))
        {
            if let Ok(record) = ImageRecord::decode(bytes)
                && path == format!("layers/{}.layer", record.layer)
            {
                let layer = head.id();
                *bytes = ImageRecord { layer, ..record }.encode();
            }
        }
    }
}

fn check_image(engine: &Engine, image: &str, damage: Damage) {
    let expected = &WORLD.images[image];
    let got = get(engine, &name(image));
    let read = read_at(engine, image);
    match damage {
        Damage::Blind => {
            assert!(got.is_err() || got.is_ok_and(|bytes| bytes == *expected));
            assert!(read.is_err() || read.is_ok_and(|bytes| bytes == *expected));
        }
        Damage::Resealed => {
            if let Ok(bytes) = got {
                let session = engine.store().begin().unwrap();
                let record = session.image(&name(image)).unwrap();
                assert_eq!(bytes.len() as u64, record.virtual_size);
                assert_eq!(digest_of(&bytes), record.digest);
            }
        }
    }
}

/// Reads the first mebibyte of an image, piece by piece, and a piece at its end.
fn read_at(engine: &Engine, image: &str) -> Result<Vec<u8>, EngineError> {
    let session = engine.store().begin()?;
    let image = OpenImage::open(&session, &name(image))?;
    let size = image.record().virtual_size;
    let mut bytes = vec![0; usize::try_from(size.min(1 << 20)).unwrap()];
    let mut offset = 0;
    for piece in bytes.chunks_mut(3000) {
        image.read_at(piece, offset)?;
        offset += piece.len() as u64;
    }
    let mut end = [0; 100];
    if let Some(offset) = size.checked_sub(100) {
        image.read_at(&mut end, offset)?;
    }
    assert!(image.read_at(&mut end, size.saturating_sub(99)).is_err());
    Ok(bytes)
}

/// Computes an image's digest the plain way (SPEC 8).
fn digest_of(bytes: &[u8]) -> ImageDigest {
    let mut digester = ImageDigester::new(bytes.len() as u64, BlockSize::MIN);
    for piece in bytes.chunks(world::BLOCK) {
        let mut block = piece.to_vec();
        block.resize(world::BLOCK, 0);
        match block.iter().all(|byte| *byte == 0) {
            true => digester.push_zeros(1),
            false => digester.push_data(&ChunkId::of(&block)),
        }
    }
    digester.finish()
}

/// Writes to the store and collects: whatever is acknowledged must be there.
fn change_store(engine: &Engine) {
    let image = name("new");
    // Nothing but new chunks: whether an old one is whole is not known before a repair.
    let bytes = world::disk(&[6, 11, 0, 14], 1);
    if world::put(engine, &image, &bytes, None, false).is_ok() {
        let got = get(engine, &image);
        assert!(
            got.is_ok_and(|got| got == bytes),
            "an acknowledged image is lost"
        );
    }
    // As long as the clock stands still, all that is moved is compressed better.
    let compressing = CollectOptions {
        min_live: 1.0,
        patience: Duration::ZERO,
        ..CollectOptions::default()
    };
    _ = engine.collect(&compressing);
    _ = engine.store().coalesce(&name("child"), None);
    _ = engine
        .store()
        .coalesce(&name("child"), Some(&name("other")));
    _ = engine
        .store()
        .clone_image(&name("child"), &name("twin"), false);
    _ = engine.store().flatten(&name("child"), true);
    _ = engine.store().rename(&name("other"), &name("moved"));
    _ = engine.store().remove(&name("parent"));
    _ = engine.collect(&CollectOptions {
        recompress: Duration::ZERO,
        ..compressing
    });
    _ = engine.repair(None, Task::unattended());
    _ = engine.verify(Depth::Fast, &[], Task::unattended());
}
