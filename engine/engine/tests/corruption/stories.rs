//! Single histories that the sweeps found or that they rest on, each told once.

use crate::change::Change;
use crate::world::{self, World, name};
use tegula_engine::{Depth, Engine, Task};
use tegula_io::StorePath;

fn damaged(world: &World, change: &Change) -> Engine {
    let mut files = world.files.clone();
    change.apply(&mut files);
    world::open(&files, 2).unwrap().1
}

fn get(engine: &Engine, image: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = tegula_engine::Destination::Stream(&mut bytes);
    engine.get(&name(image), to, Task::unattended()).unwrap();
    bytes
}

fn findings(engine: &Engine) -> Vec<String> {
    let verification = engine.verify(Depth::Full, &[], Task::unattended());
    let findings = verification.unwrap().findings.into_iter();
    findings.map(|finding| finding.message).collect()
}

#[test]
fn swapped_records_are_put_back_without_a_copy() {
    let world = World::new();
    let engine = damaged(
        &world,
        &Change::SwapFiles {
            a: "images/child.image".to_owned(),
            b: "images/parent.image".to_owned(),
        },
    );
    let report = engine.repair(None, Task::unattended()).unwrap();
    assert_eq!(report.restored_records.len(), 2);
    assert!(get(&engine, "child") == world.images["child"]);
    assert!(get(&engine, "parent") == world.images["parent"]);
    assert_eq!(findings(&engine), [""; 0]);
}

#[test]
fn a_layer_in_a_records_place_does_not_become_the_image() {
    let world = World::new();
    // The child's layer names the parent's: 32 bytes that are a layer's id.
    let layer = world
        .layer_users
        .iter()
        .find(|(_, users)| users.iter().eq(["child"].iter()));
    let engine = damaged(
        &world,
        &Change::Replay {
            path: "images/child.image".to_owned(),
            bytes: world.files[layer.unwrap().0].clone(),
        },
    );
    let report = engine.repair(None, Task::unattended()).unwrap();
    assert_eq!(report.restored_records, [""; 0]);
    let copy = world::open(&world.files, 3).unwrap().1;
    engine.repair(Some(&copy), Task::unattended()).unwrap();
    assert!(get(&engine, "child") == world.images["child"]);
    assert_eq!(findings(&engine), [""; 0]);
}

#[test]
fn the_number_of_a_lost_segment_is_not_given_to_another() {
    let world = World::new();
    let last = world.segments.keys().next_back().unwrap();
    let engine = damaged(&world, &Change::Delete { path: last.clone() });
    // The file itself is named, with whom it concerns.
    let verified = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
    let named: Vec<_> = verified
        .findings
        .iter()
        .filter(|finding| finding.path == *last)
        .collect();
    assert!(
        matches!(&*named, [one] if !one.images.is_empty() && !one.derived),
        "{:?}",
        verified.findings
    );
    // Nothing else was lost, so the lost segment's rows still stand in its run when this one is written.
    let bytes = world::block(world::Kind::Noise(77));
    world::put(&engine, "new", &bytes, None, false);
    let store = engine.store().environment().storage.clone();
    assert!(store.open(&StorePath::new(last.as_str())).is_err());
    // Chunks that stood only there are known to be missing: they are stored again.
    world::put(&engine, "other", &world.images["other"], None, true);
    assert!(get(&engine, "other") == world.images["other"]);
    assert!(get(&engine, "new") == bytes);
}

#[test]
fn a_store_without_collection_state_is_repaired() {
    let world = World::new();
    let path = "gc.state".to_owned();
    let engine = damaged(&world, &Change::Delete { path });
    assert!(engine.store().begin().is_err());
    let verified = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
    let found = &verified.findings;
    assert!(
        matches!(&**found, [one] if one.path == "gc.state" && one.derived),
        "{found:?}"
    );
    assert_eq!(verified.images, world.images.len() as u64);
    let report = engine.repair(None, Task::unattended()).unwrap();
    assert!(report.state_restored);
    assert!(get(&engine, "child") == world.images["child"]);
    engine.collect(&Default::default()).unwrap();
    assert_eq!(findings(&engine), [""; 0]);
}

#[test]
fn an_image_whose_layers_are_gone_can_be_removed() {
    let world = World::new();
    let path = "images/gone.image".to_owned();
    let bytes = world.removed[&path].clone();
    let engine = damaged(&world, &Change::Return { path, bytes });
    assert_eq!(findings(&engine).len(), 1);
    engine.store().remove(&name("gone")).unwrap();
    assert_eq!(findings(&engine), [""; 0]);
}

#[test]
fn a_store_with_quarantined_chunks_is_as_well_guarded() {
    let world = World::new();
    // One chunk is damaged and healed from a copy: its place goes into the list.
    let (path, segment) = world.segments.iter().next().unwrap();
    let row = segment.rows[0];
    let byte = usize::try_from(row.offset).unwrap() + row.record_bytes() - 1;
    let flip = Change::Flip {
        path: path.clone(),
        byte,
        bit: 0,
    };
    let mut files = world.files.clone();
    flip.apply(&mut files);
    let (storage, engine) = world::open(&files, 2).unwrap();
    let copy = world::open(&world.files, 3).unwrap().1;
    engine.repair(Some(&copy), Task::unattended()).unwrap();
    assert_eq!(findings(&engine), [""; 0]);
    let healed = world::files_of(&storage);
    let list = "quarantine/places".to_owned();

    let check = |change: &Change| {
        let mut files = healed.clone();
        change.apply(&mut files);
        let engine = world::open(&files, 4).unwrap().1;
        match engine.verify(Depth::Full, &[], Task::unattended()) {
            Err(error) => panic!("{change}: {error}"),
            // Without a list the damaged record is found anew, though nobody needs it any more.
            Ok(verification) => {
                let found = &verification.findings;
                assert!(
                    found.iter().any(|finding| finding.path == *path),
                    "{change}"
                );
            }
        }
        engine.repair(None, Task::unattended()).unwrap();
        assert_eq!(findings(&engine), [""; 0], "{change}");
        for (image, bytes) in &world.images {
            assert!(get(&engine, image) == *bytes, "{change}: {image}");
        }
    };
    let length = healed[&list].len();
    for byte in 0..length {
        // A list of another version is left alone, see `beyond_repair`.
        for bit in (0..8).filter(|_| !(8..10).contains(&byte)) {
            let path = list.clone();
            check(&Change::Flip { path, byte, bit });
        }
        let path = list.clone();
        check(&Change::Truncate { path, length: byte });
    }
    check(&Change::Delete { path: list.clone() });
}
