//! The ring against a kernel that answers badly, and its end.

use super::ring::IN_FLIGHT_MAX;
use super::*;
use rustix::io::Errno;
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Whether to go on. Where there is no io_uring nothing can be tested; where there is, nothing is skipped.
fn is_there() -> bool {
    match probe() {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("io_uring is not available ({reason}): not tested");
            false
        }
    }
}

/// A hook that is a closure over how many operations of its kind came before.
struct Hook<F> {
    seen: [AtomicUsize; 3],
    change: F,
}

impl<F> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl<F> CompletionHook for Hook<F>
where
    F: Fn(Operation, usize, io::Result<u32>) -> io::Result<u32> + Send + Sync,
{
    fn completed(&self, operation: Operation, result: io::Result<u32>) -> io::Result<u32> {
        let seen = self.seen[operation as usize].fetch_add(1, Ordering::Relaxed);
        (self.change)(operation, seen, result)
    }
}

/// A storage whose completions are changed.
struct Changed<F> {
    storage: UringStorage,
    hook: Arc<Hook<F>>,
    _place: tempfile::TempDir,
}

impl<F> Changed<F>
where
    F: Fn(Operation, usize, io::Result<u32>) -> io::Result<u32> + Send + Sync + 'static,
{
    fn by(change: F) -> Self {
        let place = tempfile::tempdir().unwrap();
        let seen = Default::default();
        let hook = Arc::new(Hook { seen, change });
        let storage = UringStorage::with_hook(place.path(), Arc::clone(&hook) as _).unwrap();
        Self {
            storage,
            hook,
            _place: place,
        }
    }

    fn seen(&self, operation: Operation) -> usize {
        self.hook.seen[operation as usize].load(Ordering::Relaxed)
    }

    fn create(&self) -> Box<dyn NewFile> {
        self.storage.create(&StorePath::new("a")).unwrap()
    }

    fn open(&self) -> Arc<dyn StoredFile> {
        self.storage.open(&StorePath::new("a")).unwrap()
    }

    /// Writes bytes and reads them back, through the ring both times.
    fn assert_round_trip(&self) {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut file = self.create();
        for part in bytes.chunks(30_011) {
            file.append(Buffer::copied(part)).unwrap();
        }
        file.sync().unwrap();
        let read = self.open().read_at(0, bytes.len()).wait().unwrap();
        assert!(*read == *bytes, "bytes changed on their way");
    }
}

fn failed<T>(errno: Errno) -> io::Result<T> {
    Err(errno.into())
}

#[test]
fn a_whole_kernel_and_a_whole_hook_change_nothing() {
    if is_there() {
        let whole = Changed::by(|_, _, result| result);
        whole.assert_round_trip();
        assert_eq!(whole.seen(Operation::Write), 14);
        assert_eq!(whole.seen(Operation::Sync), 1);
        assert_eq!(whole.seen(Operation::Read), 1);
    }
}

#[test]
fn short_reads_and_writes_are_continued() {
    if is_there() {
        let short = Changed::by(|operation, _, result| match operation {
            Operation::Sync => result,
            _ => result.map(|done| done.div_ceil(2)),
        });
        short.assert_round_trip();
        assert!(short.seen(Operation::Read) > 10 && short.seen(Operation::Write) > 100);
    }
}

#[test]
fn what_was_interrupted_or_put_off_is_tried_again() {
    for errno in [Errno::INTR, Errno::AGAIN] {
        if is_there() {
            // Six refusals, then it works.
            Changed::by(move |operation, seen, result| match operation {
                Operation::Read | Operation::Write if seen % 7 < 6 => failed(errno),
                _ => result,
            })
            .assert_round_trip();
        }
    }
}

