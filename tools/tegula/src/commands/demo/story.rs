//! The demonstration, step by step.

use super::DemoError;
use super::disks::{Changes, DISK_MEBIBYTES, Workshop, allocated_bytes};
use super::files::{Selection, SourceFile};
use super::picture::{Look, Picture};
use super::served::{Original, Served, Service};
use super::tools::Tools;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Report, print_text};
use crate::progress::Progress;
use crate::table::{Align, Table};
use crate::units;
use serde::Serialize;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::{
    CollectOptions, Depth, Destination, Diff, Engine, ExtentKind, ImageName, InitOptions,
    OpenImage, PutFile, PutReport, Task,
};

/// What the demonstration showed.
#[derive(Debug, Serialize)]
struct Shown {
    directory: Option<String>,
    images: [Put; 2],
    changed_bytes: u64,
    zeroed_bytes: u64,
    server: Served,
    identical_restores: u64,
    stored_bytes_before_gc: u64,
    stored_bytes: u64,
    seconds: f64,
}

/// An image that was put, with what it takes up outside and inside the store.
#[derive(Debug, Serialize)]
struct Put {
    name: String,
    digest: String,
    virtual_size: u64,
    allocated_bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_new_bytes: u64,
    seconds: f64,
}

impl Report for Shown {
    /// As text, the demonstration tells its steps while they happen.
    fn text(&self, _verbose: bool) -> String {
        String::new()
    }
}

/// What the steps need.
#[derive(Debug)]
pub(crate) struct Story<'a> {
    context: &'a Context,
    interrupted: &'a AtomicBool,
    workshop: Workshop<'a>,
    place: &'a Path,
    keep: bool,
    /// How often a restored disk was compared and the same.
    identical_restores: Cell<u64>,
}

impl<'a> Story<'a> {
    pub(crate) fn new(context: &'a Context, tools: &'a Tools, place: &'a Path, keep: bool) -> Self {
        let interrupted = context.interruption();
        let workshop = Workshop {
            tools,
            place,
            interrupted,
        };
        Self {
            context,
            interrupted,
            workshop,
            place,
            keep,
            identical_restores: Cell::new(0),
        }
    }

    /// Tells all of it.
    pub(crate) fn tell(&self) -> Result<(), Failure> {
        let (base, changed) = (name("base"), name("changed"));
        let (base_disk, changed_disk) = (self.path("base.raw"), self.path("changed.raw"));
        let engine = self.begin()?;
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();

        let selection = self.make_base(&base_disk)?;
        let base_put = self.put(&engine, &base, &base_disk, None)?;
        self.restore(&engine, &base, &changed_disk, &base_disk)?;
        self.say("  put it into the store, got it back: the same, byte for byte\n")?;

        let changes = self.workshop.change(&changed_disk, &selection)?;
        self.say_changes(&changes, &selection.later)?;
        let changed_put = self.put(&engine, &changed, &changed_disk, Some(&base))?;
        let restored = self.path("restored.raw");
        self.restore(&engine, &changed, &restored, &changed_disk)?;
        self.say("  put it into the store as a child, got it back: the same, byte for byte\n\n")?;

        let puts = [base_put, changed_put];
        self.say(&puts_table(&puts))?;
        let diff = engine.diff(&base, &changed)?;
        self.say_picture(&engine, &changed, &diff)?;
        let [base_put, changed_put] = &puts;
        let served = self.serve(
            &engine,
            base_put.original(&base, &base_disk),
            changed_put.original(&changed, &changed_disk),
        )?;

        let segments = self.remove_base(&engine, &base, &changed, &changed_disk)?;
        let time = clock.elapsed().saturating_sub(start);
        self.say_end(time)?;
        self.document(puts, &diff, served, segments, time)
    }

    fn document(
        &self,
        images: [Put; 2],
        diff: &Diff,
        server: Served,
        (before, after): (u64, u64),
        time: Duration,
    ) -> Result<(), Failure> {
        if !self.context.output.json {
            return Ok(());
        }
        self.context.output.print(&Shown {
            directory: self.keep.then(|| self.place.display().to_string()),
            images,
            changed_bytes: diff.changed_bytes(),
            zeroed_bytes: zeroed_bytes(diff),
            server,
            identical_restores: self.identical_restores.get(),
            stored_bytes_before_gc: before,
            stored_bytes: after,
            seconds: time.as_secs_f64(),
        })
    }

