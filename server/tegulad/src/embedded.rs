//! The server inside of another program, which begins and ends it.
//!
//! It is the server that the program `tegulad` runs, on a port of loopback that the system chooses, with everything it keeps
//! below one directory, as if it had been started there without a configuration. It prints nothing, watches no signals, and
//! logs into a file.

use std::error::Error;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use tegula_engine::BackendPreference;
use tegula_identity::Secret;
use tokio::sync::oneshot;

use crate::config::{Backend, Config};
use crate::log::Log;
use crate::serve::{self, Asked, Asking, Ready};

/// The file of the log, below the directory.
const LOG: &str = "tegulad.log";

/// Where the default configuration has the database.
const DATABASE: &str = "tegula-data/catalog.sqlite";

/// A server that runs in this process. Ends when it is dropped, after the requests under way.
#[derive(Debug)]
pub struct Server {
    told: Told,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<usize>>,
}

/// A server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[error("the server {text}")]
pub struct ServerError {
    text: String,
}

/// What is known of a server that serves.
#[derive(Debug)]
struct Told {
    address: SocketAddr,
    token: Secret,
}

impl Server {
    /// Starts one that keeps its database, store and token in `tegula-data` below `directory`, and its log beside that.
    /// `tegulad`, started in that directory without a configuration, serves the same images later.
    ///
    /// The log is the process's: of several servers in one process, the first one's has all.
    ///
    /// # Errors
    /// [`ServerError`]; nothing is served then.
    pub fn start(directory: &Path, backend: BackendPreference) -> Result<Self, ServerError> {
        let failed = |text: String| ServerError {
            text: format!("cannot start: {text}"),
        };
        let config = config(directory, backend).map_err(failed)?;
        let path = directory.join(LOG);
        let log =
            File::create(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        let (tell, told) = sync_channel(1);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || run(&config, log, Owner(ended), &tell))
            .map_err(|error| failed(error.to_string()))?;
        let told = told
            .recv()
            .unwrap_or_else(|_| Err("it ended before it served".to_owned()))
            .map_err(failed)?;
        Ok(Self {
            told,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.told.address
    }

    /// Returns the administrator's token.
    pub fn token(&self) -> &str {
        self.told.token.reveal()
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// [`ServerError`] if requests under way had to be cut off, or it panicked.
    pub fn end(mut self) -> Result<(), ServerError> {
        let text = match self.stop() {
            None | Some(Ok(0)) => return Ok(()),
            Some(Ok(connections)) => format!("had to cut off {connections} connections"),
            Some(Err(_)) => "panicked".to_owned(),
        };
        Err(ServerError { text })
    }

    fn stop(&mut self) -> Option<std::thread::Result<usize>> {
        drop(self.end.take());
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What was under way is nobody's any more.
        let _ = self.stop();
    }
}

/// What a server without a configuration would have, below a directory, and on any port.
fn config(directory: &Path, backend: BackendPreference) -> Result<Config, String> {
    let mut config = Config::default();
    let below = |path: &Path| directory.join(path);
    let database = below(Path::new(DATABASE));
    let database = database
        .to_str()
        .ok_or_else(|| format!("the path {} is not UTF-8", database.display()))?;
    config.listen.address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.store.path = below(&config.store.path);
    // That thread ends with the process alone.
    config.store.collect_every_s = 0;
    config.store.backend = match backend {
        BackendPreference::Auto => Backend::Auto,
        BackendPreference::IoUring => Backend::IoUring,
        BackendPreference::Blocking => Backend::Blocking,
    };
    config.identity.admin_token.file = below(&config.identity.admin_token.file);
    config.database.url = Secret::new(format!("sqlite:{database}"));
    Ok(config)
}

/// Serves; says where, or why not. Returns how many connections were cut off at the end.
fn run(config: &Config, log: File, owner: Owner, tell: &SyncSender<Result<Told, String>>) -> usize {
    let serving = || -> Result<usize, Box<dyn Error>> {
        let _log = Log::start(&config.log, log)?;
        let mut ready = Ready::open(config)?;
        let runtime = serve::runtime(config)?;
        runtime.block_on(async {
            let listener = serve::listen(config).await?;
            let token = ready.known.admin_token.as_ref();
            let token = token.expect("because the default configuration has one");
            let told = Told {
                address: listener.local_addr()?,
                token: Secret::new(token.reveal()),
            };
            // Whoever started it waits for this.
            let _ = tell.send(Ok(told));
            Ok(ready.serve(listener, owner).await)
        })
    };
    serving().unwrap_or_else(|error| {
        // After it was told that it serves, nothing fails any more.
        let _ = tell.try_send(Err(crate::chain(error.as_ref())));
        0
    })
}

/// The program around the server: it asks for one thing, once.
struct Owner(oneshot::Receiver<()>);

impl Asking for Owner {
    async fn next(&mut self) -> Asked {
        // Nobody sends: it is dropped.
        let _ = (&mut self.0).await;
        Asked::End
    }

    async fn while_ending(self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_below_the_directory_where_a_server_without_configuration_looks_for_it() {
        let (directory, usual) = (Path::new("/a/b"), Config::default());
        let config = config(directory, BackendPreference::Auto).unwrap();
        let below = |path: &Path| directory.join(path);
        assert_eq!(config.store.path, below(&usual.store.path));
        let (ours, theirs) = (&config.identity.admin_token, &usual.identity.admin_token);
        assert_eq!(ours.file, below(&theirs.file));
        let path = |config: &Config| {
            let url = config.database.url.reveal().to_owned();
            url.strip_prefix("sqlite:").unwrap().to_owned()
        };
        assert_eq!(Path::new(&path(&config)), below(Path::new(&path(&usual))));
    }

    #[test]
    fn a_server_answers_until_it_is_dropped_and_lets_go_of_everything() {
        let directory = tempfile::tempdir().unwrap();
        let mut token = None;
        for _ in 0..2 {
            let server = Server::start(directory.path(), BackendPreference::Blocking).unwrap();
            assert!(server.address().ip().is_loopback());
            let second = Server::start(directory.path(), BackendPreference::Blocking);
            let refused = second.unwrap_err().to_string();
            assert!(
                refused.contains("another tegulad serves this store"),
                "{refused}"
            );
            // The same the second time.
            let found = server.token().to_owned();
            assert_eq!(*token.get_or_insert(found.clone()), found);
            let answer = ask(server.address(), &found);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let address = server.address();
            server.end().unwrap();
            assert!(std::net::TcpStream::connect(address).is_err());
        }
        let log = std::fs::read_to_string(directory.path().join(LOG)).unwrap();
        assert!(!log.contains(&token.unwrap()), "{log}");
    }

    #[test]
    fn a_server_that_cannot_start_says_why() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tegula-data"), "a file").unwrap();
        let error = Server::start(directory.path(), BackendPreference::Blocking).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("store.path") && text.contains("tegula-data"),
            "{text}"
        );
    }

    /// Asks for the list of images.
    fn ask(address: SocketAddr, token: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = "GET /v2/images HTTP/1.1\r\nHost: here\r\nConnection: close\r\n";
        write!(stream, "{head}X-Auth-Token: {token}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}