#[test]
fn a_kernel_that_puts_off_for_ever_is_believed_in_the_end() {
    if is_there() {
        let never = Changed::by(|operation, _, result| match operation {
            Operation::Read => failed(Errno::AGAIN),
            _ => result,
        });
        let mut file = never.create();
        file.append(Buffer::copied(b"x")).unwrap();
        drop(file);
        let error = never.open().read_at(0, 1).wait().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_failed_write_is_told_once_by_a_later_call_and_then_ever_again() {
    if is_there() {
        for errno in [Errno::IO, Errno::NOSPC, Errno::CANCELED] {
            let failing = Changed::by(move |operation, seen, result| match operation {
                Operation::Write if seen == 2 => failed(errno),
                _ => result,
            });
            let mut file = failing.create();
            let appended: io::Result<()> =
                (0..20).try_for_each(|_| file.append(Buffer::copied(&[1; 5000])));
            let told = appended.unwrap_err();
            assert_eq!(told.raw_os_error(), Some(errno.raw_os_error()));
            for later in [file.append(Buffer::default()), file.sync()] {
                let error = later.unwrap_err();
                assert!(error.to_string().contains("an earlier write"), "{error}");
                assert_eq!(error.kind(), told.kind());
            }
            assert_eq!(failing.seen(Operation::Sync), 0);
        }
    }
}

#[test]
fn a_failed_write_is_told_by_the_sync_if_by_nothing_before() {
    if is_there() {
        let failing = Changed::by(|operation, _, result| match operation {
            Operation::Write => failed(Errno::IO),
            _ => result,
        });
        let mut file = failing.create();
        file.append(Buffer::copied(b"x")).unwrap();
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(failing.seen(Operation::Sync), 0);
    }
}

#[test]
fn a_failed_sync_is_never_made_again() {
    if is_there() {
        for errno in [Errno::IO, Errno::INTR, Errno::AGAIN] {
            let failing = Changed::by(move |operation, seen, result| match operation {
                Operation::Sync if seen == 0 => failed(errno),
                _ => result,
            });
            let mut file = failing.create();
            file.append(Buffer::copied(b"x")).unwrap();
            let told = file.sync().unwrap_err();
            assert_eq!(told.raw_os_error(), Some(errno.raw_os_error()));
            assert!(file.sync().is_err());
            assert_eq!(failing.seen(Operation::Sync), 1);
        }
    }
}

#[test]
fn a_failed_read_fails_alone() {
    if is_there() {
        for errno in [Errno::IO, Errno::CANCELED] {
            let failing = Changed::by(move |operation, seen, result| match operation {
                Operation::Read if seen == 0 => failed(errno),
                _ => result,
            });
            let mut file = failing.create();
            file.append(Buffer::copied(b"abc")).unwrap();
            file.sync().unwrap();
            let open = failing.open();
            let error = open.read_at(0, 3).wait().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()));
            assert_eq!(&*open.read_at(0, 3).wait().unwrap(), b"abc");
        }
    }
}

#[test]
fn nothing_read_or_written_is_an_error_and_not_an_endless_loop() {
    if is_there() {
        let nothing = Changed::by(|operation, _, result| match operation {
            Operation::Sync => result,
            _ => Ok(0),
        });
        let mut file = nothing.create();
        file.append(Buffer::copied(b"abc")).unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::WriteZero);
        drop(file);
        let read = nothing.open().read_at(0, 3).wait();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

fn growing(storage: &UringStorage) -> RingGrowingFile {
    let file = storage.files.create_file(&StorePath::new("a")).unwrap();
    RingGrowingFile::new(storage.through_the_ring(Arc::new(file)))
}

#[test]
fn a_file_keeps_few_appends_under_way() {
    if is_there() {
        let place = tempfile::tempdir().unwrap();
        let mut file = growing(&UringStorage::open(place.path()).unwrap());
        let mut most = 0;
        for _ in 0..100 {
            file.append(Buffer::copied(&[1; 1000])).unwrap();
            most = most.max(file.appends.len());
        }
        assert_eq!(most, APPENDS_UNDER_WAY);
        assert_eq!(file.bytes(), 100_000);
    }
}

#[test]
fn the_device_begins_with_a_long_file_before_its_sync() {
    if is_there() {
        let place = tempfile::tempdir().unwrap();
        let storage = UringStorage::open(place.path()).unwrap();
        let mut file = growing(&storage);
        let piece = |n: u8| Buffer::copied(&[n; 1 << 20]);
        (0..32).for_each(|n| file.append(piece(n)).unwrap());
        let begun = file.written_out;
        assert!(begun >= WRITE_OUT_BYTES && begun <= file.written, "{begun}");
        file.sync().unwrap();
        assert_eq!(file.written, 32 << 20);
        let read = storage.open(&StorePath::new("a")).unwrap();
        for n in 0..32 {
            let read = read.read_at(u64::from(n) << 20, 1 << 20).wait().unwrap();
            assert_eq!(*read, *piece(n));
        }
    }
}

/// A read end that gives nothing until something is written: its reads stay with the kernel.
struct Pipe {
    read: RingFile,
    write: std::io::PipeWriter,
}

impl Pipe {
    fn on(ring: Arc<Ring>) -> Self {
        let (read, write) = std::io::pipe().unwrap();
        let read = RingFile {
            ring,
            file: Arc::new(File::from(std::os::fd::OwnedFd::from(read))),
            hook: None,
        };
        Self { read, write }
    }
}

fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain");
}

