//! Is a ring to be had?

use super::ring::{Ring, RingFile};
use crate::Buffer;
use io_uring::{IoUring, Probe, opcode};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Finds out whether io_uring works here: the kernel may be too old, or a sandbox or `kernel.io_uring_disabled` may
/// forbid it. Writes, syncs and reads back some bytes in memory.
///
/// # Errors
/// The reason why it does not, for people.
pub fn probe() -> io::Result<()> {
    // With the bare system call first: tokio-uring panics where this fails.
    let ring = IoUring::new(8).map_err(explain)?;
    let mut known = Probe::new();
    let too_old = |error: io::Error| because(error.kind(), "the kernel is too old");
    ring.submitter()
        .register_probe(&mut known)
        .map_err(too_old)?;
    let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
    if !needed.iter().all(|code| known.is_supported(*code)) {
        return Err(because(io::ErrorKind::Unsupported, "the kernel is too old"));
    }
    drop(ring);
    round_trip(Ring::shared()?)
}

fn explain(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSYS) => because(error.kind(), "the kernel has none"),
        Some(Errno::PERM | Errno::ACCESS) => because(
            error.kind(),
            "forbidden by kernel.io_uring_disabled or a sandbox",
        ),
        _ => error,
    }
}

fn because(kind: io::ErrorKind, reason: &str) -> io::Error {
    io::Error::new(kind, reason)
}

fn round_trip(ring: Arc<Ring>) -> io::Result<()> {
    let memory = rustix::fs::memfd_create("tegula-probe", MemfdFlags::CLOEXEC)?;
    let file = RingFile {
        ring,
        file: Arc::new(File::from(memory)),
        hook: None,
    };
    let bytes = [0xa5; 512];
    file.write(0, Buffer::copied(&bytes)).wait()?;
    file.sync().wait()?;
    let read = file.read(0, bytes.len()).wait()?;
    if *read != bytes {
        return Err(because(
            io::ErrorKind::InvalidData,
            "what is read is not what was written",
        ));
    }
    Ok(())
}
