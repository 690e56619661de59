//! What a step costs: time, CPU, memory.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use tegula_io::{Clock, SystemClock};

/// A step's cost, and whatever counts it has to report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Seconds by the clock, of the measured part.
    pub(crate) wall_s: f64,
    /// Seconds of CPU, user and system, all threads, of the measured part.
    pub(crate) cpu_s: f64,
    /// Peak resident memory of the whole process, MiB.
    pub(crate) peak_mib: f64,
    /// Peak anonymous memory seen, MiB: mapped files do not count.
    pub(crate) anonymous_mib: f64,
    /// Counts by name.
    pub(crate) counts: BTreeMap<String, f64>,
}

/// Measures a part of this process's work.
pub(crate) fn measure<T>(
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Measured)> {
    let (wall, cpu) = (SystemClock.elapsed(), cpu_seconds()?);
    let value = work()?;
    let measured = Measured {
        wall_s: (SystemClock.elapsed() - wall).as_secs_f64(),
        cpu_s: cpu_seconds()? - cpu,
        peak_mib: status_mib("VmHWM:")?,
        anonymous_mib: status_mib("RssAnon:")?,
        counts: BTreeMap::new(),
    };
    Ok((value, measured))
}

impl Measured {
    /// Adds a count.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn with(mut self, name: &str, count: u64) -> Self {
        self.counts.insert(name.to_owned(), count as f64);
        self
    }

    /// Returns a count, or 0.
    pub(crate) fn count(&self, name: &str) -> f64 {
        self.counts.get(name).copied().unwrap_or_default()
    }
}

/// Clock ticks a second, as every Linux kernel reports CPU time to user space.
const TICKS_PER_SECOND: f64 = 100.0;

fn cpu_seconds() -> anyhow::Result<f64> {
    ticks(11)
}

/// Returns the CPU seconds of all processes this one started and waited for.
pub(crate) fn children_cpu_seconds() -> anyhow::Result<f64> {
    ticks(13)
}

/// Adds up a pair of fields of /proc/self/stat, user and system, counted from the one behind the command's name.
fn ticks(first: usize) -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split(' ')
        .skip(first)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

fn status_mib(field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or("0 kB");
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
