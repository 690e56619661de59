//! A request's body as a blocking source of bytes.
//!
//! ```text
//!   connection ──frames──► pump (async) ──channel of PIECES──► Source: Read (a thread that may block)
//! ```
//! Nothing is taken from the connection before the first byte is asked for: a request that is refused has not sent for nothing
//! (and `Expect: 100-continue` has not been answered). That the channel closes is not the end of the body: the end is a message.

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use std::io::{self, Read};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Frames that wait to be taken; each is as long as what the connection reads at once, at most.
const PIECES: usize = 8;

/// What comes through the channel.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
    Failed(io::Error),
}

/// The end that is read, by a thread that may block.
#[derive(Debug)]
pub(crate) struct Source {
    pieces: mpsc::Receiver<Piece>,
    /// Told when the first byte is asked for.
    begin: Option<oneshot::Sender<()>>,
    current: Bytes,
    ended: bool,
}

/// The end that is fed.
#[derive(Debug)]
pub(crate) struct Pump {
    pieces: mpsc::Sender<Piece>,
    begin: oneshot::Receiver<()>,
    stall: Duration,
}

/// A source and its pump; a body of which nothing comes for `stall` is given up.
pub(crate) fn source(stall: Duration) -> (Pump, Source) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let (begin, begun) = oneshot::channel();
    let source = Source {
        pieces,
        begin: Some(begin),
        current: Bytes::new(),
        ended: false,
    };
    let pump = Pump {
        pieces: sender,
        begin: begun,
        stall,
    };
    (pump, source)
}

impl Pump {
    /// Feeds the body to the source, until either ends. Returns how many bytes were fed.
    pub(crate) async fn run<B>(self, mut body: B) -> u64
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut fed = 0;
        // The source is gone without having asked: the request was refused.
        if self.begin.await.is_err() {
            return fed;
        }
        loop {
            let piece = match timeout(self.stall, body.frame()).await {
                Err(_) => Piece::Failed(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing came for too long",
                )),
                Ok(None) => Piece::End,
                Ok(Some(Err(error))) => Piece::Failed(io::Error::other(error)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => Piece::Data(data),
                    // Trailers: nothing in them is of use.
                    Err(_) => continue,
                },
            };
            let last = !matches!(piece, Piece::Data(_));
            if let Piece::Data(data) = &piece {
                fed += data.len() as u64;
            }
            if self.pieces.send(piece).await.is_err() || last {
                return fed;
            }
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(begin) = self.begin.take() {
            // The pump is gone if the client is; the channel says so below.
            let _ = begin.send(());
        }
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => return Err(error),
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the client left",
                    ));
                }
            }
        }
        let length = self.current.len().min(buffer.len());
        let data = self.current.split_to(length);
        if let Some(target) = buffer.get_mut(..length) {
            target.copy_from_slice(&data);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, Full};
    use hyper::body::Frame;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    /// Reads all that comes of a body, on a thread of its own.
    fn read<B>(body: B, stall: Duration) -> io::Result<Vec<u8>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (pump, mut source) = source(stall);
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).map(|_| bytes)
        });
        runtime().block_on(pump.run(body));
        reader.join().unwrap()
    }

    /// A body that gives these bytes, and then breaks off.
    struct Broken(Option<Bytes>);

    impl Body for Broken {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            let broken = io::Error::other("reset");
            Poll::Ready(Some(self.0.take().map(Frame::data).ok_or(broken)))
        }
    }

    /// A body that never gives anything.
    struct Stuck;

    impl Body for Stuck {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_body_is_read_to_its_end() {
        let long = Duration::from_secs(60);
        assert_eq!(
            read(Full::new(Bytes::from_static(b"abc")), long).unwrap(),
            b"abc"
        );
        assert_eq!(read(Empty::new(), long).unwrap(), b"");
    }

    #[test]
    fn a_body_that_breaks_off_or_stalls_does_not_look_like_a_short_one() {
        let long = Duration::from_secs(60);
        let broken = Broken(Some(Bytes::from_static(b"abc")));
        assert_eq!(read(broken, long).unwrap_err().to_string(), "reset");
        let stalled = read(Stuck, Duration::from_millis(5)).unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        let (pump, mut source) = source(long);
        drop(pump);
        let gone = source.read(&mut [0]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[test]
    fn nothing_is_taken_for_a_source_that_never_asks() {
        let (pump, source) = source(Duration::from_secs(60));
        drop(source);
        assert_eq!(runtime().block_on(pump.run(Stuck)), 0);
    }
}
