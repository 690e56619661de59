//! `tegula-benches scale`: a large image under a long chain of children, and what people do with such images (design 9).
//!
//! The ids are made up and no chunk is stored: what is measured is maps alone, and nothing of it may need more.

use crate::measure::measure;
use crate::scale::{make_child, name};
use anyhow::Context;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tegula_engine::{BackendPreference, Engine, ImageName, InitOptions};
use tegula_store::LayerStack;

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) scratch: PathBuf,
    pub(crate) blocks: u64,
    pub(crate) children: u64,
    pub(crate) rounds: u32,
    pub(crate) json: Option<PathBuf>,
}

/// A figure, and what it may be at most, or at least.
#[derive(Debug, serde::Serialize)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    at_most: Option<f64>,
    at_least: Option<f64>,
}

impl Row {
    fn holds(&self) -> bool {
        self.at_most.is_none_or(|limit| self.value <= limit)
            && self.at_least.is_none_or(|limit| self.value >= limit)
    }
}

/// Neighbours that are compared: more than a stack is deep, so that those on both sides of a fold are among them.
const PAIRS: u64 = 18;

pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    let store = plan.scratch.join("chain");
    if !store.exists() {
        fs::create_dir_all(&plan.scratch)?;
        Engine::init(&store, BackendPreference::Auto, InitOptions::default())?;
    }
    let (engine, _) = Engine::open(&store, BackendPreference::Auto)?;
    let mut rows = Vec::new();
    make(&engine, plan, &mut rows)?;
    let mut bench = Bench { engine, plan, rows };
    bench.single_steps()?;
    bench.folds()?;
    let anonymous = measure(|| Ok(()))?.1.anonymous_mib;
    let budget = 256.0 + 3.0 * plan.blocks as f64 / f64::from(1 << 20);
    bench.below(
        "anonymous memory at the end",
        anonymous,
        "MiB",
        Some(budget),
    );
    report(&bench.rows, plan)
}

/// Makes the images that are not there yet.
fn make(engine: &Engine, plan: &Plan, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let there = engine.list()?.len() as u64;
    let (_, made) = measure(|| {
        for child in there..=plan.children {
            make_child(engine, plan.blocks, child)?;
            if child % 100 == 0 {
                eprintln!("{child} of {} children", plan.children);
            }
        }
        Ok(())
    })?;
    let new = (plan.children + 1).saturating_sub(there);
    if new > 0 {
        let each = made.wall_s * 1000.0 / new as f64;
        let what = "publishing a child: layer, digest, fold, each".to_owned();
        rows.push(Row {
            what,
            value: each,
            unit: "ms",
            at_most: None,
            at_least: None,
        });
    }
    Ok(())
}

struct Bench<'a> {
    engine: Engine,
    plan: &'a Plan,
    rows: Vec<Row>,
}

