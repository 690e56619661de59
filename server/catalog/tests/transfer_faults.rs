//! Uploads while the database or the store's disk fails at any call: whatever the caller is told, an image is either queued
//! with nothing stored, or active and whole, at the latest after the next start.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tegula_catalog::content::{Content, Named};
use tegula_catalog::db::{self, Catalog, CatalogError, ProjectUsage};
use tegula_catalog::service::{
    Announced, Rules, Service, ServiceError, TransferError, TransferSettings, Transfers,
};
use tegula_domain::query::ImageQuery;
use tegula_domain::quota::Limits;
use tegula_domain::{
    Caller, Image, ImageId, ImageStatus, Member, MemberStatus, NewImage, Timestamp,
};
use tegula_engine::{
    BlockSize, Engine, Environment, InitOptions, Store, StreamPiece, SystemClock, Workers,
};
use tegula_io::SeededRandom;
use tegula_io::sim::{Fault, Repeat, SimDisk};

/// How a call of the database fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// It was not done.
    NotDone,
    /// It was done, and the answer was lost.
    DoneButLost,
}

/// A database some of whose calls fail, or are late.
#[derive(Debug)]
struct Faulty {
    catalog: Arc<dyn Catalog>,
    calls: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    lost: AtomicBool,
    /// Before which call somebody gives the images that are being imported another format.
    late: AtomicU64,
}

impl Faulty {
    fn new() -> Self {
        Self {
            catalog: db::open_in_memory().unwrap(),
            calls: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            last: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            late: AtomicU64::new(0),
        }
    }

    /// Does what a PATCH may do meanwhile. Returns whether there was such an image.
    fn change_formats(&self) -> bool {
        let importing = self.catalog.in_status(&[ImageStatus::Importing]).unwrap();
        for mut image in importing.iter().cloned() {
            image.disk_format = Some("iso".to_owned());
            self.catalog.save(&image).unwrap();
        }
        !importing.is_empty()
    }

    /// Lets some calls fail, counted from 1 from now on.
    fn fail(&self, calls: std::ops::RangeInclusive<u64>, failure: Failure) {
        self.calls.store(0, Ordering::SeqCst);
        self.lost
            .store(failure == Failure::DoneButLost, Ordering::SeqCst);
        self.last.store(*calls.end(), Ordering::SeqCst);
        self.first.store(*calls.start(), Ordering::SeqCst);
    }

    fn call<T>(
        &self,
        call: impl FnOnce(&dyn Catalog) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.late.load(Ordering::SeqCst) && !self.change_formats() {
            self.late.store(0, Ordering::SeqCst);
        }
        let fails = (self.first.load(Ordering::SeqCst)..=self.last.load(Ordering::SeqCst))
            .contains(&number);
        let failed = || CatalogError::Database("it cannot be reached".into());
        match (fails, self.lost.load(Ordering::SeqCst)) {
            (false, _) => call(&*self.catalog),
            (true, false) => Err(failed()),
            (true, true) => call(&*self.catalog).and_then(|_| Err(failed())),
        }
    }
}

impl Catalog for Faulty {
    fn insert(&self, image: &Image) -> Result<(), CatalogError> {
        self.call(|catalog| catalog.insert(image))
    }

    fn image(&self, id: &ImageId) -> Result<Option<Image>, CatalogError> {
        self.call(|catalog| catalog.image(id))
    }

    fn save(&self, image: &Image) -> Result<u64, CatalogError> {
        self.call(|catalog| catalog.save(image))
    }

    fn save_within(&self, image: &Image, project_bytes: u64) -> Result<u64, CatalogError> {
        self.call(|catalog| catalog.save_within(image, project_bytes))
    }

    fn list(
        &self,
        query: &ImageQuery,
        shown: &dyn Fn(&Image) -> bool,
    ) -> Result<Vec<Image>, CatalogError> {
        self.call(|catalog| catalog.list(query, shown))
    }

    fn in_status(&self, statuses: &[ImageStatus]) -> Result<Vec<Image>, CatalogError> {
        self.call(|catalog| catalog.in_status(statuses))
    }

    fn without_hash(&self) -> Result<Vec<ImageId>, CatalogError> {
        self.call(|catalog| catalog.without_hash())
    }

    fn ids(&self) -> Result<Vec<ImageId>, CatalogError> {
        self.call(|catalog| catalog.ids())
    }

    fn members(&self, image: &ImageId) -> Result<Vec<Member>, CatalogError> {
        self.call(|catalog| catalog.members(image))
    }

    fn member(&self, image: &ImageId, project: &str) -> Result<Option<Member>, CatalogError> {
        self.call(|catalog| catalog.member(image, project))
    }