    fn begin(&self) -> Result<Engine, Failure> {
        let store = self.path("store");
        let (engine, remark) = Engine::init(&store, self.context.backend, InitOptions::default())?;
        self.context.remark(remark);
        let place = self.place.display();
        self.say(&match self.keep {
            true => format!("Working in {place}, which is kept.\n\n"),
            false => {
                format!("Working in {place}, which is removed at the end (--keep keeps it).\n\n")
            }
        })?;
        Ok(engine)
    }

    fn make_base(&self, disk: &Path) -> Result<Selection, Failure> {
        let selection = Selection::of_machine();
        let files = units::count(selection.first.len() as u64, "file", "files");
        self.say(&format!(
            "base: a {DISK_MEBIBYTES} MiB disk with an ext4 file system that holds {files} of this machine, {}\n",
            units::size(bytes_of(&selection.first)),
        ))?;
        self.workshop.make(disk, &selection)?;
        Ok(selection)
    }

    fn say_changes(&self, changes: &Changes, later: &[SourceFile]) -> Result<(), Failure> {
        let trimmed = match changes.trimmed {
            true => ", freed blocks discarded",
            false => "",
        };
        self.say(&format!(
            "\nchanged: that disk after {} written ({}), {} removed, {} patched{trimmed}\n",
            units::count(changes.written as u64, "file was", "files were"),
            units::size(bytes_of(later)),
            changes.removed,
            changes.patched,
        ))
    }

    fn say_picture(&self, engine: &Engine, image: &ImageName, diff: &Diff) -> Result<(), Failure> {
        let session = engine.store().begin()?;
        let open = OpenImage::open(&session, image)?;
        let log2 = open.record().block_size.log2();
        let data = open.stack().data();
        let ranges = data.runs().map(|run| run.start << log2..run.end << log2);
        let picture = Picture::of(diff, ranges, Look::of_output());
        let zeroed = zeroed_bytes(diff);
        self.say(&format!(
            "\nWhat differs: {} in {}, {} of it now zero. The disk, {} a sign:\n\n{}",
            units::size(diff.changed_bytes()),
            units::count(diff.extents.len() as u64, "extent", "extents"),
            units::size(zeroed),
            units::size(picture.cell_bytes()),
            picture.lines(),
        ))
    }

    /// Sends both images to the catalog server and gets them from there.
    fn serve(
        &self,
        engine: &Engine,
        base: Original<'_>,
        changed: Original<'_>,
    ) -> Result<Served, Failure> {
        self.say("\nNow tegulad, the catalog server, on a port of loopback, with a database and a store of its own:\n\n")?;
        let served = Service {
            context: self.context,
            workshop: &self.workshop,
            engine,
            base,
            changed,
        }
        .show()?;
        self.say(&served.table())?;
        self.say(
            "  the pulled disks and the download: the same, byte for byte; os_tree_hash: the digests of above\n  \
             the server ended when it was asked to\n",
        )?;
        Ok(served)
    }

    /// Removes the parent and shows that the child needs it no more than before. Returns what the segments took up
    /// before and after garbage was collected.
    fn remove_base(
        &self,
        engine: &Engine,
        base: &ImageName,
        changed: &ImageName,
        changed_disk: &Path,
    ) -> Result<(u64, u64), Failure> {
        engine.store().remove(base)?;
        let again = self.path("restored-again.raw");
        self.restore(engine, changed, &again, changed_disk)?;
        self.say("\nRemoved base; got changed once more: the same, byte for byte.\n")?;
        let before = engine.statistics()?.stored_bytes;
        engine.collect(&CollectOptions {
            min_live: 1.0,
            ..CollectOptions::default()
        })?;
        let after = engine.statistics()?.stored_bytes;
        self.workshop.check()?;
        let findings = engine
            .verify(Depth::Full, &[], Task::unattended())?
            .findings;
        if !findings.is_empty() {
            let findings = findings.len();
            return Err(DemoError::Damaged { findings }.into());
        }
        self.say(&format!(
            "Collected garbage: {} before, {} after. Every chunk that is left was read and hashed: no damage.\n",
            units::size(before),
            units::size(after),
        ))?;
        Ok((before, after))
    }

