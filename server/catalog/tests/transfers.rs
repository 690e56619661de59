//! Bytes into the catalog and out of it: what is published, what fails without a trace, what a crash leaves.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};
use std::thread;
use tegula_catalog::HashAlgorithm;
use tegula_catalog::content::{Content, Named, Part, name_of};
use tegula_catalog::db;
use tegula_catalog::service::{
    Announced, Attribute, Change, OwnStoreError, Rules, Service, ServiceError, TransferError,
    TransferSettings, Transfers,
};
use tegula_domain::quota::Limits;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, NewImage, Visibility};
use tegula_engine::{
    BackendPreference, Destination, Engine, InitOptions, PutRequest, Source, StreamPiece,
    SystemClock, Task,
};

struct World {
    transfers: Transfers,
    owner: Caller,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(TransferSettings::default(), Limits::default())
    }

    fn limited(limits: Limits) -> Self {
        Self::with(TransferSettings::default(), limits)
    }

    fn with(settings: TransferSettings, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let (engine, _) =
            Engine::init(&path, BackendPreference::Auto, InitOptions::default()).unwrap();
        let next = std::sync::atomic::AtomicU8::new(0);
        let new_ids = move || {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ImageId::from_random([number; 16])
        };
        let service = Service::new(
            db::open_in_memory().unwrap(),
            Rules::default(),
            Arc::new(SystemClock),
            Arc::new(new_ids),
            limits,
        );
        Self {
            transfers: Transfers::new(service, Content::new(engine), settings),
            owner: Caller::new("user", "project", ["reader", "member"]),
            _directory: directory,
        }
    }

    fn create(&self, disk_format: &str) -> ImageId {
        let new = NewImage {
            disk_format: Some(disk_format.to_owned()),
            container_format: Some("bare".to_owned()),
            ..NewImage::default()
        };
        let view = self.transfers.service().create(&self.owner, new).unwrap();
        view.image().id.clone()
    }

    fn upload(&self, id: &ImageId, mut bytes: &[u8]) -> Result<Image, TransferError> {
        let announced = Announced::default();
        self.transfers
            .upload(&self.owner, id, announced, &mut bytes)
    }

    fn image(&self, id: &ImageId) -> Image {
        self.transfers
            .service()
            .catalog()
            .image(id)
            .unwrap()
            .unwrap()
    }

    fn bytes(&self, id: &ImageId, range: Range<u64>) -> Vec<u8> {
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
        download
            .stream(range, &mut sink, &AtomicBool::new(false))
            .unwrap();
        bytes
    }

    /// What the store has of the catalog's.
    fn stored(&self) -> Vec<Named> {
        self.transfers.content().list().unwrap()
    }

    /// Makes sure that an image is as if nobody had ever sent any bytes.
    #[track_caller]
    fn expect_untouched(&self, id: &ImageId) {
        let image = self.image(id);
        assert_eq!(image.status, ImageStatus::Queued);
        assert_eq!((image.size, image.virtual_size), (None, None));
        assert_eq!((image.checksum, image.hash), (None, None));
        assert_eq!(image.locations, []);
        assert_eq!(self.stored(), []);
        assert!(self.transfers.download(&self.owner, id).unwrap().is_none());
    }
}

/// The limit that an error is about, if it is about one.
fn over_limit(error: &TransferError) -> Option<u64> {
    match error {
        TransferError::Service(ServiceError::Limit(over)) => Some(over.limit),
        TransferError::Service(ServiceError::Full { limit, .. }) => Some(*limit),
        _ => None,
    }
}

/// Bytes that do not repeat within an image, and are the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Does something when so many bytes were read, and then fails or goes on.
struct Eventful<'a> {
    bytes: &'a [u8],
    at: usize,
    event: Box<dyn FnMut() -> io::Result<()> + 'a>,
    read: usize,
}

