//! The ring and its thread: operations go in over a channel, results come out as promises.
//!
//! ```text
//!  any thread ──Request──► channel ──► ring thread: permit, entry, task ──► kernel
//!       ▲                                                    │ completion, hook, again if short
//!       └───────────── Promise ◄─────────────────────────────┘
//! ```
//! The rules that keep this sound, and who keeps them:
//! - The kernel reads and writes a buffer until it completes the operation, whatever becomes of its future. So buffer,
//!   file and permit of an operation travel together as [`Held`], which tokio-uring keeps until the completion.
//! - tokio-uring 0.5 frees the buffers of operations in flight when its runtime is dropped, before the kernel is done with
//!   them. So the runtime ends only when all permits are back; should the thread panic, the process is aborted. The
//!   ring that everybody shares never ends.
//! - At most [`IN_FLIGHT_MAX`] operations are with the kernel, so that neither of its queues overflows.
//! - tokio-uring submits when its thread goes to sleep, and ignores it if that fails. So nothing here computes for long,
//!   and while operations are in flight the thread wakes up now and then to go to sleep again.

use super::hook::{CompletionHook, Operation};
use crate::{Buffer, Pending, Promise};
use io_uring::{cqueue, opcode, squeue, types};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc as blocking};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// Operations that may be with the kernel at once: as many as the submission queue has room for.
pub(super) const IN_FLIGHT_MAX: u32 = 256;

/// How long an entry may lie in the queue after the kernel refused to take it.
const SUBMIT_AGAIN_MS: u64 = 10;

/// How often a read or write is tried again if the kernel says EAGAIN or EINTR, before that is believed.
const TRIES_MAX: u32 = 100;

/// The flag of sync_file_range(2) that begins to write and waits for nothing.
const SYNC_FILE_RANGE_WRITE: u32 = 2;

/// Bytes in one entry; longer operations are continued like short ones.
const ENTRY_BYTES_MAX: usize = 1 << 30;

/// A ring with a thread of its own. Dropping it waits for all its operations.
pub(super) struct Ring {
    requests: Option<mpsc::UnboundedSender<Message>>,
    permits: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} in flight)", self.in_flight())
    }
}

/// What is sent to the ring's thread.
enum Message {
    CarryOut(Request),
    /// To be kept when nothing is in flight.
    Drain(Promise<()>),
}

/// An operation on its way to the ring.
struct Request {
    file: Arc<File>,
    hook: Option<Arc<dyn CompletionHook>>,
    what: What,
}

enum What {
    Read {
        offset: u64,
        length: usize,
        promise: Promise<Buffer>,
    },
    Write {
        offset: u64,
        bytes: Buffer,
        promise: Promise<()>,
    },
    WriteOut {
        offset: u64,
        length: u32,
        promise: Promise<()>,
    },
    Sync {
        promise: Promise<()>,
    },
}

/// A file as the ring uses it.
#[derive(Debug, Clone)]
pub(super) struct RingFile {
    pub(super) ring: Arc<Ring>,
    pub(super) file: Arc<File>,
    pub(super) hook: Option<Arc<dyn CompletionHook>>,
}

impl RingFile {
    pub(super) fn read(&self, offset: u64, length: usize) -> Pending<Buffer> {
        self.request(|promise| What::Read {
            offset,
            length,
            promise,
        })
    }

    pub(super) fn write(&self, offset: u64, bytes: Buffer) -> Pending<()> {
        self.request(|promise| What::Write {
            offset,
            bytes,
            promise,
        })
    }

    /// Lets the device begin with what was written, so that the sync at the end finds little left to do. Promises nothing
    /// and never fails: errors of the device are kept for that sync, as nobody waits here for what was begun.
    pub(super) fn write_out(&self, offset: u64, length: u32) -> Pending<()> {
        self.request(|promise| What::WriteOut {
            offset,
            length,
            promise,
        })
    }

    pub(super) fn sync(&self) -> Pending<()> {
        self.request(|promise| What::Sync { promise })
    }

    fn request<T>(&self, what: impl FnOnce(Promise<T>) -> What) -> Pending<T> {
        let (promise, pending) = Pending::coming();
        self.ring.send(Message::CarryOut(Request {
            file: Arc::clone(&self.file),
            hook: self.hook.clone(),
            what: what(promise),
        }));
        pending
    }
}

impl Ring {
    /// Returns the ring that the process shares; starts it if need be. It never ends.
    pub(super) fn shared() -> io::Result<Arc<Self>> {
        static SHARED: OnceLock<Arc<Ring>> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = SHARED.get() {
            return Ok(Arc::clone(ring));
        }
        // Not remembered if it fails: descriptors or memory may be there the next time.
        let ring = Arc::new(Self::start()?);
        Ok(Arc::clone(SHARED.get_or_init(|| ring)))
    }

