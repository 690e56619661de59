//! `tegula-benches server`: requests a second, latency and CPU of the catalog, and the speed of its data path, against the
//! hash functions and the engine's own ingest and restore in the same run.
//!
//! The client runs on the same cores: rates are lower bounds. CPU milliseconds a request are the server's alone.

mod http;
mod listing;
mod process;

use http::Connection;
use md5::{Digest, Md5};
use process::Server;
use serde::Serialize;
use sha2::Sha512;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tegula_io::{Clock, SystemClock};

/// What to measure, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) scratch: PathBuf,
    pub(crate) requests: u32,
    pub(crate) mebibytes: u64,
    pub(crate) images: u64,
    pub(crate) json: Option<PathBuf>,
}

/// A row of the result.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    target: String,
    met: Option<bool>,
}

/// CPU milliseconds that the Glance of the baselines (33.0.0, gunicorn, MariaDB) spent on a request.
const GLANCE_GET_MS: f64 = 10.4;
const GLANCE_LIST_MS: f64 = 40.0;
const GLANCE_POST_MS: f64 = 42.0;

/// Connections that ask at the same time in the second half of each row.
const CALLERS: u32 = 4;

/// Connections that do nothing.
const IDLE: usize = 1000;

/// Downloads that nobody reads.
const STALLED: usize = 200;

struct Bench<'a> {
    plan: &'a Plan,
    server: Server,
    rows: Vec<Row>,
}

pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    let directory = plan.scratch.join("server");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let server = Server::start(&directory)?;
    let mut bench = Bench {
        plan,
        server,
        rows: Vec::new(),
    };
    bench.requests()?;
    let path = bench.data()?;
    bench.idle()?;
    bench.stalled(&path)?;
    let peak = bench.server.memory_mib("VmHWM")?;
    bench.row("peak memory of the server", peak, "MiB", None);
    bench.listings()?;
    println!("{}", crate::engine::machine());
    println!("\n| what | value | unit | target | met |\n|---|---|---|---|---|");
    for row in &bench.rows {
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        println!(
            "| {} | {:.2} | {} | {} | {met} |",
            row.what, row.value, row.unit, row.target
        );
    }
    if let Some(path) = &plan.json {
        fs::write(path, serde_json::to_string_pretty(&bench.rows)?)?;
    }
    drop(bench);
    fs::remove_dir_all(&directory)?;
    Ok(())
}