impl Read for Eventful<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.at {
            self.at = usize::MAX;
            (self.event)()?;
        }
        let end = self.bytes.len().min(self.at).min(self.read + 10_000);
        let mut rest = &self.bytes[self.read..end];
        let bytes = rest.read(buffer)?;
        self.read += bytes;
        Ok(bytes)
    }
}

#[test]
fn an_image_is_active_with_all_that_is_to_be_known_of_its_bytes() {
    let world = World::new();
    let mut bytes = noise(1, 3_000_000);
    bytes.extend(vec![0; 1 << 20]);
    bytes.extend(noise(2, 70_001));
    let size = bytes.len() as u64;
    let id = world.create("raw");
    let announced = Announced {
        bytes: Some(size),
        store: Some("native"),
    };
    let mut source = &*bytes;
    let image = world
        .transfers
        .upload(&world.owner, &id, announced, &mut source)
        .unwrap();
    assert_eq!(image, world.image(&id));
    assert_eq!(image.status, ImageStatus::Active);
    assert_eq!((image.size, image.virtual_size), (Some(size), Some(size)));
    assert_eq!(image.checksum.unwrap().len(), 32);
    let hash = image.hash.unwrap();
    assert_eq!((&*hash.algorithm, hash.value.len()), ("sha512", 128));
    assert_eq!(image.locations.len(), 1);
    assert_eq!(image.locations[0].store(), Some("native"));
    assert!(
        image
            .lineage
            .tree_hash
            .unwrap()
            .starts_with("blake3-tree:64k:")
    );
    assert!(world.bytes(&id, 0..size) == bytes);
    for range in [
        0..0,
        0..1,
        size - 1..size,
        size..size,
        65_535..2_999_999,
        3_500_000..3_500_001,
    ] {
        let part = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert!(world.bytes(&id, range.clone()) == bytes[part], "{range:?}");
    }
    let again = world.upload(&id, b"again").unwrap_err();
    let refused = |error: &TransferError| {
        matches!(error, TransferError::Service(ServiceError::Status { status, .. })
            if *status == ImageStatus::Active)
    };
    assert!(refused(&again), "{again:?}");
    assert!(world.bytes(&id, 0..size) == bytes);
}

