//! What can go wrong with a call.

use rustix::io::Errno;
use std::io;

/// A kind of storage call. [`super::SimDisk`] counts them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`crate::Storage::open`].
    Open,
    /// [`crate::Storage::create`].
    Create,
    /// [`crate::Storage::rename`].
    Rename,
    /// [`crate::Storage::remove`].
    Remove,
    /// [`crate::Storage::list`].
    List,
    /// [`crate::Storage::create_directory`].
    CreateDirectory,
    /// [`crate::Storage::sync_directory`].
    SyncDirectory,
    /// [`crate::Storage::try_lock`] or [`crate::Storage::lock`].
    Lock,
    /// [`crate::StoredFile::read_at`].
    Read,
    /// [`crate::StoredFile::map`].
    Map,
    /// [`crate::NewFile::append`].
    Append,
    /// [`crate::NewFile::sync`].
    Sync,
}

/// What goes wrong with a call.
///
/// A failed sync of a file, whatever the error, drops the bytes it should have made durable: they are read back until
/// the crash, as from a page cache that believes them written, and no later sync saves them. Linux does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO, and nothing is done.
    Io,
    /// ENOSPC, and nothing is done.
    NoSpace,
    /// EINTR, and nothing is done.
    Interrupted,
    /// EAGAIN, and nothing is done.
    Again,
    /// EMFILE, and nothing is done.
    TooManyFiles,
    /// Half of an append is done, then ENOSPC. For any other call the same as [`Self::NoSpace`].
    ShortWrite,
    /// An append is reported done, and zeros are what is read and kept. A lying disk: to be detected, not survived.
    /// Harmless for any other call.
    LostWrite,
    /// EIO, but it was done: as when the answer was lost.
    DoneButFailed,
}

impl Fault {
    /// All faults that a store must survive: what was reported done before must stay, whatever else fails.
    pub const SURVIVABLE: [Self; 7] = [
        Self::Io,
        Self::NoSpace,
        Self::Interrupted,
        Self::Again,
        Self::TooManyFiles,
        Self::ShortWrite,
        Self::DoneButFailed,
    ];

    pub(super) fn to_error(self) -> io::Error {
        io::Error::from(match self {
            Self::Io | Self::LostWrite | Self::DoneButFailed => Errno::IO,
            Self::NoSpace | Self::ShortWrite => Errno::NOSPC,
            Self::Interrupted => Errno::INTR,
            Self::Again => Errno::AGAIN,
            Self::TooManyFiles => Errno::MFILE,
        })
    }
}

/// How often something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// With one call.
    Once,
    /// With that call and all that follow.
    FromThenOn,
}

/// A fault that waits for its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Armed {
    pub(super) call: u64,
    pub(super) fault: Fault,
    pub(super) repeat: Repeat,
}

impl Armed {
    pub(super) fn strikes(&self, call: u64) -> bool {
        match self.repeat {
            Repeat::Once => call == self.call,
            Repeat::FromThenOn => call >= self.call,
        }
    }
}