impl Bench<'_> {
    /// Adds a row; a limit is the most the value may be.
    fn row(&mut self, what: &str, value: f64, unit: &'static str, at_most: Option<f64>) {
        self.rows.push(Row {
            what: what.to_owned(),
            value,
            unit,
            target: at_most.map_or_else(String::new, |limit| format!("≤ {limit:.2}")),
            met: at_most.map(|limit| value <= limit),
        });
    }

    fn at_least(&mut self, what: &str, value: f64, unit: &'static str, limit: f64) {
        self.rows.push(Row {
            what: what.to_owned(),
            value,
            unit,
            target: format!("≥ {limit:.2}"),
            met: Some(value >= limit),
        });
    }

    fn requests(&mut self) -> anyhow::Result<()> {
        let mut connection = self.server.connect()?;
        let mut ids = Vec::new();
        for number in 0..1000 {
            ids.push(create(&mut connection, number)?);
        }
        let posts = self.plan.requests / 4;
        self.calls(
            "POST an image",
            posts,
            GLANCE_POST_MS,
            |connection, number| create(connection, number).map(|_| ()),
        )?;
        let ids = &ids;
        self.calls(
            "GET an image",
            self.plan.requests,
            GLANCE_GET_MS,
            |connection, number| {
                let id = ids
                    .get(number as usize % ids.len())
                    .map_or("", String::as_str);
                expect_ok(connection, &format!("/v2/images/{id}"))
            },
        )?;
        self.calls(
            "list 25 images",
            self.plan.requests / 4,
            GLANCE_LIST_MS,
            |connection, _| expect_ok(connection, "/v2/images?limit=25"),
        )
    }

    /// What pages cost among many images, for which it starts servers of their own.
    fn listings(&mut self) -> anyhow::Result<()> {
        let directory = self.plan.scratch.join("server-listing");
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let few = listing::measure(&directory, listing::FEW, self.plan.requests)?;
        let many = listing::measure(&directory, self.plan.images, self.plan.requests)?;
        fs::remove_dir_all(&directory)?;
        for (few, many) in few.iter().zip(&many) {
            for (images, cost) in [(listing::FEW, few), (self.plan.images, many)] {
                let what = format!("{} of {images} images", cost.what);
                self.row(&format!("{what}: time"), cost.wall_ms, "ms", None);
                self.row(
                    &format!("{what}: CPU of the server"),
                    cost.cpu_ms,
                    "ms",
                    None,
                );
            }
            let ratios = [
                ("time", many.wall_ms / few.wall_ms),
                ("CPU", many.cpu_ms / few.cpu_ms),
            ];
            for (of, ratio) in ratios {
                let what = format!("{}: {of} by that of {} images", many.what, listing::FEW);
                self.row(&what, ratio, "", Some(listing::GROWTH_MAX));
            }
        }
        Ok(())
    }

    /// Makes calls one after the other, then from several connections at once.
    fn calls(
        &mut self,
        what: &str,
        count: u32,
        glance_ms: f64,
        call: impl Fn(&mut Connection, u32) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        for callers in [1, CALLERS] {
            let each = count / callers;
            let (cpu, begin) = (self.server.cpu_seconds()?, SystemClock.elapsed());
            let mut times = Vec::new();
            std::thread::scope(|scope| -> anyhow::Result<()> {
                let mut running = Vec::new();
                for caller in 0..callers {
                    let mut connection = self.server.connect()?;
                    let call = &call;
                    running.push(scope.spawn(move || -> anyhow::Result<Vec<f64>> {
                        let mut times = Vec::new();
                        for number in 0..each {
                            let begin = SystemClock.elapsed();
                            call(&mut connection, number * callers + caller)?;
                            times.push(milliseconds(SystemClock.elapsed() - begin));
                        }
                        Ok(times)
                    }));
                }
                for caller in running {
                    times.extend(
                        caller
                            .join()
                            .map_err(|_| anyhow::anyhow!("a caller panicked"))??,
                    );
                }
                Ok(())
            })?;
            let wall = (SystemClock.elapsed() - begin).as_secs_f64();
            let cpu = (self.server.cpu_seconds()? - cpu) * 1000.0 / f64::from(count);
            let what = format!("{what}, {callers} at a time");
            self.row(
                &format!("{what}: rate"),
                f64::from(count) / wall,
                "requests/s",
                None,
            );
            self.row(
                &format!("{what}: p99"),
                percentile(&mut times, 99),
                "ms",
                Some(5.0),
            );
            self.row(
                &format!("{what}: CPU of the server"),
                cpu,
                "ms",
                Some(glance_ms / 100.0),
            );
        }
        Ok(())
    }

    /// Returns the path of the uploaded image's bytes.
    fn data(&mut self) -> anyhow::Result<String> {
        let bytes = self.plan.mebibytes << 20;
        let hashes = slowest_hash(bytes);
        self.row(
            "limit: the slower of MD5 and SHA-512 alone",
            mib_s(bytes, hashes),
            "MiB/s",
            None,
        );
        let mut connection = self.server.connect()?;
        let id = create(&mut connection, u32::MAX)?;
        let path = format!("/v2/images/{id}/file");
        let (cpu, begin) = (self.server.cpu_seconds()?, SystemClock.elapsed());
        let status = connection.upload(&path, bytes, fill)?;
        anyhow::ensure!(status == 204, "the upload answered {status}");
        let wall = SystemClock.elapsed() - begin;
        let cpu = self.server.cpu_seconds()? - cpu;
        let gib = bytes as f64 / f64::from(1 << 30);
        self.row("upload", mib_s(bytes, wall), "MiB/s", None);
        self.row("upload: CPU of the server a GiB", cpu / gib, "s", None);
        self.at_least(
            "upload by the slowest hash",
            hashes.as_secs_f64() / wall.as_secs_f64(),
            "",
            0.85,
        );
        for round in ["first", "second"] {
            let (cpu, begin) = (self.server.cpu_seconds()?, SystemClock.elapsed());
            let length = connection.download(&path)?;
            anyhow::ensure!(length.0 == bytes, "{} bytes came back of {bytes}", length.0);
            let wall = SystemClock.elapsed() - begin;
            let cpu = self.server.cpu_seconds()? - cpu;
            self.row(
                &format!("download, {round}"),
                mib_s(bytes, wall),
                "MiB/s",
                None,
            );
            self.row(
                &format!("download, {round}: CPU of the server a GiB"),
                cpu / gib,
                "s",
                None,
            );
        }
        Ok(path)
    }

    /// What downloads cost that nobody reads.
    fn stalled(&mut self, path: &str) -> anyhow::Result<()> {
        let before = self.server.memory_mib("RssAnon")?;
        let stalled: Vec<Connection> = (0..STALLED)
            .map(|_| self.server.connect()?.begin_download(path))
            .collect::<anyhow::Result<_>>()?;
        std::thread::sleep(Duration::from_secs(2));
        let memory = (self.server.memory_mib("RssAnon")? - before) / STALLED as f64;
        let cpu = self.server.cpu_seconds()?;
        std::thread::sleep(Duration::from_secs(2));
        let cpu = self.server.cpu_seconds()? - cpu;
        self.row("200 stalled downloads: memory of each", memory, "MiB", None);
        self.row("200 stalled downloads: CPU in 2 s", cpu, "s", Some(0.1));
        let mut connection = self.server.connect()?;
        self.latency("GET beside 200 stalled downloads", &mut connection)?;
        drop(stalled);
        Ok(())
    }

    /// What a thousand connections cost that do nothing.
    fn idle(&mut self) -> anyhow::Result<()> {
        let before = self.server.memory_mib("RssAnon")?;
        let idle: Vec<Connection> = (0..IDLE)
            .map(|_| self.server.connect())
            .collect::<anyhow::Result<_>>()?;
        let mut connection = self.server.connect()?;
        expect_ok(&mut connection, "/v2/images?limit=1")?;
        let idle_memory = self.server.memory_mib("RssAnon")? - before;
        let cpu = self.server.cpu_seconds()?;
        std::thread::sleep(Duration::from_secs(2));
        let cpu = self.server.cpu_seconds()? - cpu;
        self.row("1,000 idle connections: memory", idle_memory, "MiB", None);
        self.row("1,000 idle connections: CPU in 2 s", cpu, "s", Some(0.1));
        self.latency("GET beside 1,000 idle connections", &mut connection)?;
        drop(idle);
        Ok(())
    }

    fn latency(&mut self, what: &str, connection: &mut Connection) -> anyhow::Result<()> {
        let mut times = Vec::new();
        for _ in 0..500 {
            let begin = SystemClock.elapsed();
            expect_ok(connection, "/v2/images?limit=1")?;
            times.push(milliseconds(SystemClock.elapsed() - begin));
        }
        self.row(
            &format!("{what}: p99"),
            percentile(&mut times, 99),
            "ms",
            Some(5.0),
        );
        Ok(())
    }
}