#[test]
fn the_digests_are_those_that_everybody_computes() {
    // RFC 1321 A.5 and FIPS 180-4: of nothing, and of "abc".
    let settings = TransferSettings {
        hash: HashAlgorithm::Sha256,
        ..TransferSettings::default()
    };
    let world = World::with(settings, Limits::default());
    for (bytes, md5, sha256) in [
        (
            &b""[..],
            "d41d8cd98f00b204e9800998ecf8427e",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            b"abc",
            "900150983cd24fb0d6963f7d28e17f72",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
    ] {
        let id = world.create("raw");
        let image = world.upload(&id, bytes).unwrap();
        assert_eq!(image.size, Some(bytes.len() as u64));
        assert_eq!(image.checksum.as_deref(), Some(md5));
        assert_eq!(image.hash.unwrap().value, sha256);
        assert_eq!(world.bytes(&id, 0..bytes.len() as u64), bytes);
    }
}

#[test]
fn bytes_that_are_not_as_many_as_announced_leave_no_trace() {
    let world = World::new();
    let id = world.create("raw");
    let bytes = noise(1, 1_000_000);
    for announced in [0, 1, 999_999, 1_000_001] {
        let mut source = &*bytes;
        let error = world.transfers.upload(
            &world.owner,
            &id,
            Announced {
                bytes: Some(announced),
                store: None,
            },
            &mut source,
        );
        match error {
            Err(TransferError::Size { expected, .. }) => assert_eq!(expected, announced),
            other => panic!("{announced}: {other:?}"),
        }
        world.expect_untouched(&id);
    }
    let store = Announced {
        bytes: None,
        store: Some("elsewhere"),
    };
    let error = world
        .transfers
        .upload(&world.owner, &id, store, &mut &*bytes);
    assert!(matches!(error, Err(TransferError::NoStore(_))), "{error:?}");
    world.expect_untouched(&id);
    world.upload(&id, &bytes).unwrap();
}

#[test]
fn an_image_that_is_too_long_is_read_no_farther_than_it_may_be() {
    let world = World::limited(Limits {
        image_bytes: 1_000_000,
        ..Limits::default()
    });
    let id = world.create("raw");
    let bytes = noise(1, 50_000_000);
    let mut rest = &*bytes;
    let error = world
        .transfers
        .upload(&world.owner, &id, Announced::default(), &mut rest)
        .unwrap_err();
    assert!(over_limit(&error) == Some(1_000_000), "{error:?}");
    assert!(bytes.len() - rest.len() <= 1_300_000);
    world.expect_untouched(&id);
    // What is announced is refused before anything is read.
    let announced = Announced {
        bytes: Some(1_000_001),
        store: None,
    };
    let mut never = Eventful {
        bytes: &[],
        at: 0,
        event: Box::new(|| panic!("it was read")),
        read: 0,
    };
    let error = world
        .transfers
        .upload(&world.owner, &id, announced, &mut never)
        .unwrap_err();
    assert_eq!(over_limit(&error), Some(1_000_000), "{error:?}");
    world.upload(&id, &bytes[..1_000_000]).unwrap();
}

#[test]
fn the_room_of_a_project_is_asked_for_again_when_all_has_arrived() {
    let world = World::limited(Limits {
        project_bytes: Some(100),
        ..Limits::default()
    });
    let (first, second) = (world.create("raw"), world.create("raw"));
    let mut source = Eventful {
        bytes: &[7; 60],
        at: 30,
        // Meanwhile another one comes in, which has room as well.
        event: Box::new(|| {
            world
                .upload(&second, &[8; 60])
                .map(drop)
                .map_err(io::Error::other)
        }),
        read: 0,
    };
    let error = world
        .transfers
        .upload(&world.owner, &first, Announced::default(), &mut source)
        .unwrap_err();
    assert_eq!(over_limit(&error), Some(100), "{error:?}");
    assert_eq!(world.image(&first).status, ImageStatus::Queued);
    assert_eq!(world.stored(), [Named::Image(second.clone())]);
    world.upload(&first, &[9; 40]).unwrap();
}

#[test]
fn who_may_not_send_bytes_is_not_told_how_much_room_there_is() {
    let world = World::limited(Limits {
        project_bytes: Some(100),
        ..Limits::default()
    });
    let stored = world.create("raw");
    world.upload(&stored, &[7; 60]).unwrap();
    let new = NewImage {
        disk_format: Some("raw".to_owned()),
        container_format: Some("bare".to_owned()),
        visibility: Some(Visibility::Community),
        ..NewImage::default()
    };
    let view = world.transfers.service().create(&world.owner, new).unwrap();
    let id = &view.image().id;
    let stranger = Caller::new("stranger", "elsewhere", ["reader", "member"]);
    for (bytes, store) in [(1, None), (41, None), (1, Some("elsewhere"))] {
        let announced = Announced {
            bytes: Some(bytes),
            store,
        };
        let sent: [Result<Image, TransferError>; 2] = [
            world
                .transfers
                .upload(&stranger, id, announced, &mut &*vec![7; 41]),
            world
                .transfers
                .stage(&stranger, id, announced, &mut &*vec![7; 41]),
        ];
        for sent in sent {
            let denied = matches!(sent, Err(TransferError::Service(ServiceError::Denied(_))));
            assert!(denied, "{bytes} bytes to {store:?}: {sent:?}");
        }
    }
}

#[test]
fn dangerous_and_other_bytes_are_refused_without_a_trace_and_good_ones_taken_after() {
    let world = World::new();
    let mut backed = vec![0; 200_000];
    backed[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    backed[15] = 200;
    for (claimed, bytes) in [
        ("qcow2", &backed[..]),
        ("raw", &backed),
        ("qcow2", b"no qcow2"),
        ("qcow2", b""),
        ("vmdk", b"# Disk DescriptorFile\n"),
        ("ami", b"QED\0"),
    ] {
        let id = world.create(claimed);
        let error = world.upload(&id, bytes).unwrap_err();
        assert!(
            matches!(error, TransferError::Refused(_)),
            "{claimed}: {error:?}"
        );
        world.expect_untouched(&id);
    }
    // In another container they are not looked at.
    let new = NewImage {
        disk_format: Some("qcow2".to_owned()),
        container_format: Some("ova".to_owned()),
        ..NewImage::default()
    };
    let view = world.transfers.service().create(&world.owner, new).unwrap();
    let image = world.upload(&view.image().id, b"an archive").unwrap();
    assert_eq!(image.virtual_size, None);
    let id = world.create("raw");
    assert!(world.upload(&id, &backed).is_err());
    world.upload(&id, b"something harmless").unwrap();
    assert_eq!(world.bytes(&id, 0..18), b"something harmless");
}

#[test]
fn bytes_that_their_beginning_refuses_are_not_waited_for() {
    let world = World::new();
    let mut backed = vec![0; 50_000_000];
    backed[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    backed[15] = 200;
    for (claimed, bytes) in [("raw", backed), ("qcow2", noise(1, 50_000_000))] {
        let id = world.create(claimed);
        let mut rest = &*bytes;
        let error = world
            .transfers
            .upload(&world.owner, &id, Announced::default(), &mut rest)
            .unwrap_err();
        assert!(matches!(error, TransferError::Refused(_)), "{error:?}");
        assert!(bytes.len() - rest.len() <= 1_000_000, "{claimed}");
        world.expect_untouched(&id);
    }
}

#[test]
fn an_upload_that_breaks_off_anywhere_leaves_no_trace() {
    let world = World::new();
    let id = world.create("raw");
    let bytes = noise(1, 9_000_000);
    for at in [
        0, 1, 65_535, 65_536, 262_144, 262_145, 4_000_000, 8_999_999, 9_000_000,
    ] {
        let mut source = Eventful {
            bytes: &bytes,
            at,
            event: Box::new(|| Err(io::ErrorKind::ConnectionReset.into())),
            read: 0,
        };
        let error = world
            .transfers
            .upload(&world.owner, &id, Announced::default(), &mut source)
            .unwrap_err();
        match error {
            TransferError::Source { source, .. } => {
                assert_eq!(source.kind(), io::ErrorKind::ConnectionReset, "at {at}");
            }
            other => panic!("{at}: {other:?}"),
        }
        world.expect_untouched(&id);
    }
    world.upload(&id, &bytes).unwrap();
    assert!(world.bytes(&id, 0..9_000_000) == bytes);
}

#[test]
fn an_image_deleted_while_its_bytes_arrive_is_gone_with_them() {
    let world = World::new();
    let bytes = noise(1, 2_000_000);
    for (at, fails) in [
        (0, false),
        (1_000_000, false),
        (2_000_000, false),
        (1_000_000, true),
    ] {
        let id = world.create("raw");
        let mut source = Eventful {
            bytes: &bytes,
            at,
            event: Box::new(|| {
                world.transfers.delete(&world.owner, &id).unwrap();
                match fails {
                    true => Err(io::ErrorKind::ConnectionReset.into()),
                    false => Ok(()),
                }
            }),
            read: 0,
        };
        let error = world
            .transfers
            .upload(&world.owner, &id, Announced::default(), &mut source)
            .unwrap_err();
        assert!(
            matches!(&error, TransferError::Gone(gone) if *gone == id),
            "{error:?}"
        );
        drop(source);
        assert_eq!(
            world.transfers.service().catalog().image(&id).unwrap(),
            None
        );
        assert_eq!(world.stored(), []);
    }
}

#[test]
fn what_others_change_while_bytes_arrive_is_kept() {
    let world = World::new();
    let id = world.create("raw");
    let mut source = Eventful {
        bytes: &[7; 100_000],
        at: 50_000,
        event: Box::new(|| {
            for name in ["one", "two"] {
                let mut image = world.image(&id);
                assert_eq!(image.status, ImageStatus::Saving);
                image.name = Some(name.to_owned());
                world.transfers.service().catalog().save(&image).unwrap();
            }
            Ok(())
        }),
        read: 0,
    };
    let image = world
        .transfers
        .upload(&world.owner, &id, Announced::default(), &mut source)
        .unwrap();
    assert_eq!(
        (image.name.as_deref(), image.size),
        (Some("two"), Some(100_000))
    );
}

#[test]
fn of_many_who_send_at_once_one_is_taken() {
    let world = World::new();
    let id = world.create("raw");
    let count = 8;
    let start = Barrier::new(count);
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (world, id, start) = (&world, &id, &start);
                scope.spawn(move || {
                    start.wait();
                    (number, world.upload(id, &noise(number as u64, 300_000)))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
    assert_eq!((won.len(), lost.len()), (1, count - 1));
    for (_, result) in lost {
        let error = result.unwrap_err();
        assert!(
            matches!(error, TransferError::Service(ServiceError::Status { .. })),
            "{error:?}"
        );
    }
    assert!(world.bytes(&id, 0..300_000) == noise(won[0].0 as u64, 300_000));
}

#[test]
fn equal_images_that_arrive_at_once_are_whole_and_the_next_takes_up_no_room() {
    let world = World::new();
    let bytes = noise(1, 4 << 20);
    let ids: Vec<_> = (0..4).map(|_| world.create("raw")).collect();
    let uploaded: Vec<Image> = thread::scope(|scope| {
        let threads: Vec<_> = ids
            .iter()
            .map(|id| scope.spawn(|| world.upload(id, &bytes).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let first = &uploaded[0];
    assert!(
        uploaded
            .iter()
            .all(|image| image.checksum == first.checksum)
    );
    let engine = world.transfers.content().engine();
    let before = engine.statistics().unwrap();
    assert_eq!((before.images, before.chunks), (4, 64));
    let last = world.create("raw");
    world.upload(&last, &bytes).unwrap();
    assert_eq!(
        engine.statistics().unwrap().stored_bytes,
        before.stored_bytes
    );
    for id in ids.iter().chain([&last]) {
        assert!(world.bytes(id, 0..4 << 20) == bytes);
    }
}

#[test]
fn strangers_learn_nothing_and_an_image_without_formats_takes_no_bytes() {
    let world = World::new();
    let id = world.create("raw");
    let stranger = Caller::new("other", "elsewhere", ["reader", "member"]);
    let error = world
        .transfers
        .upload(&stranger, &id, Announced::default(), &mut &b"x"[..])
        .unwrap_err();
    assert!(
        matches!(error, TransferError::Service(ServiceError::NoImage(_))),
        "{error:?}"
    );
    world.upload(&id, b"bytes").unwrap();
    let error = world.transfers.download(&stranger, &id).unwrap_err();
    assert!(
        matches!(error, TransferError::Service(ServiceError::NoImage(_))),
        "{error:?}"
    );
    let view = world
        .transfers
        .service()
        .create(&world.owner, NewImage::default())
        .unwrap();
    let error = world.upload(&view.image().id, b"x").unwrap_err();
    assert!(
        matches!(error, TransferError::Service(ServiceError::Invalid(_))),
        "{error:?}"
    );
}

#[test]
fn a_download_follows_the_state_of_the_image() {
    let world = World::new();
    let id = world.create("raw");
    assert!(
        world
            .transfers
            .download(&world.owner, &id)
            .unwrap()
            .is_none()
    );
    world.upload(&id, b"0123456789").unwrap();
    let admin = Caller::new("root", "admin", ["admin"]);
    world.transfers.service().deactivate(&admin, &id).unwrap();
    let error = world.transfers.download(&world.owner, &id).unwrap_err();
    assert!(
        matches!(error, TransferError::Service(ServiceError::Forbidden(_))),
        "{error:?}"
    );
    assert!(world.transfers.download(&admin, &id).unwrap().is_some());
    world.transfers.service().reactivate(&admin, &id).unwrap();

    let download = world
        .transfers
        .download(&world.owner, &id)
        .unwrap()
        .unwrap();
    assert_eq!((download.bytes(), download.image().size), (10, Some(10)));
    let stop = AtomicBool::new(false);
    let error = download
        .stream(5..11, &mut |_| panic!("it is not there"), &stop)
        .unwrap_err();
    assert!(
        matches!(
            error,
            TransferError::Range {
                start: 5,
                end: 11,
                size: 10
            }
        ),
        "{error:?}"
    );
    let mut gone = |_| Err(io::ErrorKind::BrokenPipe.into());
    let error = download.stream(0..10, &mut gone, &stop).unwrap_err();
    assert!(
        matches!(&error, TransferError::Sink(source) if source.kind() == io::ErrorKind::BrokenPipe),
        "{error:?}"
    );
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = download
        .stream(0..10, &mut |_| panic!("it was to stop"), &stop)
        .unwrap_err();
    assert!(matches!(error, TransferError::Sink(_)), "{error:?}");

    // Whoever has it open reads on when it is deleted, and even when its bytes are freed.
    world.transfers.delete(&world.owner, &id).unwrap();
    world
        .transfers
        .content()
        .collect(&Default::default())
        .unwrap();
    let mut read = 0;
    let mut sink = |piece: StreamPiece| {
        read += piece.bytes();
        Ok(())
    };
    download
        .stream(0..10, &mut sink, &AtomicBool::new(false))
        .unwrap();
    assert_eq!(read, 10);
    let error = world.transfers.download(&world.owner, &id).unwrap_err();
    assert!(
        matches!(error, TransferError::Service(ServiceError::NoImage(_))),
        "{error:?}"
    );

    let lost = world.create("raw");
    world.upload(&lost, b"x").unwrap();
    world.transfers.content().remove(&lost, Part::Data).unwrap();
    let error = world.transfers.download(&world.owner, &lost).unwrap_err();
    assert!(matches!(error, TransferError::Missing(_)), "{error:?}");
}

#[test]
fn an_image_made_from_another_takes_up_only_what_differs() {
    let world = World::new();
    let parent = world.create("raw");
    let mut bytes = noise(1, 16 << 16);
    world.upload(&parent, &bytes).unwrap();
    let new = NewImage {
        disk_format: Some("raw".to_owned()),
        container_format: Some("bare".to_owned()),
        parent: Some(parent.clone()),
        ..NewImage::default()
    };
    let view = world.transfers.service().create(&world.owner, new).unwrap();
    bytes[70_000..70_100].copy_from_slice(&[9; 100]);
    let child = world.upload(&view.image().id, &bytes).unwrap();
    assert_eq!(child.lineage.parent, Some(parent.clone()));
    assert_eq!(child.lineage.delta_bytes, Some(65_536));
    assert_eq!(child.lineage.chain_depth, Some(1));
    // A parent may go at any time.
    world.transfers.delete(&world.owner, &parent).unwrap();
    world
        .transfers
        .content()
        .collect(&Default::default())
        .unwrap();
    assert!(world.bytes(&child.id, 0..16 << 16) == bytes);
}

#[test]
fn staged_bytes_are_kept_aside_until_they_are_imported() {
    let world = World::new();
    let bytes = noise(1, 5_000_000);
    let id = world.create("raw");
    let stage = |id: &ImageId, mut bytes: &[u8]| {
        world
            .transfers
            .stage(&world.owner, id, Announced::default(), &mut bytes)
    };
    let image = stage(&id, &bytes).unwrap();
    assert_eq!(
        (image.status, image.size),
        (ImageStatus::Uploading, Some(5_000_000))
    );
    assert_eq!(world.stored(), [Named::Staged(id.clone())]);
    assert!(
        world
            .transfers
            .download(&world.owner, &id)
            .unwrap()
            .is_none()
    );
    assert!(matches!(
        stage(&id, b"again"),
        Err(TransferError::Service(ServiceError::Status { .. }))
    ));
    let image = world.transfers.import_staged(&world.owner, &id).unwrap();
    assert_eq!(
        (image.status, image.size),
        (ImageStatus::Active, Some(5_000_000))
    );
    assert_eq!(world.stored(), [Named::Image(id.clone())]);
    assert!(world.bytes(&id, 0..5_000_000) == bytes);
    let twice = world
        .transfers
        .import_staged(&world.owner, &id)
        .unwrap_err();
    assert!(
        matches!(twice, TransferError::Service(ServiceError::Status { .. })),
        "{twice:?}"
    );

    world.transfers.delete(&world.owner, &id).unwrap();
    let wrong = world.create("qcow2");
    stage(&wrong, b"not what it says").unwrap();
    let error = world
        .transfers
        .import_staged(&world.owner, &wrong)
        .unwrap_err();
    assert!(matches!(error, TransferError::Refused(_)), "{error:?}");
    world.expect_untouched(&wrong);
    let deleted = world.create("raw");
    stage(&deleted, b"bytes").unwrap();
    world.transfers.delete(&world.owner, &deleted).unwrap();
    assert_eq!(world.stored(), []);
}

#[test]
fn what_a_crash_left_is_made_good_at_the_next_start() {
    let world = World::new();
    let (active, cut, published, staging, staged) = (
        world.create("raw"),
        world.create("raw"),
        world.create("raw"),
        world.create("raw"),
        world.create("raw"),
    );
    world.upload(&active, b"active").unwrap();
    let to = |id: &ImageId, status| {
        let mut image = world.image(id);
        image.transition(status).unwrap();
        world.transfers.service().catalog().save(&image).unwrap();
    };
    let content = world.transfers.content();
    let stop = AtomicBool::new(false);
    let put = |id: &ImageId, part| {
        content
            .put((id, part), &mut &b"bytes"[..], None, &stop)
            .unwrap();
    };
    // Crashed before the bytes were stored, and after that but before the image was saved.
    to(&cut, ImageStatus::Saving);
    to(&published, ImageStatus::Saving);
    put(&published, Part::Data);
    to(&staging, ImageStatus::Uploading);
    put(&staging, Part::Staged);
    let announced = Announced::default();
    world
        .transfers
        .stage(&world.owner, &staged, announced, &mut &b"all"[..])
        .unwrap();
    // Crashed between deleting an image and removing its bytes; and something that is nobody's business.
    let deleted = world.create("raw");
    world.upload(&deleted, b"deleted").unwrap();
    world
        .transfers
        .service()
        .delete(&world.owner, &deleted)
        .unwrap();
    let own = PutRequest {
        name: tegula_engine::ImageName::parse("by hand").unwrap(),
        source: Source::Stream(&mut &b"by hand"[..]),
        parent: None,
        replace: false,
    };
    content.engine().put(own, Task::unattended()).unwrap();

    let mut recovered = world.transfers.recover().unwrap();
    recovered.queued.sort();
    recovered.removed.sort();
    assert_eq!(
        recovered.queued,
        [cut.clone(), published.clone(), staging.clone()]
    );
    assert_eq!(
        recovered.removed,
        [published.clone(), staging.clone(), deleted]
    );
    assert_eq!(world.bytes(&active, 0..6), b"active");
    assert_eq!(
        world.stored(),
        [Named::Image(active.clone()), Named::Staged(staged.clone())]
    );
    let mut by_hand = Vec::new();
    let name = tegula_engine::ImageName::parse("by hand").unwrap();
    let to = Destination::Stream(&mut by_hand);
    content.engine().get(&name, to, Task::unattended()).unwrap();
    assert_eq!(by_hand, b"by hand");
    for id in [&cut, &published, &staging] {
        world.upload(id, b"once more").unwrap();
    }
    world
        .transfers
        .import_staged(&world.owner, &staged)
        .unwrap();
    let nothing = world.transfers.recover().unwrap();
    assert_eq!(nothing, Default::default());
}

#[test]
fn a_database_and_a_store_that_do_not_belong_together_are_told_apart() {
    let (world, other, mut mixed) = (World::new(), World::new(), World::new());
    let id = world.create("raw");
    world.upload(&id, b"bytes").unwrap();
    // As after an upgrade from a version that noted nothing: the database knows the store's images.
    world.transfers.own_store().unwrap();
    world.transfers.own_store().unwrap();
    other.transfers.own_store().unwrap();

    let mut put_together = |database: &World, store: &World| {
        mixed.transfers = Transfers::new(
            database.transfers.service().clone(),
            store.transfers.content().clone(),
            TransferSettings::default(),
        );
        mixed.transfers.own_store()
    };
    let error = put_together(&world, &other).unwrap_err();
    assert!(matches!(error, OwnStoreError::OtherStore { .. }), "{error}");
    let unused = World::new();
    for _ in 0..2 {
        let error = put_together(&unused, &world).unwrap_err();
        assert!(error.to_string().contains(id.as_str()), "{error}");
        assert!(
            matches!(error, OwnStoreError::OtherDatabase { images: 1, .. }),
            "{error}"
        );
    }
    assert_eq!(unused.transfers.service().catalog().store().unwrap(), None);
    assert_eq!(world.bytes(&id, 0..5), b"bytes");
}

#[test]
fn a_database_that_noted_no_store_takes_none_that_has_nothing_of_its_images() {
    let (world, empty, mut mixed) = (World::new(), World::new(), World::new());
    world.create("raw");
    let put_together = |mixed: &mut World| {
        mixed.transfers = Transfers::new(
            world.transfers.service().clone(),
            empty.transfers.content().clone(),
            TransferSettings::default(),
        );
        mixed.transfers.own_store()
    };
    // Hidden ones count, whoever else looks away.
    let id = world.create("raw");
    world.upload(&id, b"bytes").unwrap();
    let hide = [Change::Set(Attribute::Hidden(true))];
    let service = world.transfers.service();
    service.update(&world.owner, &id, &hide).unwrap();
    for _ in 0..2 {
        let error = put_together(&mut mixed).unwrap_err().to_string();
        assert!(
            error.contains(id.as_str()) && error.contains("take-store"),
            "{error}"
        );
        assert_eq!(service.catalog().store().unwrap(), None);
    }
    // Its own is taken; and images that have no bytes yet belong to any.
    world.transfers.delete(&world.owner, &id).unwrap();
    put_together(&mut mixed).unwrap();
    let error = world.transfers.own_store().unwrap_err();
    assert!(matches!(error, OwnStoreError::OtherStore { .. }), "{error}");
}

#[test]
fn names_in_the_store_are_ids_in_lower_case() {
    let id = ImageId::parse("01234567-89AB-cdef-0123-456789ABCDEF").unwrap();
    assert_eq!(
        name_of(&id, Part::Data).as_str(),
        "01234567-89ab-cdef-0123-456789abcdef"
    );
    let staged = name_of(&id, Part::Staged);
    assert_eq!(
        staged.as_str(),
        "staged-01234567-89ab-cdef-0123-456789abcdef"
    );
}
