//! A connection that cannot hold on to the server by doing nothing.
//!
//! hyper bounds how long the head of a request takes; handlers bound how long a body takes. What is left are two cases: a
//! client that does not take its answer, and one that goes on sending a body which was refused. The first is given up after
//! a while without progress. The second is let finish, its bytes thrown away, for a moment: closing at once would have the
//! kernel discard the answer that it has not read yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client may go on sending after the server has said its last word.
const LINGER: Duration = Duration::from_secs(10);
/// How long it is waited for the next of its bytes: a client that is idle has none.
const LINGER_QUIET: Duration = Duration::from_secs(1);
/// How much is taken from it.
const LINGER_BYTES: u64 = 1 << 30;

/// A stream with limits.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    stall: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
}

#[derive(Debug)]
struct Lingering {
    until: Pin<Box<Sleep>>,
    quiet: Pin<Box<Sleep>>,
    bytes: u64,
    closed: bool,
}

impl<S> Guarded<S> {
    /// A write that makes no progress for `stall` fails.
    pub(crate) const fn new(stream: S, stall: Duration) -> Self {
        Self {
            stream,
            stall,
            stalled: None,
            lingering: None,
        }
    }

    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stall = self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client did not take its answer",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingering = this.lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(sleep(LINGER)),
            quiet: Box::pin(sleep(LINGER_QUIET)),
            bytes: 0,
            closed: false,
        });
        if lingering.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !lingering.closed {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            lingering.closed = true;
        }
        let mut scratch = [0; 16 << 10];
        while lingering.bytes < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut this.stream).poll_read(context, &mut buffer);
            if read.is_pending() {
                return lingering.quiet.as_mut().poll(context).map(Ok);
            }
            ready!(read)?;
            if buffer.filled().is_empty() {
                break;
            }
            lingering.bytes += buffer.filled().len() as u64;
            lingering
                .quiet
                .as_mut()
                .reset(Instant::now() + LINGER_QUIET);
        }
        Poll::Ready(Ok(()))
    }
}
