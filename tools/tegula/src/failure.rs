//! What can go wrong, the exit code for it, and what to do next: each decided here and nowhere else.

use crate::commands::demo::DemoError;
use crate::commands::pull::PullError;
use crate::output::complain;
use crate::signals::EXIT_INTERRUPTED;
use crate::units;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tegula_engine::disk_formats::qcow2::{Qcow2Error, Qcow2WriteError};
use tegula_engine::{DeltaError, EngineError, FileKind, SourceError, StoreError, TargetError};

/// How a command ended that did what it was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Done,
    /// Damage was looked for and found.
    Damaged,
}

const EXIT_FAILED: u8 = 1;
const EXIT_DAMAGED: u8 = 3;
/// 128 and the number of SIGPIPE, as for a program that the signal ended.
const EXIT_NOBODY_READS: u8 = 141;

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Damaged => Self::from(EXIT_DAMAGED),
        }
    }
}

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What the engine says of a second store.
    #[error("store {}", path.display())]
    OtherStore { path: PathBuf, source: EngineError },
    /// What the demonstration says.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// What the pull says.
    #[error(transparent)]
    Pull(Box<PullError>),
    /// Standard output does not take what is printed.
    #[error("cannot write to standard output")]
    Print { source: io::Error },
    /// The handlers of Ctrl-C cannot be set.
    #[error("cannot watch for signals")]
    Signals { source: io::Error },
    /// The process cannot be put behind others.
    #[error("cannot give way to other processes")]
    Priority { source: io::Error },
    /// The arguments are wrong in a way only the command can tell.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        Self::Pull(Box::new(error))
    }
}

impl Failure {
    fn engine(&self) -> Option<&EngineError> {
        match self {
            Self::Engine(error) | Self::OtherStore { source: error, .. } => Some(error),
            _ => None,
        }
    }

    /// Tells whether whoever read standard output stopped reading.
    fn nobody_reads(&self) -> bool {
        match self {
            Self::Print { source } | Self::Engine(EngineError::WriteTarget { source, .. }) => {
                source.kind() == ErrorKind::BrokenPipe
            }
            _ => false,
        }
    }

    fn exit_code(&self) -> u8 {
        match self.engine() {
            Some(EngineError::Interrupted) => EXIT_INTERRUPTED,
            Some(error) if error.is_damage() => EXIT_DAMAGED,
            _ if self.nobody_reads() => EXIT_NOBODY_READS,
            _ => EXIT_FAILED,
        }
    }
}

/// Says on standard error what went wrong and what to do next, and returns the exit code.
///
/// `store` is the store the command worked on; `interrupted` tells that a signal came, which is then the cause.
pub(crate) fn report(failure: &Failure, store: Option<&Path>, interrupted: bool) -> ExitCode {
    if let Failure::Usage(error) = failure {
        drop(error.print());
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_FAILED));
    }
    if interrupted {
        complain("error: interrupted\n");
        return ExitCode::from(EXIT_INTERRUPTED);
    }
    if !failure.nobody_reads() {
        let place = match (failure, store) {
            (Failure::Engine(EngineError::Store(_)), Some(path)) => {
                format!("store {}: ", path.display())
            }
            _ => String::new(),
        };
        let mut text = format!("error: {place}{}\n", chain(failure));
        if let Some(hint) = hint(failure) {
            text.push_str(&format!("hint: {hint}\n"));
        }
        complain(&units::printable(&text));
    }
    ExitCode::from(failure.exit_code())
}

/// Joins an error's text and those of its sources.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What to do next.
fn hint(failure: &Failure) -> Option<&'static str> {
    match failure {
        Failure::Engine(error) | Failure::OtherStore { source: error, .. } => engine_hint(error),
        Failure::Demo(error) => demo_hint(error),
        Failure::Pull(error) => error.hint().or_else(|| system_hint(error.system()?)),
        Failure::Priority { .. } => Some("--nice 0 asks for nothing"),
        Failure::Print { .. } | Failure::Signals { .. } | Failure::Usage(_) => None,
    }
}