    /// Starts a ring and its thread.
    pub(super) fn start() -> io::Result<Self> {
        let (requests, received) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX as usize));
        let (started, starting) = blocking::sync_channel(1);
        let run = {
            let permits = Arc::clone(&permits);
            move || run(received, permits, &started)
        };
        let thread = std::thread::Builder::new()
            .name("tegula-ring".to_owned())
            .spawn(run)?;
        // A panic while starting drops the other end.
        let ended = |_| Err(io::Error::other("the ring's thread ended at once"));
        starting.recv().unwrap_or_else(ended)?;
        Ok(Self {
            requests: Some(requests),
            permits,
            thread: Some(thread),
        })
    }

    /// Returns how many operations are with the kernel.
    pub(super) fn in_flight(&self) -> usize {
        (IN_FLIGHT_MAX as usize).saturating_sub(self.permits.available_permits())
    }

    /// Waits until all that was asked before is over; what is asked meanwhile comes after.
    pub(super) fn drain(&self) -> io::Result<()> {
        let (promise, pending) = Pending::coming();
        self.send(Message::Drain(promise));
        pending.wait()
    }

    fn send(&self, message: Message) {
        if let Some(requests) = &self.requests {
            // If nobody receives it any more, its promise is dropped with it: that is an error for who waits.
            let _ = requests.send(message);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The thread carries out what is in the channel, waits for all that is in flight, and ends.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Aborts the process if it is dropped by a panic.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// The ring's thread.
fn run(
    requests: mpsc::UnboundedReceiver<Message>,
    permits: Arc<Semaphore>,
    started: &blocking::SyncSender<io::Result<()>>,
) {
    let runtime = match tokio_uring::Runtime::new(tokio_uring::builder().entries(IN_FLIGHT_MAX)) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    // Dropped after a panic the runtime would free buffers that the kernel still writes.
    let _guard = AbortOnPanic;
    let _ = started.send(Ok(()));
    runtime.block_on(serve(requests, permits));
}

/// Carries out requests until nobody can send any more, then waits until nothing is in flight.
async fn serve(mut requests: mpsc::UnboundedReceiver<Message>, permits: Arc<Semaphore>) {
    let again = Duration::from_millis(SUBMIT_AGAIN_MS);
    loop {
        let received = if permits.available_permits() == IN_FLIGHT_MAX as usize {
            requests.recv().await
        } else {
            match tokio::time::timeout(again, requests.recv()).await {
                Ok(received) => received,
                Err(_) => continue,
            }
        };
        match received {
            Some(Message::CarryOut(request)) => {
                let permit = waking(Arc::clone(&permits).acquire_owned()).await;
                let permit = permit.expect("because nobody closes the semaphore");
                tokio_uring::spawn(carry_out(request, permit));
            }
            Some(Message::Drain(promise)) => {
                drain(&permits).await;
                promise.fulfil(Ok(()));
            }
            None => return drain(&permits).await,
        }
    }
}

/// Waits until nothing is in flight: all permits are back.
async fn drain(permits: &Semaphore) {
    drop(waking(permits.acquire_many(IN_FLIGHT_MAX)).await);
}

/// Awaits a future that ends when operations do, waking up now and then so that they are submitted.
async fn waking<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        let again = Duration::from_millis(SUBMIT_AGAIN_MS);
        if let Ok(output) = tokio::time::timeout(again, &mut future).await {
            return output;
        }
    }
}

/// What an operation needs until the kernel is done with it. The permit goes last.
struct Held {
    buffer: Buffer,
    file: Arc<File>,
    permit: OwnedSemaphorePermit,
}

async fn carry_out(request: Request, permit: OwnedSemaphorePermit) {
    let Request { file, hook, what } = request;
    let hook = hook.as_deref();
    let held = |buffer| Held {
        buffer,
        file,
        permit,
    };
    // The file is closed before the promise is kept: whoever waits for the last write of a file and lets go of it finds
    // its lock free. The permit is given back after: a drained ring has kept its promises.
    match what {
        What::Read {
            offset,
            length,
            promise,
        } => {
            // Only now, so that a long queue holds no memory.
            let held = held(Buffer::with_capacity(length));
            let (read, held) = read_whole(held, offset, length, hook).await;
            let _permit = held.permit;
            drop(held.file);
            promise.fulfil(read.map(|()| held.buffer));
        }
        What::Write {
            offset,
            bytes,
            promise,
        } => {
            let (written, held) = write_whole(held(bytes), offset, hook).await;
            let _permit = held.permit;
            drop(held.file);
            promise.fulfil(written);
        }
        What::WriteOut {
            offset,
            length,
            promise,
        } => {
            let held = held(Buffer::default());
            // Only begun: with a flag to wait, the kernel would tell of a failed write here, and the sync no more.
            let entry = opcode::SyncFileRange::new(types::Fd(held.file.as_raw_fd()), length)
                .offset(offset)
                .flags(SYNC_FILE_RANGE_WRITE)
                .build();
            let (_, held) = submit(held, entry).await;
            let _permit = held.permit;
            drop(held.file);
            promise.fulfil(Ok(()));
        }
        What::Sync { promise } => {
            let (synced, held) = sync(held(Buffer::default()), hook).await;
            let _permit = held.permit;
            drop(held.file);
            promise.fulfil(synced);
        }
    }
}

