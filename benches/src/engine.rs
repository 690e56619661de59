//! The engine's rows of the cost table.

use crate::measure::Measured;
use crate::peers::PEERS;
use crate::steps::tree_bytes;
use anyhow::Context;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to measure, and where.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) data: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) rounds: u32,
    pub(crate) json: Option<PathBuf>,
    pub(crate) scale_chunks: u64,
    pub(crate) peers: bool,
}

/// A row of the result.
#[derive(Debug, Serialize)]
struct Row {
    operation: String,
    measured: String,
    limit: String,
    value: f64,
    target: String,
    met: bool,
    cpu_s: f64,
    peak_mib: f64,
}

#[derive(Debug, Default, Serialize)]
struct Results {
    commit: String,
    machine: String,
    rows: Vec<Row>,
    /// Peers that could not be measured, and why.
    failed: Vec<String>,
    steps: Vec<(String, Measured)>,
}

const VERSIONS: [&str; 7] = ["v1", "v2", "v3", "v4", "v5", "v6", "other"];

/// The zstd level of all timed rows; the stored bytes of the series are given at level 3 too.
const LEVEL: i32 = 1;

pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    for version in VERSIONS {
        let image = plan.image(version);
        anyhow::ensure!(
            image.exists(),
            "{} is missing: make a series with tools/make-series",
            image.display()
        );
    }
    fs::create_dir_all(&plan.scratch)?;
    // Peers change their directory: every path they are given is a whole one.
    let plan = &Plan {
        data: plan.data.canonicalize()?,
        scratch: plan.scratch.canonicalize()?,
        json: plan.json.clone(),
        ..*plan
    };
    let mut results = Results {
        commit: commit(),
        machine: machine(),
        ..Results::default()
    };
    plan.limits(&mut results)?;
    plan.ingest(&mut results)?;
    plan.reingest(&mut results)?;
    plan.restore(&mut results)?;
    plan.collection(&mut results)?;
    plan.series(&mut results)?;
    plan.scale(&mut results)?;
    if plan.peers {
        plan.peers(&mut results)?;
    }
    print(&results);
    if let Some(path) = &plan.json {
        fs::write(path, serde_json::to_string_pretty(&results)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

impl Plan {
    fn image(&self, version: &str) -> PathBuf {
        self.data.join(format!("{version}.raw"))
    }

    /// Returns the path of an empty place for a store.
    fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.scratch.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        Ok(path)
    }

    fn store(&self, name: &str, level: i32) -> anyhow::Result<PathBuf> {
        let path = self.fresh(name)?;
        step(
            // Plain: the limits are those of plain frames; what frames with bases cost is a row of its own.
            &["init", text(&path), &level.to_string(), "--plain"],
        )?;
        Ok(path)
    }

    /// Runs limit and step in turn, and keeps the best of each.
    fn best(
        &self,
        mut limit: impl FnMut() -> anyhow::Result<Measured>,
        mut work: impl FnMut() -> anyhow::Result<Measured>,
    ) -> anyhow::Result<(Measured, Measured)> {
        let (mut best_limit, mut best_work) = (limit()?, work()?);
        for _ in 1..self.rounds {
            for (best, next) in [(&mut best_limit, limit()?), (&mut best_work, work()?)] {
                if next.wall_s < best.wall_s {
                    *best = next;
                }
            }
        }
        Ok((best_limit, best_work))
    }

    /// What the machine can do, for orientation: the other limits are measured beside the step that is held to them.
    fn limits(&self, results: &mut Results) -> anyhow::Result<()> {
        let file = self.scratch.join("written");
        let (memcpy, write) = self.best(|| step(&["memcpy"]), || step(&["write", text(&file)]))?;
        for (name, measured) in [
            ("memcpy, all cores", memcpy),
            ("file write and sync", write),
        ] {
            results.rows.push(Row {
                operation: format!("limit: {name}"),
                measured: format!("{:.0} MB/s", rate(&measured) / 1e6),
                limit: String::new(),
                value: rate(&measured) / 1e6,
                target: "–".to_owned(),
                met: true,
                cpu_s: measured.cpu_s,
                peak_mib: measured.peak_mib,
            });
            results.steps.push((name.to_owned(), measured));
        }
        Ok(())
    }

    /// A writer's speed while collections run one after the other on the same store, against its speed alone.
    fn collection(&self, results: &mut Results) -> anyhow::Result<()> {
        let (v1, v2) = (self.image("v1"), self.image("v2"));
        let filled = || -> anyhow::Result<PathBuf> {
            let store = self.store("collected", LEVEL)?;
            step(&["put", text(&store), "v1", text(&v1)])?;
            Ok(store)
        };
        let (alone, beside) = self.best(
            || step(&["put", text(&filled()?), "v2", text(&v2), "v1"]),
            || {
                let store = filled()?;
                let mut collector = Command::new(std::env::current_exe()?)
                    .args(["step", "collect", text(&store)])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let put = step(&["put", text(&store), "v2", text(&v2), "v1"]);
                // The end of its input is what ends it.
                drop(collector.stdin.take());
                let output = collector.wait_with_output()?;
                anyhow::ensure!(output.status.success(), "the collections failed");
                let collections: Measured = serde_json::from_slice(&output.stdout)?;
                let mut put = put?;
                put.counts
                    .insert("collections".to_owned(), collections.count("collections"));
                Ok(put)
            },
        )?;
        let value = alone.wall_s / beside.wall_s;
        results.push_above(
            &format!(
                "put v2 beside {:.0} collections, share of its speed alone",
                beside.count("collections")
            ),
            value,
            0.8,
            &beside,
        );
        results.steps.extend([
            ("put v2 alone".to_owned(), alone),
            ("put v2 beside collections".to_owned(), beside),
        ]);
        Ok(())
    }

    /// A first ingest against zstd at the same level over the same chunks.
    fn ingest(&self, results: &mut Results) -> anyhow::Result<()> {
        let image = self.image("v1");
        let (limit, work) = self.best(
            || step(&["zstd", text(&image), &LEVEL.to_string()]),
            || {
                let store = self.store("ingest", LEVEL)?;
                step(&["put", text(&store), "v1", text(&image)])
            },
        )?;
        results.push_rate(
            "first ingest of v1, wall",
            &work,
            &limit,
            0.85,
            "zstd on all cores",
        );
        results.push_cpu("first ingest of v1, CPU", &work, 2.0);
        results.steps.extend([
            ("zstd limit".to_owned(), limit),
            ("put v1".to_owned(), work),
        ]);
        Ok(())
    }

    /// An ingest with few changes against hashing the same bytes.
    fn reingest(&self, results: &mut Results) -> anyhow::Result<()> {
        let (v3, v4) = (self.image("v3"), self.image("v4"));
        let (limit, work) = self.best(
            || step(&["blake3", text(&v4)]),
            || {
                let store = self.store("reingest", LEVEL)?;
                step(&["put", text(&store), "v3", text(&v3)])?;
                step(&["put", text(&store), "v4", text(&v4), "v3"])
            },
        )?;
        results.push_rate(
            "v4 over v3 (few changes), wall",
            &work,
            &limit,
            0.85,
            "BLAKE3 on all cores",
        );
        results.steps.extend([
            ("BLAKE3 limit".to_owned(), limit),
            ("put v4 over v3".to_owned(), work),
        ]);
        Ok(())
    }

    /// A restore against the slower of decoding and copying.
    fn restore(&self, results: &mut Results) -> anyhow::Result<()> {
        let image = self.image("v2");
        let store = self.store("restore", LEVEL)?;
        step(&["put", text(&store), "v2", text(&image)])?;
        let out = self.scratch.join("restored.raw");
        let mut copy = None;
        let (decode, work) = self.best(
            || {
                let measured = step(&["copy", text(&image), text(&out)])?;
                if copy
                    .as_ref()
                    .is_none_or(|best: &Measured| measured.wall_s < best.wall_s)
                {
                    copy = Some(measured);
                }
                step(&["decode", text(&image), &LEVEL.to_string()])
            },
            || step(&["get", text(&store), "v2", text(&out)]),
        )?;
        let copy = copy.context("at least one round")?;
        let (limit, name) = if rate(&copy) < rate(&decode) {
            (&copy, "cp")
        } else {
            (&decode, "zstd decode + BLAKE3")
        };
        results.push_rate("restore v2 to a file, wall", &work, limit, 0.85, name);
        results.push_below("restore v2, peak memory, MiB", work.peak_mib, 128.0, &work);
        let (_, stream) = self.best(
            || Ok(Measured::default()),
            || step(&["stream", text(&store), "v2"]),
        )?;
        results.push_rate(
            "restore v2 to a stream, wall",
            &stream,
            &decode,
            0.85,
            "zstd decode + BLAKE3",
        );
        let verified = step(&["verify", text(&store)])?;
        results.push_rate(
            "verify --full, wall",
            &Measured {
                counts: decode.counts.clone(),
                ..verified.clone()
            },
            &decode,
            0.8,
            "zstd decode + BLAKE3",
        );
        let steps = [
            ("copy limit", copy),
            ("decode limit", decode),
            ("get v2", work),
            ("stream v2", stream),
            ("verify", verified),
        ];
        results
            .steps
            .extend(steps.map(|(name, step)| (name.to_owned(), step)));
        Ok(())
    }

    /// Makes a store of the whole series, each version as a child of the one before.
    fn filled(
        &self,
        name: &str,
        level: i32,
        plain: bool,
        results: &mut Results,
    ) -> anyhow::Result<(PathBuf, Measured)> {
        let store = self.fresh(name)?;
        let level_text = level.to_string();
        let mut words = vec!["init", text(&store), &level_text];
        words.extend(plain.then_some("--plain"));
        step(&words)?;
        let mut parent: Option<&str> = None;
        let mut sum = Measured::default();
        for version in VERSIONS {
            let image = self.image(version);
            let mut words = vec!["put", text(&store), version, text(&image)];
            words.extend(parent.filter(|_| version != "other"));
            let measured = step(&words)?;
            sum.cpu_s += measured.cpu_s;
            sum.wall_s += measured.wall_s;
            sum.peak_mib = sum.peak_mib.max(measured.peak_mib);
            let kind = if plain { "plain" } else { "frames" };
            results
                .steps
                .push((format!("series {version}, zstd {level}, {kind}"), measured));
            parent = Some(version);
        }
        Ok((store, sum))
    }

    /// What the whole series takes on disk, all files of the store counted, and what its deltas take on the wire.
    fn series(&self, results: &mut Results) -> anyhow::Result<()> {
        let (plain_1, sum) = self.filled("series-1", 1, true, results)?;
        let bytes = tree_bytes(&plain_1)?;
        results.push_megabytes("series stored, zstd 1, plain", bytes, 615.0, &sum);
        fs::remove_dir_all(plain_1)?;
        let (plain, plain_sum) = self.filled("series-plain", 3, true, results)?;
        let bytes = tree_bytes(&plain)?;
        results.push_megabytes("series stored, zstd 3, plain", bytes, 600.0, &plain_sum);
        let (framed, framed_sum) = self.filled("series-framed", 3, false, results)?;
        let bytes = tree_bytes(&framed)?;
        let ingested = "series stored right after ingest, zstd 3";
        results.push_megabytes(ingested, bytes, 500.0, &framed_sum);
        results.push_below(
            "CPU of the series' puts, times that of plain ones",
            framed_sum.cpu_s / plain_sum.cpu_s,
            2.2,
            &framed_sum,
        );
        for (base, image, limit) in [("v3", "v4", 1.15), ("v2", "v3", 112.0)] {
            let delta = step(&["delta", text(&framed), base, image])?;
            results.push_below(
                &format!("delta from {base} to {image}, MB"),
                delta.count("bytes") / 1e6,
                limit,
                &delta,
            );
            results.steps.push((format!("delta {base} {image}"), delta));
        }
        let optimized = step(&["optimize", text(&framed)])?;
        results.push_below(
            "series stored after optimize, MB",
            optimized.count("store_bytes") / 1e6,
            430.0,
            &optimized,
        );
        results.steps.push(("optimize".to_owned(), optimized));
        self.optimized(&plain, &framed, results)
    }

    /// How fast an optimized store gives an image back, beside a plain one: to a stream it is the store's work alone that is
    /// measured, to a file also what the page cache has to give up for it.
    fn optimized(&self, plain: &Path, framed: &Path, results: &mut Results) -> anyhow::Result<()> {
        let out = self.scratch.join("restored.raw");
        for (step_name, to, rest) in [
            ("get", "a file", Some(text(&out))),
            ("stream", "a stream", None),
        ] {
            let restore = |store| {
                let words = [step_name, text(store), "v6"];
                step(&words.into_iter().chain(rest).collect::<Vec<_>>())
            };
            let (before, after) = self.best(|| restore(plain), || restore(framed))?;
            for (what, value) in [
                ("wall", before.wall_s / after.wall_s),
                ("CPU", before.cpu_s / after.cpu_s),
            ] {
                let name = format!(
                    "restore v6 to {to} after optimize, share of the plain store's speed ({what})"
                );
                results.push_above(&name, value, 0.8, &after);
            }
            results.steps.extend([
                (format!("{step_name} v6, plain"), before),
                (format!("{step_name} v6, optimized"), after),
            ]);
        }
        Ok(())
    }

    fn scale(&self, results: &mut Results) -> anyhow::Result<()> {
        let chunks = self.scale_chunks;
        let store = self.store("scale-index", LEVEL)?;
        // Made in one process, measured in the next: what making it takes does not count.
        step(&["index", text(&store), &chunks.to_string()])?;
        let index = step(&["index", text(&store), &chunks.to_string()])?;
        results.push_below(
            &format!("open an index of {chunks} chunks, ms"),
            index.count("open_ms"),
            100.0,
            &index,
        );
        results.push_above(
            "lookups that hit, M/s a core",
            index.count("hits_per_s") / 1e6,
            1.0,
            &index,
        );
        results.push_above(
            "lookups that miss, M/s a core",
            index.count("misses_per_s") / 1e6,
            1.0,
            &index,
        );
        results.push_below(
            "anonymous memory, bytes a chunk",
            index.count("bytes_per_chunk"),
            3.0,
            &index,
        );
        let layers = step(&["layers", text(&store), &chunks.to_string(), "12"])?;
        for (label, limit) in [
            ("open", 100.0),
            ("diff", 100.0),
            ("rename", 100.0),
            ("delete", 100.0),
        ] {
            let name = format!(
                "{label}, {} GiB image under 12 layers of 1 %, ms",
                chunks >> 14
            );
            results.push_below(&name, layers.count(&format!("{label}_ms")), limit, &layers);
        }
        let mark = step(&["mark", text(&store)])?;
        results.push_below(&format!("mark {chunks} chunks, s"), mark.wall_s, 2.0, &mark);
        let steps = [("index", index), ("layers", layers), ("mark", mark)];
        results
            .steps
            .extend(steps.map(|(name, step)| (name.to_owned(), step)));
        Ok(())
    }

    /// Put and restore against the fastest installed peer.
    fn peers(&self, results: &mut Results) -> anyhow::Result<()> {
        let (v1, v2) = (self.image("v1"), self.image("v2"));
        let out = self.scratch.join("peer.raw");
        let ours = self.store("against-peers", LEVEL)?;
        let put1 = step(&["put", text(&ours), "v1", text(&v1)])?;
        let put2 = step(&["put", text(&ours), "v2", text(&v2), "v1"])?;
        let get2 = step(&["get", text(&ours), "v2", text(&out)])?;
        for peer in PEERS.iter().filter(|peer| peer.is_installed()) {
            let store = self.fresh(&format!("peer-{}", peer.name))?;
            let measured = || -> anyhow::Result<_> {
                peer.init(&store)?;
                Ok([
                    ("put v1", &put1, peer.put(&store, "v1", &v1)?),
                    ("put v2", &put2, peer.put(&store, "v2", &v2)?),
                    ("restore v2", &get2, peer.get(&store, "v2", &v2, &out)?),
                ])
            };
            let theirs = match measured() {
                Ok(theirs) => theirs,
                Err(error) => {
                    results.failed.push(format!("{error:#}"));
                    continue;
                }
            };
            for (label, our, their) in theirs {
                for (what, ours, theirs) in [
                    ("wall", our.wall_s, their.wall_s),
                    ("CPU", our.cpu_s, their.cpu_s),
                ] {
                    results.push_above(
                        &format!("{label}, times as fast as {} ({what})", peer.name),
                        theirs / ours,
                        3.0,
                        our,
                    );
                }
                results
                    .steps
                    .push((format!("{} {label}", peer.name), their));
            }
        }
        if out.exists() {
            fs::remove_file(&out)?;
        }
        Ok(())
    }
}

impl Results {
    /// A rate as a share of a limit's.
    fn push_rate(
        &mut self,
        operation: &str,
        work: &Measured,
        limit: &Measured,
        target: f64,
        name: &str,
    ) {
        // Both handle the same content; the limit's count of bytes is what both are measured by.
        let bytes = limit.count("bytes");
        let value = limit.wall_s / work.wall_s;
        self.rows.push(Row {
            operation: operation.to_owned(),
            measured: format!("{:.0} MB/s", bytes / work.wall_s / 1e6),
            limit: format!("{name} {:.0} MB/s", bytes / limit.wall_s / 1e6),
            value,
            target: format!("≥ {target}"),
            met: value >= target,
            cpu_s: work.cpu_s,
            peak_mib: work.peak_mib,
        });
    }

    fn push_cpu(&mut self, operation: &str, work: &Measured, target: f64) {
        self.push_below(operation, work.cpu_s, target, work);
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn push_megabytes(&mut self, operation: &str, bytes: u64, limit: f64, work: &Measured) {
        self.push_below(&format!("{operation}, MB"), bytes as f64 / 1e6, limit, work);
    }

    fn push_below(&mut self, operation: &str, value: f64, target: f64, work: &Measured) {
        self.push(
            operation,
            value,
            format!("≤ {target}"),
            value <= target,
            work,
        );
    }

    fn push_above(&mut self, operation: &str, value: f64, target: f64, work: &Measured) {
        self.push(
            operation,
            value,
            format!("≥ {target}"),
            value >= target,
            work,
        );
    }

    fn push(&mut self, operation: &str, value: f64, target: String, met: bool, work: &Measured) {
        let (operation, cpu_s, peak_mib) = (operation.to_owned(), work.cpu_s, work.peak_mib);
        self.rows.push(Row {
            operation,
            measured: String::new(),
            limit: String::new(),
            value,
            target,
            met,
            cpu_s,
            peak_mib,
        });
    }
}

fn rate(measured: &Measured) -> f64 {
    measured.count("bytes") / measured.wall_s
}

fn text(path: &Path) -> &str {
    path.to_str().expect("because the paths given are text")
}

/// Runs a step in a process of its own.
fn step(words: &[&str]) -> anyhow::Result<Measured> {
    let output = Command::new(std::env::current_exe()?)
        .arg("step")
        .args(words)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

pub(crate) fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "{} × {cores}, load {load} at the end",
        model.trim_start_matches(['\t', ' ', ':'])
    )
}

fn print(results: &Results) {
    println!("commit {}, {}", results.commit, results.machine);
    println!();
    println!("| operation | measured | limit | value | target | met | CPU s | peak MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in &results.rows {
        let met = if row.met { "yes" } else { "no" };
        println!(
            "| {} | {} | {} | {:.2} | {} | {met} | {:.2} | {:.0} |",
            row.operation, row.measured, row.limit, row.value, row.target, row.cpu_s, row.peak_mib
        );
    }
    for failure in &results.failed {
        println!("\nnot measured: {}", failure.trim());
    }
}