fn engine_hint(error: &EngineError) -> Option<&'static str> {
    Some(match error {
        EngineError::Store(error) => return store_hint(error),
        EngineError::Delta(error) => return delta_hint(error),
        EngineError::Directory { source, .. } => match source.kind() {
            ErrorKind::NotFound => {
                "check the path; `tegula --store PATH init` makes a store in a directory whose parent exists"
            }
            ErrorKind::Unsupported => "use `--io auto` or `--io blocking`",
            kind => return system_hint(kind),
        },
        EngineError::Source(error) => return source_hint(error),
        EngineError::ReadSource { .. } => "check the source's disk; nothing was put",
        EngineError::SourceChanged { .. } => {
            "nothing was put; stop whoever writes to it, or put a snapshot of it"
        }
        EngineError::Qcow2 { source, .. } => return qcow2_hint(source),
        EngineError::Qcow2Write(error) => return qcow2_write_hint(error),
        EngineError::NoSnapshots { .. } => {
            "`tegula inspect FILE` shows what a file is, and the snapshots in it"
        }
        EngineError::Hint { source, .. } => return system_hint(source.kind()),
        EngineError::NoBitmaps { .. } => {
            "`tegula inspect FILE` shows what a file is, and the bitmaps in it"
        }
        EngineError::ParentNeeded { .. } => {
            "put the disk it lies over first, then this one with `--parent` and the name you gave that image"
        }
        EngineError::TooLarge { .. } => {
            "a store with larger blocks takes larger images: `tegula init --block-size`, up to 4M"
        }
        EngineError::Target(error) => return target_hint(error),
        EngineError::DestinationExists { .. } => {
            "--force replaces it; `tegula get --in-place` overwrites only the blocks that differ"
        }
        EngineError::DestinationIsDevice { .. } => {
            "if its content may go, --force overwrites it, writing only the blocks that differ"
        }
        EngineError::DestinationTooSmall { .. } => "use a larger device",
        EngineError::WriteTarget { source, .. } => return system_hint(source.kind()),
        EngineError::DigestMismatch { .. } => {
            "`tegula verify --full` tells how far the damage goes"
        }
        EngineError::OutOfImage { .. } | EngineError::Interrupted => return None,
    })
}

fn delta_hint(error: &DeltaError) -> Option<&'static str> {
    Some(match error {
        DeltaError::Read { source, .. } => return system_hint(source.kind()),
        DeltaError::Damaged { source, .. } if source.needs_newer_program() => {
            "nothing is damaged; use the version of tegula that wrote it"
        }
        DeltaError::Damaged { .. }
        | DeltaError::Chunk { .. }
        | DeltaError::ChunkNotCarried { .. }
        | DeltaError::OtherTarget { .. } => {
            "nothing was made of it; `tegula delta show FILE` checks a delta, get it anew from where it was made"
        }
        DeltaError::NotAsPromised { .. } => DAMAGE_HINT,
        DeltaError::OtherBlockSize { .. } => {
            "a delta is for stores with its own block size; `tegula init --block-size` makes one"
        }
        DeltaError::Rbd { .. } => {
            "nothing was made of it; get it anew from `rbd export-diff`, and say its version with --format"
        }
        DeltaError::RbdBaseNeeded { .. } => "name that image with --base",
        DeltaError::RbdUnverified { .. } => {
            "nothing was written; if you know that it is, --unverified patches it"
        }
        DeltaError::RbdWithoutBase { .. } => "leave out --base",
        DeltaError::NothingToMerge => "name the deltas, oldest first",
        DeltaError::DoesNotFollow { .. } => {
            "name the deltas in the order in which they follow each other; `tegula delta show` tells what each is from and to"
        }
        DeltaError::BuildsTooDeep { .. } => {
            "apply some of them first and make a new delta of the result"
        }
        DeltaError::OtherDisk { .. } | DeltaError::OtherLength { .. } => {
            "nothing was written; a delta is applied only to the image it starts from"
        }
        DeltaError::StartsFromNothing { .. } => {
            "give it an empty file, or apply it in a store and get the image from there"
        }
        DeltaError::DiskDiffers { .. } => {
            "somebody else writes to the disk: stop them, then run the same command again"
        }
        DeltaError::Journal { source, .. } => return system_hint(source.kind()),
        DeltaError::JournalNeeded { .. } => {
            "--journal PATH names one; not in memory: it is needed if the machine stops in between"
        }
        DeltaError::JournalBusy { .. } => "try again when it is done",
        DeltaError::JournalOfAnother { .. } => {
            "finish what it was begun for; if that disk is gone or was restored, remove the journal"
        }
        DeltaError::NotAJournal { .. } => "name another file with --journal",
        DeltaError::JournalDamaged { .. } => {
            "the disk may be changed in part; restore it, then remove the journal"
        }
        DeltaError::OtherBase { .. } => "name the image that it starts from",
        DeltaError::BaseMissing { .. } => {
            "put that image first, under any name; `tegula ls --json` shows the digests of those that are here"
        }
    })
}

/// What to do about a damaged store.
const DAMAGE_HINT: &str = "`tegula verify --full` tells how far the damage goes; `tegula repair --from STORE` mends it with good copies";

