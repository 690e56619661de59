//! The journal that a killed `delta apply --raw` left beside its disk, of any bytes.

use crate::world::WORLD;
use crate::{reseal, seeds};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tegula_engine::{DeltaSource, RawDeltaRequest, Task, apply_delta_to_disk};

/// The delta that is applied: from the parent to the child of the sound store.
static DELTA: LazyLock<Vec<u8>> = LazyLock::new(|| seeds::delta().swap_remove(0));

/// A directory that goes with its value; in memory where there is such a place, since every apply syncs.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let parent = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("tegula-journal-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Whatever the journal says, the disk that an apply calls done is the target, and a journal that is of something else
/// lets nothing be written.
pub fn raw_journal(data: &[u8]) {
    let (base, target) = (&WORLD.images["parent"], &WORLD.images["child"]);
    for fits in [false, true] {
        let place = Place::new();
        let (disk, journal) = (place.0.join("disk"), place.0.join("journal"));
        fs::write(&disk, base).unwrap();
        let metadata = fs::metadata(&disk).unwrap();
        let bytes = match fits {
            true => reseal::journal(data, &DELTA, (metadata.dev(), metadata.ino())),
            false => data.to_vec(),
        };
        fs::write(&journal, bytes).unwrap();
        let mut stream = DELTA.as_slice();
        let request = RawDeltaRequest {
            source: DeltaSource::Stream(&mut stream),
            disk: &disk,
            journal: Some(&journal),
            dry_run: false,
        };
        match apply_delta_to_disk(request, Task::unattended()) {
            Ok(_) => {
                assert!(fs::read(&disk).unwrap() == *target);
                assert!(!journal.exists());
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                // Who seals a journal of lies about this very disk is believed, and found out when all is hashed at the end.
                assert!(fits || fs::read(&disk).unwrap() == *base);
            }
        }
    }
}
