//! The wire between clients and the server: a relay on loopback that counts what passes, heads of requests and all.
//!
//! Neither side counts for itself, so that what is shown is what went by.

use super::DemoError;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes passed on at once.
const PIECE_BYTES: usize = 256 << 10;

/// How long to wait before connections are taken again when the system has nothing left for one.
const PAUSE: Duration = Duration::from_millis(20);

/// Passes connections on to a server until it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    counts: Arc<Counts>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

/// The bytes that passed, as the client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Passed {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Passed {
    /// Returns what passed since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
        }
    }
}

impl Wire {
    /// Begins to pass connections on.
    ///
    /// # Errors
    /// [`DemoError::Io`] if there is no port or no thread to be had.
    pub(crate) fn to(server: SocketAddr) -> Result<Self, DemoError> {
        let failed = |source| DemoError::at("listen on", Path::new("a port of loopback"))(source);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (counts, end) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (counts, end) = (Arc::clone(&counts), Arc::clone(&end));
            thread::Builder::new()
                .name("wire".to_owned())
                .spawn(move || accept(&listener, server, &counts, &end))
                .map_err(failed)?
        };
        Ok(Self {
            address,
            counts,
            end,
            thread: Some(thread),
        })
    }

    /// Returns where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what passed until now. All of an answer that a client has is in it.
    pub(crate) fn passed(&self) -> Passed {
        Passed {
            sent: self.counts.sent.load(Ordering::SeqCst),
            received: self.counts.received.load(Ordering::SeqCst),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        // The thread waits for a connection: this is one. If it cannot be made, the thread stays until the program ends.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, counts: &Arc<Counts>, end: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if end.load(Ordering::SeqCst) {
            return;
        }
        // A client whose connection is dropped learns of it.
        let passing = accepted.and_then(|(client, _)| pass(client, server, Arc::clone(counts)));
        if passing.is_err() {
            thread::sleep(PAUSE);
        }
    }
}

/// Passes one connection on, on two threads that end with it.
fn pass(client: TcpStream, server: SocketAddr, counts: Arc<Counts>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (client_back, server_back) = (client.try_clone()?, server.try_clone()?);
    let counts_back = Arc::clone(&counts);
    let builder = || thread::Builder::new().name("wire".to_owned());
    builder().spawn(move || copy(client, server, &counts.sent))?;
    builder().spawn(move || copy(server_back, client_back, &counts_back.received))?;
    Ok(())
}

/// Passes on what comes until there is no more, and says so to the other side.
fn copy(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = match from.read(&mut piece) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break close(&from, &to),
        };
        if bytes == 0 {
            // The other direction may still have something to say.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        // Before it is passed on: whoever has it finds it counted.
        count.fetch_add(bytes as u64, Ordering::SeqCst);
        if to
            .write_all(piece.get(..bytes).unwrap_or_default())
            .is_err()
        {
            break close(&from, &to);
        }
    }
}

fn close(from: &TcpStream, to: &TcpStream) {
    for stream in [from, to] {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_passed_on_and_counted_in_its_direction() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Wire::to(server.local_addr().unwrap()).unwrap();
        let answering = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut question = Vec::new();
            stream.read_to_end(&mut question).unwrap();
            stream.write_all(&[7; 1_000_003]).unwrap();
            question.len()
        });
        let mut client = TcpStream::connect(wire.address()).unwrap();
        client.write_all(&[5; 600_001]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answering.join().unwrap(), 600_001);
        assert!(answer == [7; 1_000_003]);
        let passed = Passed {
            sent: 600_001,
            received: 1_000_003,
        };
        assert_eq!(wire.passed(), passed);
        let address = wire.address();
        drop(wire);
        assert!(TcpStream::connect(address).is_err(), "it goes on listening");
    }

    #[test]
    fn a_client_learns_that_the_server_is_gone() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Wire::to(server.local_addr().unwrap()).unwrap();
        drop(server);
        let mut client = TcpStream::connect(wire.address()).unwrap();
        let mut answer = Vec::new();
        // The end or an error, but no waiting.
        let _ = client.read_to_end(&mut answer);
        assert_eq!((answer.len(), wire.passed()), (0, Passed::default()));
    }
}