    fn insert_member(
        &self,
        image: &ImageId,
        member: &Member,
        limit: u64,
    ) -> Result<(), CatalogError> {
        self.call(|catalog| catalog.insert_member(image, member, limit))
    }

    fn set_member(
        &self,
        image: &ImageId,
        project: &str,
        status: MemberStatus,
        now: Timestamp,
    ) -> Result<Member, CatalogError> {
        self.call(|catalog| catalog.set_member(image, project, status, now))
    }

    fn remove_member(&self, image: &ImageId, project: &str) -> Result<(), CatalogError> {
        self.call(|catalog| catalog.remove_member(image, project))
    }

    fn usage(&self, project: &str) -> Result<ProjectUsage, CatalogError> {
        self.call(|catalog| catalog.usage(project))
    }

    fn store(&self) -> Result<Option<String>, CatalogError> {
        self.call(|catalog| catalog.store())
    }

    fn note_store(&self, store: &str) -> Result<String, CatalogError> {
        self.call(|catalog| catalog.note_store(store))
    }

    fn forget_store(&self) -> Result<Option<String>, CatalogError> {
        self.call(|catalog| catalog.forget_store())
    }

    fn check(&self) -> Result<(), CatalogError> {
        self.call(|catalog| catalog.check())
    }
}

struct World {
    catalog: Arc<Faulty>,
    disk: SimDisk,
    transfers: Transfers,
    owner: Caller,
    id: ImageId,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new();
        let environment = Environment {
            storage: Arc::new(disk.clone()),
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(1)),
        };
        let options = InitOptions {
            block_size: BlockSize::MIN,
            zstd_level: 1,
            ..InitOptions::default()
        };
        let engine = Engine::new(Store::init(environment, options).unwrap(), Workers::Inline);
        let catalog = Arc::new(Faulty::new());
        let service = Service::new(
            Arc::clone(&catalog) as Arc<dyn Catalog>,
            Rules::default(),
            Arc::new(SystemClock),
            Arc::new(|| ImageId::from_random([7; 16])),
            Limits::default(),
        );
        let settings = TransferSettings::default();
        let transfers = Transfers::new(service, Content::new(engine), settings);
        let owner = Caller::new("user", "project", ["reader", "member"]);
        let new = NewImage {
            disk_format: Some("raw".to_owned()),
            container_format: Some("bare".to_owned()),
            ..NewImage::default()
        };
        let view = transfers.service().create(&owner, new).unwrap();
        let id = view.image().id.clone();
        Self {
            catalog,
            disk,
            transfers,
            owner,
            id,
        }
    }

    fn upload(&self, mut bytes: &[u8]) -> Result<Image, TransferError> {
        let announced = Announced::default();
        self.transfers
            .upload(&self.owner, &self.id, announced, &mut bytes)
    }

    fn image(&self) -> Image {
        self.catalog.catalog.image(&self.id).unwrap().unwrap()
    }

    fn stored(&self) -> Vec<Named> {
        self.transfers.content().list().unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let download = self.transfers.download(&self.owner, &self.id).unwrap();
        let download = download.unwrap();
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
        let all = 0..download.bytes();
        download
            .stream(all, &mut sink, &AtomicBool::new(false))
            .unwrap();
        bytes
    }

    /// Makes sure that the image is what the caller was told, once whoever is to do it has made good what failed; and that
    /// bytes can be sent if none are there.
    #[track_caller]
    fn expect_settled(&self, was_ok: bool, bytes: &[u8], what: &str) {
        let image = self.image();
        // An answer that was lost may have been good; a good answer is good.
        let is_active = image.status == ImageStatus::Active;
        assert!(is_active || !was_ok, "{what}: {image:?}");
        if is_active {
            assert_eq!(image.size, Some(bytes.len() as u64), "{what}");
            assert!(self.bytes() == bytes, "{what}");
            assert_eq!(self.stored(), [Named::Image(self.id.clone())], "{what}");
            return;
        }
        assert_eq!(image.status, ImageStatus::Queued, "{what}");
        assert_eq!((image.size, image.checksum), (None, None), "{what}");
        assert_eq!(self.stored(), [], "{what}");
        self.upload(bytes).unwrap();
        assert!(self.bytes() == bytes, "{what}");
    }
}

fn bytes() -> Vec<u8> {
    let random = SeededRandom::new(5);
    (0..5000)
        .flat_map(|_| random.next_u64().to_le_bytes())
        .collect()
}

