//! Images that come as what differs from others, and what is told of the difference between two.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;
use tegula_catalog::content::Content;
use tegula_catalog::db::{self, Catalog};
use tegula_catalog::service::{
    Announced, Base, Increment, IncrementForm, Rules, Service, ServiceError, TransferError,
    TransferSettings, Transfers,
};
use tegula_domain::quota::Limits;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, NewImage, Visibility};
use tegula_engine::{
    BackendPreference, Engine, ExtentKind, ExtentWindow, InitOptions, StreamPiece, SystemClock,
    Task,
};

const BLOCK: usize = 65_536;

struct World {
    transfers: Transfers,
    catalog: Arc<dyn Catalog>,
    owner: Caller,
    directory: tempfile::TempDir,
}

fn transfers(catalog: &Arc<dyn Catalog>, engine: &Engine) -> Transfers {
    let next = AtomicU8::new(0);
    let new_ids = move || ImageId::from_random([next.fetch_add(1, Ordering::Relaxed); 16]);
    let service = Service::new(
        Arc::clone(catalog),
        Rules::default(),
        Arc::new(SystemClock),
        Arc::new(new_ids),
        Limits::default(),
    );
    Transfers::new(
        service,
        Content::new(engine.clone()),
        TransferSettings::default(),
    )
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (engine, _) =
            Engine::init(&path, BackendPreference::Blocking, InitOptions::default()).unwrap();
        let catalog = db::open_in_memory().unwrap();
        Self {
            transfers: transfers(&catalog, &engine),
            catalog,
            owner: Caller::new("user", "project", ["reader", "member"]),
            directory,
        }
    }

    fn create(&self, parent: Option<&ImageId>) -> ImageId {
        self.create_as(&self.owner, parent).unwrap()
    }

    fn create_as(
        &self,
        caller: &Caller,
        parent: Option<&ImageId>,
    ) -> Result<ImageId, ServiceError> {
        let new = NewImage {
            disk_format: Some("raw".to_owned()),
            container_format: Some("bare".to_owned()),
            visibility: Some(Visibility::Private),
            parent: parent.cloned(),
            ..NewImage::default()
        };
        let view = self.transfers.service().create(caller, new)?;
        Ok(view.image().id.clone())
    }

    fn put(&self, bytes: &[u8], parent: Option<&ImageId>) -> ImageId {
        self.put_as(&self.owner, bytes, parent)
    }

    fn put_as(&self, caller: &Caller, mut bytes: &[u8], parent: Option<&ImageId>) -> ImageId {
        let id = self.create_as(caller, parent).unwrap();
        let announced = Announced::default();
        self.transfers
            .upload(caller, &id, announced, &mut bytes)
            .unwrap();
        id
    }

    fn send(
        &self,
        id: &ImageId,
        mut delta: &[u8],
        parent_hash: Option<&str>,
    ) -> Result<Image, TransferError> {
        let increment = Increment {
            form: IncrementForm::Delta,
            parent_hash,
        };
        let announced = Announced {
            bytes: Some(delta.len() as u64),
            store: None,
        };
        self.transfers
            .upload_increment(&self.owner, id, increment, announced, &mut delta)
    }

    fn delta(&self, base: &Base, image: &ImageId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.transfers
            .delta(
                &self.owner,
                (image, base),
                &AtomicBool::new(false),
                |stream| {
                    let written = stream.write(0..u64::MAX, &mut bytes, Task::unattended());
                    written.map_err(TransferError::of_stream)
                },
            )
            .unwrap();
        bytes
    }

    fn image(&self, id: &ImageId) -> Image {
        self.catalog.image(id).unwrap().unwrap()
    }

    fn bytes(&self, id: &ImageId) -> Vec<u8> {
        let download = self.transfers.download(&self.owner, id).unwrap().unwrap();
        let mut bytes = Vec::new();
        let mut sink = |piece| {
            match piece {
                StreamPiece::Data(data) => bytes.extend_from_slice(&data),
                StreamPiece::Zeros(zeros) => {
                    bytes.resize(bytes.len() + usize::try_from(zeros).unwrap(), 0);
                }
            }
            Ok(())
        };
        let never = AtomicBool::new(false);
        download
            .stream(0..download.bytes(), &mut sink, &never)
            .unwrap();
        bytes
    }
}

/// Blocks of noise, the same for the same kind; 0 is zeros.
fn disk(kinds: &[u64]) -> Vec<u8> {
    let block = |kind: &u64| {
        let mut state = kind.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let words = std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.take(BLOCK / 8).flatten()
    };
    kinds.iter().flat_map(block).collect()
}

