//! Standard input, read so that Ctrl-C is heard while nothing comes.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::{self, Read, Stdin};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whether nothing can come from standard input: it is the null device, which also stands there when a program is
/// begun with its standard input closed.
pub(crate) fn is_nothing() -> bool {
    use std::os::unix::fs::MetadataExt;
    let null = std::fs::metadata("/dev/null").ok();
    let input = io::stdin().as_fd().try_clone_to_owned().ok();
    let input = input.and_then(|input| File::from(input).metadata().ok());
    let device = |metadata: Metadata| (metadata.mode(), metadata.rdev());
    input
        .map(device)
        .is_some_and(|input| null.map(device) == Some(input))
}

/// How long a signal may go unheard.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Standard input that ends with an error once a flag is set.
#[derive(Debug)]
pub(crate) struct InterruptibleInput<'a> {
    stdin: Stdin,
    interrupted: &'a AtomicBool,
}

impl<'a> InterruptibleInput<'a> {
    pub(crate) fn new(interrupted: &'a AtomicBool) -> Self {
        Self {
            stdin: io::stdin(),
            interrupted,
        }
    }
}

impl Read for InterruptibleInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.interrupted.load(Ordering::SeqCst) {
                // Not `ErrorKind::Interrupted`: that one asks to be tried again.
                return Err(io::Error::other("interrupted"));
            }
            let mut watched = [PollFd::new(&self.stdin, PollFlags::IN)];
            match poll(&mut watched, Some(&PATIENCE)) {
                Ok(0) | Err(Errno::INTR) => {}
                // Past the buffer of `Stdin`, which polling does not see.
                Ok(_) => return Ok(rustix::io::read(&self.stdin, buffer)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