impl Bench<'_> {
    fn below(&mut self, what: &str, value: f64, unit: &'static str, at_most: Option<f64>) {
        let what = what.to_owned();
        self.rows.push(Row {
            what,
            value,
            unit,
            at_most,
            at_least: None,
        });
    }

    /// Repeats a step; the best counts, as noise only adds.
    fn best(&self, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..self.plan.rounds {
            best = best.min(measure(&mut work)?.1.wall_s * 1000.0);
        }
        Ok(best)
    }

    fn single_steps(&mut self) -> anyhow::Result<()> {
        let newest = name(self.plan.children)?;
        let open = self.best(|| open(&self.engine, &newest).map(drop))?;
        self.below("open", open, "ms", Some(100.0));
        let mut diffs = Vec::new();
        for child in self.plan.children.saturating_sub(PAIRS) + 1..=self.plan.children {
            let (base, image) = (name(child - 1)?, name(child)?);
            diffs.push(self.best(|| {
                self.engine.diff(&base, &image)?;
                Ok(())
            })?);
        }
        diffs.sort_by(f64::total_cmp);
        let median = *diffs.get(diffs.len() / 2).context("a pair")?;
        self.below("diff of neighbours, median", median, "ms", Some(100.0));
        let worst = *diffs.last().context("a pair")?;
        self.below("diff of neighbours, across a fold", worst, "ms", None);
        let twin = ImageName::parse("twin")?;
        let clone = self.best(|| {
            self.engine.store().clone_image(&newest, &twin, true)?;
            Ok(())
        })?;
        self.below("clone", clone, "ms", Some(100.0));
        let mut delete = f64::INFINITY;
        for _ in 0..self.plan.rounds {
            self.engine.store().clone_image(&newest, &twin, true)?;
            let (_, measured) = measure(|| Ok(self.engine.store().remove(&twin)?))?;
            delete = delete.min(measured.wall_s * 1000.0);
        }
        self.below("delete", delete, "ms", Some(100.0));
        Ok(())
    }

    /// Folds copies of the newest image, against copying as many entries from file to file, both made durable.
    fn folds(&mut self) -> anyhow::Result<()> {
        let deepest = self.deepest()?;
        let stack = open(&self.engine, &deepest)?;
        let delta_rows: u64 = stack
            .layers()
            .iter()
            .take(stack.layers().len() - 1)
            .map(|layer| layer.summary().data_blocks)
            .sum();
        let full_rows = stack.parts().data_blocks;
        drop(stack);
        let twin = ImageName::parse("twin")?;
        let store = self.engine.store().clone();
        for (what, flatten, entries) in [
            ("coalesce", false, delta_rows),
            ("flatten", true, full_rows),
        ] {
            let mut ms = f64::INFINITY;
            for _ in 0..self.plan.rounds {
                store.clone_image(&deepest, &twin, true)?;
                let (_, measured) = measure(|| {
                    match flatten {
                        true => store.flatten(&twin, false)?,
                        false => store.coalesce(&twin, None)?,
                    };
                    Ok(())
                })?;
                ms = ms.min(measured.wall_s * 1000.0);
            }
            let copy = copy_ms(&self.plan.scratch, entries * 32, self.plan.rounds)?;
            self.below(&format!("{what}: {entries} entries"), ms, "ms", None);
            self.below(
                &format!("copying {entries} entries, durably"),
                copy,
                "ms",
                None,
            );
            self.rows.push(Row {
                what: format!("{what}: share of the bandwidth of copying"),
                value: copy / ms,
                unit: "",
                at_most: None,
                at_least: Some(0.25),
            });
        }
        store.remove(&twin)?;
        Ok(())
    }

    /// Returns the image with the deepest stack among the newest: what there is most to fold of.
    fn deepest(&self) -> anyhow::Result<ImageName> {
        let mut deepest = (0, name(self.plan.children)?);
        for child in self.plan.children.saturating_sub(PAIRS)..=self.plan.children {
            let depth = open(&self.engine, &name(child)?)?.layers().len();
            if depth > deepest.0 {
                deepest = (depth, name(child)?);
            }
        }
        Ok(deepest.1)
    }
}

fn open(engine: &Engine, image: &ImageName) -> anyhow::Result<LayerStack> {
    let session = engine.store().begin()?;
    Ok(LayerStack::of_image(&session, &session.image(image)?)?)
}

/// Copies that many bytes from a file in the page cache to a new one, made durable, as a layer is.
fn copy_ms(scratch: &Path, bytes: u64, rounds: u32) -> anyhow::Result<f64> {
    let (from, to) = (scratch.join("entries"), scratch.join("entries.copy"));
    let mut file = File::create(&from)?;
    let piece: Vec<u8> = (0..1u32 << 18)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect();
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left.min(piece.len() as u64))?;
        file.write_all(piece.get(..length).context("a piece")?)?;
        left -= length as u64;
    }
    file.sync_all()?;
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let (_, measured) = measure(|| {
            // Through memory, as entries are: not by the kernel from file to file.
            let (mut from, mut to) = (File::open(&from)?, File::create(&to)?);
            let mut buffer = vec![0; 1 << 20];
            loop {
                let length = std::io::Read::read(&mut from, &mut buffer)?;
                if length == 0 {
                    break;
                }
                to.write_all(buffer.get(..length).context("a piece")?)?;
            }
            Ok(to.sync_all()?)
        })?;
        fs::remove_file(&to)?;
        best = best.min(measured.wall_s * 1000.0);
    }
    fs::remove_file(&from)?;
    Ok(best)
}

fn report(rows: &[Row], plan: &Plan) -> anyhow::Result<()> {
    println!(
        "{} blocks of 64 KiB under {} children of 1 % random changes",
        plan.blocks, plan.children
    );
    for row in rows {
        let limit = match (row.at_most, row.at_least) {
            (Some(limit), _) => format!("at most {limit:.0}"),
            (None, Some(limit)) => format!("at least {limit}"),
            (None, None) => String::new(),
        };
        let missed = if row.holds() { "" } else { "  MISSED" };
        println!(
            "  {:<50} {:>10.2} {:<4} {limit}{missed}",
            row.what, row.value, row.unit
        );
    }
    if let Some(path) = &plan.json {
        fs::write(path, serde_json::to_string_pretty(rows)?)?;
    }
    Ok(())
}