/// Waits until an image's hashes are known.
fn hashed(world: &World, transfers: &Transfers, id: &ImageId) -> Image {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| transfers.hash_in_background(&stop, &|_, error| panic!("{error}")));
        for _ in 0..3000 {
            if world.image(id).hash.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    world.image(id)
}

#[test]
fn an_increment_is_a_whole_image_at_once_and_has_its_hashes_later() {
    let (old, new) = (disk(&[1, 2, 3, 4]), disk(&[1, 20, 0, 4, 5]));
    let (operator, world) = (World::new(), World::new());
    let (their_old, parent) = (operator.put(&old, None), world.put(&old, None));
    let their_new = operator.put(&new, Some(&their_old));
    let delta = operator.delta(&Base::Parent, &their_new);
    assert!(
        delta.len() < 3 * BLOCK,
        "two blocks differ: {}",
        delta.len()
    );
    let child = world.create(Some(&parent));
    let tree = world.image(&parent).lineage.tree_hash.unwrap();
    let image = world.send(&child, &delta, Some(&tree)).unwrap();
    assert_eq!(image.status, ImageStatus::Active);
    assert_eq!(
        (image.size, image.virtual_size),
        (Some(new.len() as u64), Some(new.len() as u64))
    );
    assert_eq!((&image.checksum, &image.hash), (&None, &None));
    assert_eq!(image.lineage.parent, Some(parent.clone()));
    assert_eq!(image.lineage.chain_depth, Some(1));
    assert_eq!(image.lineage.delta_bytes, Some(2 * BLOCK as u64));
    assert_eq!(
        image.lineage.tree_hash,
        operator.image(&their_new).lineage.tree_hash
    );
    assert!(world.bytes(&child) == new);
    // A start after a crash knows nothing of what was queued, and finds it.
    let again = transfers(&world.catalog, world.transfers.content().engine());
    let image = hashed(&world, &again, &child);
    let whole = operator.image(&their_new);
    assert_eq!((image.checksum, image.hash), (whole.checksum, whole.hash));
    // And one that comes while the thread runs.
    let next = world.create(Some(&parent));
    let sent = world.send(&next, &delta, None).unwrap();
    assert_eq!(
        hashed(&world, &world.transfers, &sent.id).hash,
        image_hash(&operator, &their_new)
    );
}

fn image_hash(world: &World, id: &ImageId) -> Option<tegula_domain::ContentHash> {
    world.image(id).hash
}

#[test]
fn what_is_no_increment_of_the_parent_leaves_no_trace() {
    let (old, new) = (disk(&[1, 2, 3]), disk(&[1, 4, 3, 5]));
    let operator = World::new();
    let their_old = operator.put(&old, None);
    let their_new = operator.put(&new, Some(&their_old));
    let good = operator.delta(&Base::Parent, &their_new);
    let back = operator.delta(&Base::Image(their_new.clone()), &their_old);
    let full = operator.delta(&Base::Nothing, &their_new);
    let world = World::new();
    let parent = world.put(&old, None);
    let child = world.create(Some(&parent));
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    let cases: [(&str, Vec<u8>, bool); 8] = [
        ("a damaged one", damaged, false),
        ("one that is cut", good[..good.len() - 1].to_vec(), false),
        ("one that goes on", [&good[..], b"x"].concat(), false),
        ("nothing", Vec::new(), false),
        ("something else", b"no delta at all".to_vec(), false),
        ("noise", disk(&[9]), false),
        ("another pair's", back, true),
        ("one from nothing", full, true),
    ];
    for (what, delta, other_parent) in cases {
        let error = world.send(&child, &delta, None).unwrap_err();
        match (&error, other_parent) {
            (TransferError::OtherParent { .. }, true) | (TransferError::Increment(_), false) => {}
            _ => panic!("{what}: {error:?}"),
        }
        let image = world.image(&child);
        assert_eq!(image.status, ImageStatus::Queued, "{what}");
        assert_eq!(
            (image.size, image.lineage.tree_hash),
            (None, None),
            "{what}"
        );
        assert_eq!(image.lineage.parent, Some(parent.clone()));
        assert_eq!(world.transfers.content().list().unwrap().len(), 1, "{what}");
    }
    let error = world
        .send(&child, &good, Some("blake3-tree:64k:00"))
        .unwrap_err();
    assert!(
        matches!(error, TransferError::OtherParent { .. }),
        "{error}"
    );
    let orphan = world.create(None);
    let error = world.send(&orphan, &good, None).unwrap_err();
    let invalid = matches!(error, TransferError::Service(ServiceError::Invalid(_)));
    assert!(invalid, "{error}");
    world.send(&child, &good, None).unwrap();
    assert!(world.bytes(&child) == new);
}