#[test]
fn a_database_that_fails_at_any_call_never_separates_an_image_from_its_bytes() {
    let bytes = bytes();
    let counted = World::new();
    counted.catalog.fail(u64::MAX..=u64::MAX, Failure::NotDone);
    counted.upload(&bytes).unwrap();
    let calls = counted.catalog.calls.load(Ordering::SeqCst);
    assert!(calls >= 4, "{calls}: begin and end are loaded and saved");
    let (mut failed, mut lost_but_whole) = (0, 0);
    for failure in [Failure::NotDone, Failure::DoneButLost] {
        for first in 1..=calls {
            // One call, a few, and all that follow until somebody has mended it.
            for last in [first, first + 1, first + 2, u64::MAX] {
                let world = World::new();
                let what = format!("{failure:?}, calls {first} to {last}");
                world.catalog.fail(first..=last, failure);
                let uploaded = world.upload(&bytes);
                failed += u32::from(uploaded.is_err());
                world.catalog.fail(u64::MAX..=u64::MAX, Failure::NotDone);
                let status = world.image().status;
                lost_but_whole += u32::from(uploaded.is_err() && status == ImageStatus::Active);
                if let Err(error) = &uploaded {
                    let is_database = matches!(
                        error,
                        TransferError::Service(ServiceError::Catalog(_)) | TransferError::Gone(_)
                    );
                    assert!(is_database, "{what}: {error:?}");
                }
                // What this program knows of it mends itself; what it does not, the next start.
                world.transfers.mend();
                world.transfers.recover().unwrap();
                world.expect_settled(uploaded.is_ok(), &bytes, &what);
            }
        }
    }
    assert!(
        failed > 0 && lost_but_whole > 0,
        "{failed}, {lost_but_whole}"
    );
}

#[test]
fn an_image_whose_bytes_could_not_be_taken_back_takes_the_next_ones() {
    let bytes = bytes();
    let world = World::new();
    // From the middle of the upload on nothing can be reached.
    world.catalog.fail(4..=u64::MAX, Failure::NotDone);
    assert!(world.upload(&bytes).is_err());
    world.catalog.fail(u64::MAX..=u64::MAX, Failure::NotDone);
    assert_eq!(world.image().status, ImageStatus::Saving);
    // Without a start in between.
    world.upload(&bytes).unwrap();
    assert!(world.bytes() == bytes);
}

#[test]
fn a_disk_that_fails_at_any_call_leaves_an_image_queued_and_nothing_of_it() {
    let bytes = bytes();
    let counted = World::new();
    let before = counted.disk.calls();
    counted.upload(&bytes).unwrap();
    let calls = counted.disk.calls() - before;
    let mut full = 0;
    for fault in [Fault::NoSpace, Fault::Io, Fault::DoneButFailed] {
        for repeat in [Repeat::Once, Repeat::FromThenOn] {
            for call in 1..=calls {
                let world = World::new();
                let what = format!("{fault:?} {repeat:?} at call {call} of {calls}");
                world.disk.fail_at(before + call, fault, repeat);
                let uploaded = world.upload(&bytes);
                world.disk.disarm();
                match &uploaded {
                    Ok(_) | Err(TransferError::Store(_)) => {}
                    Err(TransferError::Full(_)) => full += 1,
                    Err(error) => panic!("{what}: {error:?}"),
                }
                world.transfers.mend();
                world.transfers.recover().unwrap();
                world.expect_settled(uploaded.is_ok(), &bytes, &what);
            }
        }
    }
    assert!(full > 10, "{full} times the disk was full");
}

#[test]
fn bytes_that_were_judged_as_one_format_are_not_published_as_another() {
    let stage = |world: &World| {
        let announced = Announced::default();
        let mut bytes: &[u8] = b"bytes of a raw disk";
        let staged = world
            .transfers
            .stage(&world.owner, &world.id, announced, &mut bytes);
        staged.unwrap();
        world.catalog.calls.store(0, Ordering::SeqCst);
    };
    let counted = World::new();
    stage(&counted);
    let import = |world: &World| world.transfers.import_staged(&world.owner, &world.id);
    import(&counted).unwrap();
    let calls = counted.catalog.calls.load(Ordering::SeqCst);
    let mut changed = 0;
    for call in 1..=calls {
        let world = World::new();
        stage(&world);
        world.catalog.late.store(call, Ordering::SeqCst);
        let imported = import(&world);
        if world.catalog.late.load(Ordering::SeqCst) == 0 {
            imported.unwrap(); // it was not being imported yet
            continue;
        }
        changed += 1;
        let error = imported.unwrap_err();
        assert!(
            matches!(error, TransferError::Service(ServiceError::Conflict(_))),
            "before call {call}: {error:?}"
        );
        let image = world.image();
        assert_eq!(image.status, ImageStatus::Queued, "before call {call}");
        assert_eq!(image.disk_format.as_deref(), Some("iso"));
        assert_eq!(world.stored(), [], "before call {call}");
    }
    assert!(changed > 0, "of {calls} calls");
}
