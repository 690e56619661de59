//! The second half of the demonstration: the same two images through the catalog server, and what that costs on the wire.

use super::DemoError;
use super::client::{Client, Form, text};
use super::disks::{Workshop, allocated_bytes};
use super::wire::{Passed, Wire};
use crate::commands::pull::Pull;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::{Align, Table};
use crate::units;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tegula_engine::{Clock, DeltaDestination, Engine, ImageName, Recompress, SystemClock, Task};
use tegulad::Server;

/// What was done with the server, in the order in which it was done.
#[derive(Debug, Serialize)]
pub(crate) struct Served {
    steps: Vec<Step>,
    virtual_size: u64,
    allocated_bytes: u64,
    /// The `os_tree_hash` of the two images: that of their digests in the first store.
    tree_hashes: [String; 2],
}

/// Something that a client did.
#[derive(Debug, Serialize)]
struct Step {
    action: Action,
    image: &'static str,
    form: Sent,
    /// Counted between client and server, heads of requests and answers included.
    sent_bytes: u64,
    received_bytes: u64,
    seconds: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Upload,
    Pull,
    Download,
}

/// In what form an image went over the wire.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Sent {
    /// All of its bytes.
    Whole,
    /// All of it, as it is stored.
    FullDelta,
    /// What differs from the parent.
    Delta,
}

/// An image of the first half.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Original<'a> {
    pub(crate) name: &'a ImageName,
    pub(crate) disk: &'a Path,
    /// Its digest, in hexadecimal form.
    pub(crate) digest: &'a str,
}

/// What the steps need.
#[derive(Debug)]
pub(crate) struct Service<'a> {
    pub(crate) context: &'a Context,
    pub(crate) workshop: &'a Workshop<'a>,
    /// The first store, which holds both images.
    pub(crate) engine: &'a Engine,
    pub(crate) base: Original<'a>,
    pub(crate) changed: Original<'a>,
}

