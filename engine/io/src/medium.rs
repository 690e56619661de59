//! What an error says about the medium.

use rustix::io::Errno;
use std::io;

/// Tells whether an error of opening, reading or mapping a file says that the medium does not give its bytes back, or
/// that what has the file's name is no file. What the process lacks (descriptors, memory, permission) says nothing about
/// the medium, and may be better next time.
pub fn is_bad_medium(error: &io::Error) -> bool {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // A bad sector; a bad block of the file system; what drivers say of media and checksums; a link, device or
        // directory where a file should be, or no directory where one should be.
        Some(errno) => matches!(
            errno,
            Errno::IO
                | Errno::UCLEAN
                | Errno::BADMSG
                | Errno::NODATA
                | Errno::ILSEQ
                | Errno::REMOTEIO
                | Errno::LOOP
                | Errno::ISDIR
                | Errno::NOTDIR
                | Errno::NXIO
        ),
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::FileTooLarge
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_is_told_from_a_process_that_lacks_something() {
        for errno in [Errno::IO, Errno::UCLEAN, Errno::NODATA, Errno::LOOP] {
            assert!(is_bad_medium(&errno.into()), "{errno:?}");
        }
        let lacking = [
            Errno::MFILE,
            Errno::NOMEM,
            Errno::ACCESS,
            Errno::INTR,
            Errno::AGAIN,
            Errno::NOENT,
        ];
        for errno in lacking {
            assert!(!is_bad_medium(&errno.into()), "{errno:?}");
        }
    }
}