fn create(connection: &mut Connection, number: u32) -> anyhow::Result<String> {
    let body = format!(
        r#"{{"name":"image {number}","disk_format":"raw","container_format":"bare","tags":["a","b"],"os_distro":"debian","hw_disk_bus":"virtio"}}"#
    );
    let answer = connection.call(
        "POST",
        "/v2/images",
        Some("application/json"),
        body.as_bytes(),
    )?;
    anyhow::ensure!(
        answer.status == 201,
        "POST answered {}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    let image: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let id = image.get("id").and_then(serde_json::Value::as_str);
    Ok(id
        .ok_or_else(|| anyhow::anyhow!("the image has no id"))?
        .to_owned())
}

fn expect_ok(connection: &mut Connection, path: &str) -> anyhow::Result<()> {
    let answer = connection.call("GET", path, None, &[])?;
    anyhow::ensure!(
        answer.status == 200,
        "GET {path} answered {}",
        answer.status
    );
    Ok(())
}

/// Bytes of the measured image: every other MiB random, the others text that compresses like log files.
fn fill(offset: u64, piece: &mut [u8]) {
    for (index, word) in piece.chunks_mut(8).enumerate() {
        let position = offset / 8 + index as u64;
        let mixed = mix(position);
        let bytes = if (position >> 17) & 1 == 0 {
            mixed.to_le_bytes()
        } else {
            let letters = b"etaoin shrdlu,.\n";
            std::array::from_fn(|byte| {
                let pick = (mix(position / 4) >> (byte * 4)) & 15;
                letters.get(pick as usize).copied().unwrap_or(b' ')
            })
        };
        word.copy_from_slice(bytes.get(..word.len()).unwrap_or(&bytes));
    }
}

/// A number that looks random, of its position (the finalizer of SplitMix64, Steele and others 2014).
fn mix(position: u64) -> u64 {
    let mut mixed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How long the slower of both digests takes for so many bytes on a core of its own.
fn slowest_hash(bytes: u64) -> Duration {
    let mut piece = vec![0; 1 << 20];
    fill(0, &mut piece);
    let pieces = bytes >> 20;
    let time = |work: &mut dyn FnMut()| {
        let begin = SystemClock.elapsed();
        for _ in 0..pieces {
            work();
        }
        SystemClock.elapsed() - begin
    };
    let (mut md5, mut sha512) = (Md5::new(), Sha512::new());
    let slowest = time(&mut || md5.update(&piece)).max(time(&mut || sha512.update(&piece)));
    std::hint::black_box((md5.finalize(), sha512.finalize()));
    slowest
}

/// The time that so many percent of the calls took no longer than; orders them.
fn percentile(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    let index = times.len().saturating_sub(1) * percent / 100;
    times.get(index).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn mib_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / time.as_secs_f64()
}