/// Long enough for something to happen that must not.
fn a_while() {
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn no_more_operations_are_with_the_kernel_than_it_has_room_for() {
    if is_there() {
        let ring = Arc::new(Ring::start().unwrap());
        let mut pipe = Pipe::on(Arc::clone(&ring));
        let most = IN_FLIGHT_MAX as usize;
        let reads: Vec<_> = (0..most + 50).map(|_| pipe.read.read(0, 1)).collect();
        until(|| ring.in_flight() == most);
        a_while();
        assert_eq!(ring.in_flight(), most);
        pipe.write.write_all(&vec![7; most + 50]).unwrap();
        for read in reads {
            assert_eq!(*read.wait().unwrap(), [7]);
        }
        until(|| ring.in_flight() == 0);
    }
}

/// The runtime frees the buffers of operations in flight when it ends, while the kernel may still write them: so it must
/// not end before they have.
#[test]
fn a_ring_ends_only_after_its_last_operation() {
    if is_there() {
        let ring = Arc::new(Ring::start().unwrap());
        let Pipe { read, mut write } = Pipe::on(Arc::clone(&ring));
        let kept = read.read(0, 4);
        // One that nobody waits for any more is still the kernel's.
        drop(read.read(0, 4));
        until(|| ring.in_flight() == 2);
        // One that the kernel has not seen yet when the end begins.
        let last = read.read(0, 4);
        drop(read);

        let ended = std::thread::spawn(move || drop(Arc::into_inner(ring).unwrap()));
        a_while();
        assert!(!ended.is_finished(), "it ended with operations in flight");
        write.write_all(b"onceminetwin").unwrap();
        // Whose turn comes first is the kernel's choice.
        let (kept, last) = (kept.wait().unwrap(), last.wait().unwrap());
        assert_ne!(*kept, *last);
        for read in [kept, last] {
            assert!(
                [b"once", b"mine", b"twin"]
                    .iter()
                    .any(|word| **word == *read)
            );
        }
        ended.join().unwrap();
    }
}

#[test]
fn draining_waits_for_what_was_asked_before() {
    if is_there() {
        let ring = Arc::new(Ring::start().unwrap());
        let mut pipe = Pipe::on(Arc::clone(&ring));
        // Nobody waits for it, but the kernel has its buffer.
        drop(pipe.read.read(0, 1));
        let drained = std::thread::spawn({
            let ring = Arc::clone(&ring);
            move || ring.drain().unwrap()
        });
        a_while();
        assert!(!drained.is_finished(), "a read was in flight");
        pipe.write.write_all(b"x").unwrap();
        drained.join().unwrap();
        let after = pipe.read.read(0, 1);
        pipe.write.write_all(b"y").unwrap();
        assert_eq!(&*after.wait().unwrap(), b"y");
        drain().unwrap();
    }
}

#[test]
fn an_operation_outlives_the_handle_it_was_asked_of() {
    if is_there() {
        let Pipe { read, mut write } = Pipe::on(Ring::shared().unwrap());
        let pending = read.read(0, 3);
        drop(read);
        a_while();
        write.write_all(b"abc").unwrap();
        assert_eq!(&*pending.wait().unwrap(), b"abc");
    }
}

/// A hook may only pretend that little was done; a pipe does little indeed.
#[test]
fn what_the_kernel_did_only_in_part_is_continued_where_it_stopped() {
    if is_there() {
        let ring = Ring::shared().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        // Takes what it has room for instead of waiting.
        rustix::io::ioctl_fionbio(&write, true).unwrap();
        let file = |descriptor: std::os::fd::OwnedFd| RingFile {
            ring: Arc::clone(&ring),
            file: Arc::new(File::from(descriptor)),
            hook: None,
        };
        let (read, write) = (file(read.into()), file(write.into()));
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let written = write.write(0, Buffer::copied(&bytes));
        let read = read.read(0, bytes.len()).wait().unwrap();
        written.wait().unwrap();
        assert!(*read == *bytes, "bytes changed on their way");
    }
}

#[test]
fn no_hook_makes_believe_that_more_was_read_than_was() {
    if is_there() {
        #[derive(Debug)]
        struct Boaster;
        impl CompletionHook for Boaster {
            fn completed(&self, _: Operation, result: io::Result<u32>) -> io::Result<u32> {
                result.map(|_| u32::MAX)
            }
        }
        let Pipe {
            mut read,
            mut write,
        } = Pipe::on(Ring::shared().unwrap());
        read.hook = Some(Arc::new(Boaster));
        let pending = read.read(0, 6);
        write.write_all(b"abc").unwrap();
        a_while();
        write.write_all(b"def").unwrap();
        assert_eq!(&*pending.wait().unwrap(), b"abcdef");
    }
}