async fn read_whole(
    mut held: Held,
    offset: u64,
    length: usize,
    hook: Option<&dyn CompletionHook>,
) -> (io::Result<()>, Held) {
    let mut patience = Patience::new();
    loop {
        let filled = held.buffer.len();
        let missing = length.saturating_sub(filled).min(ENTRY_BYTES_MAX);
        if missing == 0 {
            return (Ok(()), held);
        }
        let space = held.buffer.as_vec_mut().spare_capacity_mut();
        let space = space
            .get_mut(..missing)
            .expect("because the capacity was asked for");
        let (pointer, wanted) = (space.as_mut_ptr().cast(), entry_length(missing));
        // The kernel writes to `space`: the heap memory of `held.buffer`, which stays where it is while `held` moves.
        let entry = opcode::Read::new(types::Fd(held.file.as_raw_fd()), pointer, wanted)
            .offset(offset + filled as u64)
            .build();
        let (completed, still_held) = submit(held, entry).await;
        held = still_held;
        let truly = completed.as_ref().copied().unwrap_or(0);
        match patience.judge(Operation::Read, completed, hook).await {
            Ok(Some(0)) => return (Err(io::ErrorKind::UnexpectedEof.into()), held),
            Ok(Some(read)) => {
                let read = read.min(truly) as usize;
                // SAFETY: the kernel said that it wrote `truly` bytes at the end of the filled ones, and `space` was
                // within the capacity. No hook can make it more.
                unsafe { held.buffer.as_vec_mut().set_len(filled + read) };
            }
            Ok(None) => {}
            Err(error) => return (Err(error), held),
        }
    }
}

async fn write_whole(
    mut held: Held,
    offset: u64,
    hook: Option<&dyn CompletionHook>,
) -> (io::Result<()>, Held) {
    let mut patience = Patience::new();
    let mut written = 0;
    loop {
        let rest = held.buffer.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return (Ok(()), held);
        }
        let length = entry_length(rest.len().min(ENTRY_BYTES_MAX));
        // The kernel reads from `rest`: the heap memory of `held.buffer`, which stays where it is while `held` moves.
        let entry = opcode::Write::new(types::Fd(held.file.as_raw_fd()), rest.as_ptr(), length)
            .offset(offset + written as u64)
            .build();
        let (completed, still_held) = submit(held, entry).await;
        held = still_held;
        match patience.judge(Operation::Write, completed, hook).await {
            Ok(Some(0)) => return (Err(io::ErrorKind::WriteZero.into()), held),
            Ok(Some(more)) => written += more as usize,
            Ok(None) => {}
            Err(error) => return (Err(error), held),
        }
    }
}

/// Syncs a file's data, once: after any error, EINTR too, nobody can say whether the next sync would tell the truth.
async fn sync(held: Held, hook: Option<&dyn CompletionHook>) -> (io::Result<()>, Held) {
    let entry = opcode::Fsync::new(types::Fd(held.file.as_raw_fd()))
        .flags(types::FsyncFlags::DATASYNC)
        .build();
    let (completed, held) = submit(held, entry).await;
    let synced = through(hook, Operation::Sync, completed);
    (synced.map(|_| ()), held)
}

/// Lets the hook change a completion.
fn through(
    hook: Option<&dyn CompletionHook>,
    operation: Operation,
    completed: io::Result<u32>,
) -> io::Result<u32> {
    match hook {
        Some(hook) => hook.completed(operation, completed),
        None => completed,
    }
}

fn entry_length(length: usize) -> u32 {
    u32::try_from(length).expect("because an entry has at most 1 GiB")
}

/// Gives an operation to the kernel; comes back with what it held once the kernel is done with it.
///
/// The entry may point into `held.buffer` and must use `held.file`: tokio-uring keeps `held` until the completion, even
/// if this future is dropped.
async fn submit(held: Held, entry: squeue::Entry) -> (io::Result<u32>, Held) {
    UnsubmittedOneshot::new(held, Completed, entry)
        .submit()
        .await
}

struct Completed;

impl OneshotOutputTransform for Completed {
    type Output = (io::Result<u32>, Held);
    type StoredData = Held;

    fn transform_oneshot_output(self, held: Held, entry: cqueue::Entry) -> Self::Output {
        let result = entry.result();
        let failed = |_| io::Error::from_raw_os_error(result.saturating_neg());
        (u32::try_from(result).map_err(failed), held)
    }
}

/// How often an operation was put off by the kernel.
struct Patience {
    tries: u32,
}

impl Patience {
    const fn new() -> Self {
        Self { tries: 0 }
    }

    /// Passes a completion through the hook; `None` if the operation is to be tried again.
    async fn judge(
        &mut self,
        operation: Operation,
        completed: io::Result<u32>,
        hook: Option<&dyn CompletionHook>,
    ) -> io::Result<Option<u32>> {
        let put_off = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
            )
        };
        match through(hook, operation, completed) {
            Err(error) if put_off(&error) && self.tries < TRIES_MAX => {
                self.tries += 1;
                // The kernel is short of something: ask less and less often, for about a second.
                let pause_ms = u64::from(self.tries.saturating_sub(3).min(10));
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                Ok(None)
            }
            result => {
                self.tries = 0;
                result.map(Some)
            }
        }
    }
}