    fn say_end(&self, time: Duration) -> Result<(), Failure> {
        let store = match self.keep {
            true => self.path("store").display().to_string(),
            false => "PATH".to_owned(),
        };
        let make = match self.keep {
            true => "  tegula ls\n  tegula stats\n",
            false => "  tegula init\n  tegula put NAME DISK\n",
        };
        let seconds = units::seconds(time);
        let served = match self.keep {
            true => format!("cd {}; ", self.place.display()),
            false => String::new(),
        };
        self.say(&format!(
            "\nAll of this took {seconds}. Try next:\n\n  export TEGULA_STORE={store}\n{make}  \
             tegula put NEXT CHANGED-DISK --parent NAME\n  tegula diff NAME NEXT\n  tegula du\n  tegula get NEXT RESTORED-DISK\n  \
             tegula help\n\nAnd the server (cargo build --release --bin tegulad):\n\n  {served}tegulad\n  \
             tegula pull http://127.0.0.1:9292/IMAGE --to DISK --token TOKEN\n  tegulad --print-default-config\n"
        ))
    }

    fn put(
        &self,
        engine: &Engine,
        name: &ImageName,
        disk: &Path,
        parent: Option<&ImageName>,
    ) -> Result<Put, Failure> {
        let progress = Progress::begin(self.context.output, "put");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: self.interrupted,
        };
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();
        let request = PutFile {
            name: name.clone(),
            path: disk,
            parent: parent.cloned(),
            replace: false,
            format: Some(DiskFormat::Raw),
            snapshot: None,
        };
        let report = engine.put_file(request, task)?.report;
        let time = clock.elapsed().saturating_sub(start);
        Ok(Put::new(&report, allocated_bytes(disk)?, time))
    }

    /// Gets an image into a new file, which must hold what the original holds.
    fn restore(
        &self,
        engine: &Engine,
        name: &ImageName,
        path: &Path,
        original: &Path,
    ) -> Result<(), Failure> {
        let progress = Progress::begin(self.context.output, "get");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: self.interrupted,
        };
        let force = false;
        engine.get(name, Destination::File { path, force }, task)?;
        drop(progress);
        self.workshop.compare(path, original)?;
        self.identical_restores
            .set(self.identical_restores.get() + 1);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Tells people what happens, unless they want quiet or a document.
    fn say(&self, text: &str) -> Result<(), Failure> {
        match self.context.output.quiet || self.context.output.json {
            true => Ok(()),
            false => print_text(text),
        }
    }
}

impl Put {
    fn new(report: &PutReport, allocated_bytes: u64, time: Duration) -> Self {
        Self {
            name: report.record.name.to_string(),
            digest: report.record.digest.to_string(),
            virtual_size: report.record.virtual_size,
            allocated_bytes,
            read_bytes: report.read_bytes,
            new_bytes: report.new_bytes,
            stored_new_bytes: report.stored_new_bytes,
            seconds: time.as_secs_f64(),
        }
    }

    fn original<'a>(&'a self, name: &'a ImageName, disk: &'a Path) -> Original<'a> {
        Original {
            name,
            disk,
            digest: &self.digest,
        }
    }
}

fn puts_table(puts: &[Put]) -> String {
    let mut table = Table::with_head([
        ("  IMAGE", Align::Left),
        ("LENGTH", Align::Right),
        ("ALLOCATED", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
        ("ALLOCATED:STORED", Align::Right),
        ("READ AT", Align::Right),
    ]);
    for put in puts {
        table.row([
            format!("  {}", put.name),
            units::size(put.virtual_size),
            units::size(put.allocated_bytes),
            units::size(put.new_bytes),
            units::size(put.stored_new_bytes),
            quotient(put.allocated_bytes, put.stored_new_bytes),
            units::rate(put.read_bytes, Duration::from_secs_f64(put.seconds)),
        ]);
    }
    format!("{table}  (new: blocks the store did not have; stored: what they take up in it)\n")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio shown to people needs no more than 52 bits"
)]
fn quotient(whole: u64, part: u64) -> String {
    units::ratio(whole as f64 / part.max(1) as f64)
}

fn zeroed_bytes(diff: &Diff) -> u64 {
    let zeroed = diff
        .extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Zero);
    zeroed.map(|extent| extent.length).sum()
}

fn bytes_of(files: &[SourceFile]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("because it is a plain word")
}