#[test]
fn what_an_increment_makes_is_judged_like_any_image() {
    let (operator, world) = (World::new(), World::new());
    let old = disk(&[1, 2]);
    let mut hidden = old.clone();
    // A qcow2 head with a backing file, as if it were a disk's first bytes.
    hidden[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    let their_old = operator.put(&old, None);
    let parent = world.put(&old, None);
    // The operator's own catalog would not take it: its engine does.
    let engine = operator.transfers.content().engine();
    let name = tegula_engine::ImageName::parse("hidden").unwrap();
    let mut source = &hidden[..];
    let request = tegula_engine::PutRequest {
        name: name.clone(),
        source: tegula_engine::Source::Stream(&mut source),
        parent: None,
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap();
    let base = tegula_engine::ImageName::parse(&their_old.lower_case()).unwrap();
    let mut delta = Vec::new();
    engine
        .serve_delta(Some(&base), &name, Task::unattended(), |stream| {
            stream.write(0..u64::MAX, &mut delta, Task::unattended())
        })
        .unwrap();
    let child = world.create(Some(&parent));
    let error = world.send(&child, &delta, None).unwrap_err();
    assert!(matches!(error, TransferError::Refused(_)), "{error:?}");
    assert_eq!(world.image(&child).status, ImageStatus::Queued);
    assert_eq!(world.transfers.content().list().unwrap().len(), 1);
}

#[test]
fn who_may_not_download_both_images_learns_nothing_of_their_difference() {
    let world = World::new();
    let secret = world.put(&disk(&[1, 2]), None);
    let other = world.put(&disk(&[1, 3]), Some(&secret));
    let queued = world.create(None);
    let stranger = Caller::new("stranger", "elsewhere", ["reader", "member"]);
    let own = world.put_as(&stranger, &disk(&[1]), None);
    let reader = Caller::new("reader", "project", ["reader"]);
    let absent = ImageId::from_random([0xee; 16]);
    let ask = |caller: &Caller, image: &ImageId, base: &ImageId| {
        let (pair, never) = ((image, &Base::Image(base.clone())), AtomicBool::new(false));
        let delta = world.transfers.delta(caller, pair, &never, |_| Ok(()));
        let window = ExtentWindow {
            offset: 0,
            limit: 10,
            only: None,
        };
        let extents = world.transfers.extents(caller, pair, window).map(drop);
        let [delta, extents] = [delta, extents].map(|asked| asked.map_err(told));
        assert_eq!(delta, extents);
        delta
    };
    assert_eq!(ask(&world.owner, &other, &secret), Ok(()));
    assert_eq!(ask(&stranger, &secret, &own), Err("no image".to_owned()));
    assert_eq!(ask(&stranger, &absent, &own), Err("no image".to_owned()));
    let hidden = ask(&stranger, &own, &secret).unwrap_err();
    let nothing = ask(&stranger, &own, &absent).unwrap_err();
    assert_eq!(
        hidden.replace(secret.as_str(), "X"),
        nothing.replace(absent.as_str(), "X")
    );
    assert_eq!(ask(&reader, &other, &secret), Err("denied".to_owned()));
    assert_eq!(
        ask(&world.owner, &queued, &secret),
        Err("status".to_owned())
    );
    assert_eq!(
        ask(&world.owner, &secret, &queued),
        Err("status".to_owned())
    );
    let error = world.create_as(&stranger, Some(&secret)).unwrap_err();
    assert!(matches!(error, ServiceError::Invalid(_)), "{error}");
}

#[test]
fn a_parent_that_is_not_to_be_had_any_more_is_not_compared_with() {
    let world = World::new();
    let old = disk(&[1, 2]);
    let parent = world.put(&old, None);
    let child = world.create(Some(&parent));
    let admin = Caller::new("admin", "admins", ["admin", "member", "reader"]);
    world
        .transfers
        .service()
        .deactivate(&admin, &parent)
        .unwrap();
    let (announced, mut bytes) = (Announced::default(), &*disk(&[1, 3]));
    let image = world
        .transfers
        .upload(&world.owner, &child, announced, &mut bytes)
        .unwrap();
    assert_eq!(image.lineage.parent, Some(parent));
    assert_eq!(image.lineage.delta_bytes, None);
}

fn told(error: TransferError) -> String {
    match error {
        TransferError::Service(ServiceError::NoImage(_)) => "no image".to_owned(),
        TransferError::Service(ServiceError::Denied(_)) => "denied".to_owned(),
        TransferError::Service(ServiceError::Status { .. }) => "status".to_owned(),
        error => error.to_string(),
    }
}

#[test]
fn chains_get_shorter_parents_go_and_no_byte_changes() {
    let world = World::new();
    let disks = [
        disk(&[1, 2, 3]),
        disk(&[1, 9, 3]),
        disk(&[1, 9, 8]),
        disk(&[0, 9, 8]),
    ];
    let mut ids: Vec<ImageId> = Vec::new();
    for bytes in &disks {
        ids.push(world.put(bytes, ids.last()));
    }
    let top = &ids[3];
    assert_eq!(world.image(top).lineage.chain_depth, Some(3));
    let window = ExtentWindow {
        offset: 0,
        limit: 10,
        only: None,
    };
    let pair = (top, &Base::Parent);
    let (page, base) = world.transfers.extents(&world.owner, pair, window).unwrap();
    assert_eq!(base, Some(ids[2].clone()));
    assert_eq!(page.extents.len(), 1);
    assert_eq!(page.extents[0].kind, ExtentKind::Zero);
    let stranger = Caller::new("stranger", "elsewhere", ["reader", "member"]);
    let refused = world.transfers.coalesce(&stranger, top, &ids[0]);
    assert!(refused.is_err());
    let error = world
        .transfers
        .coalesce(&world.owner, &ids[1], top)
        .unwrap_err();
    let invalid = matches!(error, TransferError::Service(ServiceError::Invalid(_)));
    assert!(invalid, "a child is no ancestor: {error}");
    let image = world
        .transfers
        .coalesce(&world.owner, top, &ids[0])
        .unwrap();
    assert_eq!(image.lineage.parent, Some(ids[0].clone()));
    assert_eq!(image.lineage.chain_depth, Some(1));
    assert_eq!(image.lineage.delta_bytes, Some(2 * BLOCK as u64));
    world.transfers.delete(&world.owner, &ids[0]).unwrap();
    assert_eq!(
        world.image(top).lineage.parent,
        Some(ids[0].clone()),
        "it is said where it came from"
    );
    let image = world.transfers.flatten(&world.owner, top).unwrap();
    assert_eq!(
        (&image.lineage.parent, image.lineage.chain_depth),
        (&None, None)
    );
    assert!(image.lineage.tree_hash.is_some());
    for (id, bytes) in ids.iter().zip(&disks).skip(1) {
        assert!(world.bytes(id) == *bytes);
    }
}

#[test]
fn what_an_increment_is_said_to_add_does_not_tell_what_others_have_stored() {
    let world = World::new();
    let operator = World::new();
    let disk = |last: u8| [vec![1; BLOCK], vec![2; BLOCK], vec![last; BLOCK]].concat();
    let stranger = Caller::new("other", "other", ["reader", "member"]);
    world.put_as(&stranger, &vec![7; BLOCK], None);
    let parent = world.put(&disk(3), None);
    // One whole, one as a delta; of each kind one whose new block nobody has, and one whose block the stranger has.
    let said: Vec<Option<u64>> = [5, 7]
        .into_iter()
        .flat_map(|block| {
            let whole = world.image(&world.put(&disk(block), Some(&parent)));
            let theirs = operator.put(&disk(3), None);
            let changed = operator.put(&disk(block), None);
            let delta = operator.delta(&Base::Image(theirs), &changed);
            let sent = world.create(Some(&parent));
            let sent = world.send(&sent, &delta, None).unwrap();
            [whole.lineage.delta_bytes, sent.lineage.delta_bytes]
        })
        .collect();
    assert_eq!(said, [Some(BLOCK as u64); 4]);
}

#[test]
fn a_directory_that_takes_nothing_is_the_operators_to_know() {
    let world = World::new();
    let parent = world.put(&[1; BLOCK], None);
    let child = world.create(Some(&parent));
    let store = world.directory.path().join("store");
    let (engine, _) = Engine::open(&store, BackendPreference::Blocking).unwrap();
    let settings = TransferSettings {
        gather_in: world.directory.path().join("nowhere"),
        ..TransferSettings::default()
    };
    let service = world.transfers.service().clone();
    let transfers = Transfers::new(service, Content::new(engine), settings);
    let increment = Increment {
        form: IncrementForm::Qcow2,
        parent_hash: None,
    };
    let announced = Announced::default();
    let error = transfers
        .upload_increment(&world.owner, &child, increment, announced, &mut &b"QFI"[..])
        .unwrap_err();
    assert!(matches!(error, TransferError::Store(_)), "{error:?}");
    assert_eq!(world.image(&child).status, ImageStatus::Queued);
    // What was gathered where it can be is not a qcow2 file, and that is the client's to know.
    let error = world
        .transfers
        .upload_increment(&world.owner, &child, increment, announced, &mut &b"QFI"[..])
        .unwrap_err();
    assert!(matches!(error, TransferError::Increment(_)), "{error:?}");
}