impl Service<'_> {
    /// Starts a server, does everything, and ends it.
    pub(crate) fn show(&self) -> Result<Served, Failure> {
        let place = self.workshop.place;
        let backend = self.context.backend;
        let server = Server::start(place, backend).map_err(DemoError::from)?;
        let wire = Wire::to(server.address())?;
        let interrupted = self.workshop.interrupted;
        let output = self.context.output;
        let client = Client::new(wire.address(), server.token(), output, interrupted);
        let mut steps = Vec::new();
        let mut step = |action, image, form, work: &dyn Fn() -> Result<(), Failure>| {
            let step = measure(&wire, action, image, form, work)?;
            steps.push(step);
            self.workshop.check().map_err(Failure::from)
        };

        // As any client does it: all bytes.
        let base = client.create("base", None)?;
        step(Action::Upload, "base", Sent::Whole, &|| {
            Ok(client.upload(&base, self.base.disk, Form::Whole)?)
        })?;
        let base_hash = self.tree_hash(&client, &base, self.base)?;

        // As a client does it that knows of increments: what differs, made in its own store.
        let delta = self.delta()?;
        let changed = client.create("changed", Some(&base))?;
        let form = Form::Delta {
            parent_hash: &base_hash,
        };
        step(Action::Upload, "changed", Sent::Delta, &|| {
            Ok(client.upload(&changed, &delta, form)?)
        })?;
        let changed_hash = self.tree_hash(&client, &changed, self.changed)?;

        // A host, which gets one image and then the other.
        let host = place.join("host");
        fs::create_dir(&host).map_err(DemoError::at("create", &host))?;
        let (held, wanted) = (host.join("base.raw"), host.join("changed.raw"));
        let pull = |id: &str, to: &Path, base: Option<&Path>, original: Original<'_>| {
            let pull = Pull::directly(client.url(id), server.token(), to, base);
            self.expect(
                "digest of what was pulled",
                original.digest,
                pull.pull(self.context)?.digest(),
            )
        };
        step(Action::Pull, "base", Sent::FullDelta, &|| {
            pull(&base, &held, None, self.base)
        })?;
        step(Action::Pull, "changed", Sent::Delta, &|| {
            pull(&changed, &wanted, Some(&held), self.changed)
        })?;
        self.workshop.compare(&held, self.base.disk)?;
        self.workshop.compare(&wanted, self.changed.disk)?;

        // And as any client gets it: all bytes, though they came as what differs.
        step(Action::Download, "changed", Sent::Whole, &|| {
            let body = client.download(&changed)?;
            Ok(self.workshop.compare_stream(body, self.changed.disk)?)
        })?;
        drop(client);
        server.end().map_err(DemoError::from)?;
        Ok(Served {
            steps,
            virtual_size: fs::metadata(self.changed.disk)
                .map_err(DemoError::at("look at", self.changed.disk))?
                .len(),
            allocated_bytes: allocated_bytes(self.changed.disk)?,
            tree_hashes: [base_hash, changed_hash],
        })
    }

    /// Makes what turns the one image into the other.
    fn delta(&self) -> Result<PathBuf, Failure> {
        let path = self.workshop.place.join("changed.delta");
        let task = Task {
            progress: &|_, _| {},
            interrupted: self.workshop.interrupted,
        };
        let to = DeltaDestination::File {
            path: &path,
            force: false,
        };
        let (base, changed) = (Some(self.base.name), self.changed.name);
        self.engine
            .create_delta(base, changed, Recompress::IfSmall, to, task)?;
        Ok(path)
    }

    /// Returns an image's `os_tree_hash`, which must be what the engine computed of the same bytes.
    fn tree_hash(
        &self,
        client: &Client<'_>,
        id: &str,
        original: Original<'_>,
    ) -> Result<String, Failure> {
        let image = client.show(id)?;
        let hash = text("GET /v2/images/…", &image, "os_tree_hash")?;
        let digest = hash.rsplit(':').next();
        self.expect("os_tree_hash", original.digest, digest)?;
        Ok(hash)
    }

    fn expect(
        &self,
        what: &'static str,
        expected: &str,
        found: Option<&str>,
    ) -> Result<(), Failure> {
        match found == Some(expected) {
            true => Ok(()),
            false => Err(DemoError::OtherDigest {
                what,
                expected: expected.to_owned(),
                found: found.unwrap_or("none").to_owned(),
            }
            .into()),
        }
    }
}

impl Served {
    /// Returns the table, whole lines.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::with_head([
            ("  OVER HTTP", Align::Left),
            ("SENT", Align::Right),
            ("RECEIVED", Align::Right),
            ("TIME", Align::Right),
        ]);
        for step in &self.steps {
            let action = match step.action {
                Action::Upload => "upload",
                Action::Pull => "pull",
                Action::Download => "download",
            };
            let form = match step.form {
                Sent::Whole => "all bytes, as any client",
                Sent::FullDelta => "all of it, as stored",
                Sent::Delta => "what differs from base",
            };
            table.row([
                format!("  {action} {}: {form}", step.image),
                units::size(step.sent_bytes),
                units::size(step.received_bytes),
                units::seconds(Duration::from_secs_f64(step.seconds)),
            ]);
        }
        format!(
            "{table}  (counted on the way, heads of requests too; changed is {} long, {} of it allocated)\n",
            units::size(self.virtual_size),
            units::size(self.allocated_bytes),
        )
    }
}

/// Does a step, and looks what went over the wire and how long it took.
fn measure(
    wire: &Wire,
    action: Action,
    image: &'static str,
    form: Sent,
    work: &dyn Fn() -> Result<(), Failure>,
) -> Result<Step, Failure> {
    let (before, start) = (wire.passed(), SystemClock.elapsed());
    work()?;
    let Passed { sent, received } = wire.passed().since(before);
    Ok(Step {
        action,
        image,
        form,
        sent_bytes: sent,
        received_bytes: received,
        seconds: SystemClock.elapsed().saturating_sub(start).as_secs_f64(),
    })
}
