//! A place to change the kernel's answers: what a failing device would say, without the device.

use std::fmt;
use std::io;

/// A kind of operation on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A read at an offset.
    Read,
    /// A write at an offset.
    Write,
    /// A sync of a file's data.
    Sync,
}

/// Sees every completion before anything else does, and may change it: shorten a read, fail a write. It is called on the
/// ring's thread and must be quick.
pub trait CompletionHook: fmt::Debug + Send + Sync {
    /// Returns what the operation is to have as its result: the bytes read or written, or an error. More bytes than the
    /// kernel read are not believed.
    ///
    /// # Errors
    /// Whatever the operation is to fail with.
    fn completed(&self, operation: Operation, result: io::Result<u32>) -> io::Result<u32>;
}