fn store_hint(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::Io { .. } if error.is_unlistable() => {
            "check the store's disk; what was in segments, layers and images can only be brought back from a copy of the store, any other directory can be moved away, and `tegula repair` makes again what is needed of it"
        }
        StoreError::Io { path, .. } | StoreError::Corrupt { path, .. }
            if error.is_damage() && ["gc.state", "places"].contains(&path.name()) =>
        {
            "`tegula repair` makes it again, and no image loses anything by that"
        }
        StoreError::Io { .. } if error.is_damage() => DAMAGE_HINT,
        StoreError::Io { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "every image in the store is as it was; make room, for example with `tegula rm` and `tegula gc`"
            }
            ErrorKind::ReadOnlyFilesystem => {
                "ls, show, get, diff, du, stats and verify work on a store that cannot be written"
            }
            kind => return system_hint(kind),
        },
        StoreError::Corrupt { path, .. } if path.name() == "tegula.store" => {
            "`tegula repair` makes it again, from tegula.store.copy or from what the segments say; where neither tells, bring it back from a copy of the store: it never changes"
        }
        StoreError::Corrupt { .. }
        | StoreError::ChunkMissing { .. }
        | StoreError::ChunkDamaged { .. }
        | StoreError::LayerMissing { .. } => DAMAGE_HINT,
        StoreError::NeedsNewerProgram { .. } => {
            "nothing is damaged; use the version of tegula that wrote it"
        }
        StoreError::DirectoryMissing { .. } => {
            "what was in it cannot be made again: bring it back from a copy of the store"
        }
        StoreError::PublishedInDoubt { .. } => {
            "check the store's disk, then look with `tegula show` which of the two it is"
        }
        StoreError::NotAStore => "check the path; `tegula --store PATH init` makes a store",
        StoreError::NotEmpty { .. } => "choose a new or empty directory",
        StoreError::ImageNotFound { .. } => "`tegula ls` lists the images",
        StoreError::ImageExists { .. } => {
            "choose another name; put --replace takes the place of an image"
        }
        StoreError::ImageChanged { .. } => "look at it again with `tegula show`, then try again",
        StoreError::OtherImage { .. } => "nothing was put",
        StoreError::Busy { .. } => "try again when it is done",
        StoreError::OutOfSegments => "put further images into a new store",
    })
}

fn system_hint(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there and try again",
        ErrorKind::PermissionDenied => "check who may read and write there",
        ErrorKind::ReadOnlyFilesystem => "it is mounted read-only; use another place",
        ErrorKind::NotFound => "check the path",
        _ => return None,
    })
}

fn source_hint(error: &SourceError) -> Option<&'static str> {
    Some(match error {
        SourceError::NotADisk {
            kind: FileKind::Fifo,
            ..
        }
        | SourceError::NoLength { .. } => {
            "to take what comes out of it, name - and redirect, as in `tegula put NAME - < SOURCE`"
        }
        SourceError::NotADisk { .. } => "name the file or device to be read",
        SourceError::Open { source, .. } => return system_hint(source.kind()),
    })
}

fn qcow2_hint(error: &Qcow2Error) -> Option<&'static str> {
    Some(match error {
        Qcow2Error::Read { .. } => "check the source's disk; nothing was put",
        Qcow2Error::Magic | Qcow2Error::Version { .. } => {
            "`--format raw` takes the file's bytes as the disk"
        }
        Qcow2Error::Encrypted { .. } => {
            "decrypt it first, for example with `qemu-img convert`, and put the result"
        }
        Qcow2Error::ExternalDataFile { .. } => {
            "if you know where it came from, `qemu-img convert` makes one file of the two"
        }
        Qcow2Error::MarkedCorrupt => {
            "`qemu-img check -r all` on a copy repairs what can be; look at the result before you put it"
        }
        Qcow2Error::SnapshotNotFound { .. } | Qcow2Error::BitmapNotFound { .. } => {
            "`tegula inspect FILE` lists what is in it"
        }
        Qcow2Error::SnapshotAmbiguous { .. } => {
            "name it by its id: `tegula inspect FILE` lists them"
        }
        _ => {
            "nothing was put; `qemu-img check` may tell more, and `--format raw` takes the file's bytes as the disk"
        }
    })
}

fn qcow2_write_hint(error: &Qcow2WriteError) -> Option<&'static str> {
    Some(match error {
        Qcow2WriteError::TooLarge { .. } => {
            "larger clusters take larger disks: `--cluster-size 2M`"
        }
        Qcow2WriteError::BackingName { .. } => {
            "give a shorter name with `--backing-name`, or larger clusters with `--cluster-size`"
        }
        Qcow2WriteError::NotInOrder => "leave out `--compress`, or write to a file",
        Qcow2WriteError::NotInPlace { .. } => "name a new file; a device takes `--format raw`",
    })
}

fn target_hint(error: &TargetError) -> Option<&'static str> {
    Some(match error {
        TargetError::NotADisk {
            kind: FileKind::Directory,
            ..
        } => "name a new file in it",
        TargetError::NotADisk { .. } => {
            "to write into it, name - and redirect, as in `tegula get IMAGE - > DEST`"
        }
        TargetError::NoName { .. } => "name the file to write",
        TargetError::InUse { .. } => "unmount it first",
        TargetError::Open { source, .. } => return system_hint(source.kind()),
    })
}

fn demo_hint(error: &DemoError) -> Option<&'static str> {
    Some(match error {
        DemoError::ToolsMissing { .. } => {
            "install e2fsprogs (Debian, Ubuntu: `apt-get install e2fsprogs`; Fedora: `dnf install e2fsprogs`)"
        }
        DemoError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
            "set TMPDIR to a directory with 1.2 GiB of room"
        }
        DemoError::Differs { .. }
        | DemoError::Damaged { .. }
        | DemoError::OtherDigest { .. }
        | DemoError::Answer { .. } => "this is a bug of tegula: please report it",
        _ => return None,
    })
}
