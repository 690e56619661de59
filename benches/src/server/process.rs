//! The server under measurement: started on a free port over an empty directory, stopped when dropped.

use super::http::Connection;
use anyhow::{Context, bail};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tegula_io::{Clock, SystemClock};

/// Long enough for a server to open an empty store, on any machine.
const START_SECONDS: u64 = 30;

/// Clock ticks a second, as every Linux kernel reports CPU time to user space.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    token: String,
}

impl Server {
    /// Starts the server that was built beside this program.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("tegulad");
        if !program.exists() {
            bail!(
                "{} is missing: cargo build --release --bin tegulad",
                program.display()
            );
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fs::create_dir_all(directory)?;
        let log = fs::File::create(directory.join("log"))?;
        let token = directory.join("admin-token");
        // Everything else is as it is without configuration.
        let child = Command::new(program)
            .env("TEGULAD_LISTEN__ADDRESS", address.to_string())
            .env(
                "TEGULAD_DATABASE__URL",
                format!("sqlite:{}", database(directory).display()),
            )
            .env("TEGULAD_STORE__PATH", directory.join("store"))
            .env("TEGULAD_IDENTITY__ADMIN_TOKEN__FILE", &token)
            .env("TEGULAD_LOG__ACCESS", "false")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self {
            child,
            address,
            token: String::new(),
        };
        server.wait(directory)?;
        let token = fs::read_to_string(&token).with_context(|| token.display().to_string())?;
        token.trim().clone_into(&mut server.token);
        Ok(server)
    }

    fn wait(&self, directory: &Path) -> anyhow::Result<()> {
        let begin = SystemClock.elapsed();
        while SystemClock.elapsed() - begin < Duration::from_secs(START_SECONDS) {
            if let Ok(mut connection) = self.connect()
                && connection
                    .call("GET", "/healthcheck", None, &[])
                    .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        bail!("tegulad did not answer within {START_SECONDS} s; it said: {log}")
    }

    pub(super) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.address, &self.token)
    }

    /// CPU seconds of the server so far, user and system.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path)?;
        // The name may hold anything; the fields after its closing parenthesis are numbers.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| -> anyhow::Result<f64> {
            let field = fields
                .get(index)
                .with_context(|| format!("{path} is short"))?;
            Ok(field.parse()?)
        };
        Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// A line of the server's status, in MiB.
    pub(super) fn memory_mib(&self, line: &str) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path)?;
        let kib: f64 = status
            .lines()
            .find_map(|found| found.strip_prefix(line))
            .and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix(" kB"))
            .with_context(|| format!("{path} has no {line}"))?
            .parse()?;
        Ok(kib / 1024.0)
    }
}

/// The database of the server in that directory.
pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("catalog.sqlite")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
