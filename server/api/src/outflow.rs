//! A blocking stream of an image's bytes as the body of an answer.
//!
//! ```text
//!   engine (a thread that may block) ──StreamPiece──► Sink ──channel of PIECES──► body ──► connection
//! ```
//! A client that is slow fills the channel, and the stream waits; one that leaves closes it, and the stream ends.

use hyper::body::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tegula_engine::{Buffer, StreamPiece};
use tokio::sync::mpsc;

/// Pieces that wait to be sent; the engine bounds how long one is.
const PIECES: usize = 1;
/// Zeros that are sent again and again.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The end that is fed, by a thread that may block.
#[derive(Debug)]
pub(crate) struct Sink {
    pieces: mpsc::Sender<io::Result<StreamPiece>>,
    stop: Arc<AtomicBool>,
}

/// The end that is sent.
#[derive(Debug)]
pub(crate) struct Outflow {
    pieces: mpsc::Receiver<io::Result<StreamPiece>>,
    /// What is being sent.
    current: Option<StreamPiece>,
    /// How many bytes are still to be sent.
    left: u64,
    stop: Arc<AtomicBool>,
}

/// A sink for `bytes` bytes and what sends them.
pub(crate) fn outflow(bytes: u64) -> (Sink, Outflow) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let stop = Arc::new(AtomicBool::new(false));
    let sink = Sink {
        pieces: sender,
        stop: Arc::clone(&stop),
    };
    let outflow = Outflow {
        pieces,
        current: None,
        left: bytes,
        stop,
    };
    (sink, outflow)
}

impl Sink {
    /// Takes a piece, and waits while there are enough.
    ///
    /// # Errors
    /// If nobody wants it any more.
    pub(crate) fn take(&self, piece: StreamPiece) -> io::Result<()> {
        self.pieces
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client left"))
    }

    /// Says that no more comes, though more should.
    pub(crate) fn fail(&self, why: String) {
        // Who has left does not want to know.
        let _ = self.pieces.blocking_send(Err(io::Error::other(why)));
    }

    /// Set when nobody wants any more.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }
}

/// A sink as a writer, which gathers what it is given.
#[derive(Debug)]
pub(crate) struct SinkWriter {
    sink: Sink,
    gathered: Vec<u8>,
}

impl SinkWriter {
    /// Bytes that are gathered to be sent together.
    const PIECE_BYTES: usize = 128 << 10;

    pub(crate) fn new(sink: Sink) -> Self {
        let gathered = Vec::new();
        Self { sink, gathered }
    }

    /// The sink.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sink
    }
}

impl io::Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = Self::PIECE_BYTES - self.gathered.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.gathered.extend_from_slice(taken);
        if self.gathered.len() == Self::PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Buffer::copied(&self.gathered);
        self.gathered.clear();
        self.sink.take(StreamPiece::Data(piece))
    }
}

impl Outflow {
    /// Waits until the first bytes are there, or it is known that none come.
    ///
    /// # Errors
    /// What the stream says.
    pub(crate) async fn begin(&mut self) -> io::Result<()> {
        if self.left > 0 {
            self.current = self.pieces.recv().await.transpose()?;
        }
        Ok(())
    }

    /// How many bytes are still to be sent.
    pub(crate) const fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes to be sent; none at the end.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Bytes>>> {
        use std::task::{Poll, ready};
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match self.current.take() {
            Some(piece) => piece,
            None => match ready!(self.pieces.poll_recv(context)) {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended");
                    return Poll::Ready(Some(Err(error)));
                }
            },
        };
        let bytes = match piece {
            StreamPiece::Data(buffer) => Bytes::from_owner(buffer),
            StreamPiece::Zeros(zeros) => {
                let length = zeros.min(ZEROS.len() as u64);
                if zeros > length {
                    self.current = Some(StreamPiece::Zeros(zeros - length));
                }
                let length = usize::try_from(length).unwrap_or(ZEROS.len());
                Bytes::from_static(ZEROS.get(..length).unwrap_or(&ZEROS))
            }
        };
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Poll::Ready(Some(Ok(bytes)))
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
