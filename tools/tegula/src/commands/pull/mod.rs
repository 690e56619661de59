//! `tegula pull`: gets an image from an image service onto a disk of this host.
//!
//! If the service knows increments, what comes over the wire is a delta: from an image that the host holds, or from
//! nothing. It is fetched into a file beside the disk and applied with a journal, so that every step can be gone on
//! with. From any other service of the Images API the whole image is fetched. Either way DISK is
//! right or as it was (in part, while it is patched in place, until the same command is run again).

mod apply;
mod base;
mod client;
mod download;
mod error;
mod identity;
mod image;
mod place;
mod state;
mod target;
mod whole;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::progress::Progress;
use crate::table::Table;
use crate::{units, usage};
use base::Copied;
use clap::Args;
use clap::error::ErrorKind;
use client::Client;
use download::{Download, Fetched, Filled};
pub(crate) use error::PullError;
use identity::Identity;
use image::{DELTA_TYPE, Image, knows_increments};
use place::{ImageUrl, check_id};
use serde::{Deserialize, Serialize};
use state::{Expected, State};
use std::path::{Path, PathBuf};
use std::time::Duration;
use target::Target;
use tegula_engine::{Clock, SystemClock};

const EXAMPLES: &str = "\
Examples:
  tegula pull http://images:9292/71c675ab-d94f-49cd-a114-e12490b328d9 --to web.raw
  tegula pull http://images:9292/$NEW --to web-2.raw --base web-1.raw --base-image $OLD
  tegula pull http://images:9292/$NEW --to web.raw --base web.raw
  tegula pull https://images/$NEW --to /dev/vg0/web --base /dev/vg0/web --work-dir /var/tmp
  source openrc.sh; tegula pull https://images/$NEW --to web.raw

With --base only what differs from the image in FILE is fetched, if the service knows increments (a tegulad
does; from others the whole image is fetched). FILE must hold that image exactly: all of it is read to make
sure. It stays as it is, unless it is also DISK: then it is patched in place.

Whatever stops the command, the same command goes on where it stopped. Until it is done a new DISK does not
appear under its name; one that is patched in place is neither the one image nor the other. Beside DISK stand in
the meantime DISK.tegula-pull, .tegula-delta, .tegula-part and .tegula-journal.

Who asks: --token, else OS_TOKEN, else whoever the OS_* variables name to Keystone, else nobody.";

/// Get an image from an image service, only what differs if it can be
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pull {
    /// The service's URL and the image's id
    #[arg(value_name = "URL/IMAGE")]
    image: String,

    /// The file that is to hold the image; with --base also a block device
    #[arg(long, value_name = "DISK")]
    to: PathBuf,

    /// A file or device that holds an image which is much like this one
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,

    /// The id of the image in FILE [default: the image's parent]
    #[arg(long, value_name = "IMAGE", requires = "base")]
    base_image: Option<String>,

    /// Replace DISK if it exists
    #[arg(long)]
    force: bool,

    /// Take a whole image of which the service keeps no hash
    #[arg(long)]
    unverified: bool,

    /// The token to ask with
    #[arg(
        long,
        env = "TEGULA_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,

    /// The certificates to trust, in PEM [default: the system's]
    #[arg(long, env = "OS_CACERT", value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Where to keep what is needed to go on [default: where DISK is; a device needs one]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,

    /// How often to try again without getting any further
    #[arg(long, value_name = "COUNT", default_value_t = RETRIES)]
    retries: u32,

    /// Whether the environment's proxies are passed by.
    #[arg(skip)]
    directly: bool,
}

/// How often to try again, if nobody says.
const RETRIES: u32 = 6;

/// What came over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// What differs from a base.
    Delta,
    /// All of the image, as a delta from nothing.
    FullDelta,
    /// All bytes of the image.
    Whole,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pulled {
    image: String,
    disk: String,
    kind: Kind,
    base_image: Option<String>,
    virtual_size: u64,
    /// The length of what was fetched, in this run and those before.
    fetched_bytes: u64,
    /// What of it came over the wire in this run.
    wire_bytes: u64,
    /// The image's digest, by which a delta was verified.
    digest: Option<String>,
    /// The hash by which a whole image was verified.
    hash: Option<String>,
    base: Option<Copied>,
    resumed: bool,
    done_before: bool,
    seconds: f64,
}

impl Pulled {
    /// Returns the image's digest, if a delta was verified by it.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

impl Report for Pulled {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let disk = units::printable(&self.disk);
        if self.done_before {
            return format!("{disk} holds the image already\n");
        }
        let time = Duration::from_secs_f64(self.seconds);
        let mut table = Table::of_pairs();
        table.pair("  length", size(self.virtual_size));
        let what = match self.kind {
            Kind::Delta => "what differs",
            Kind::FullDelta => "all of it, as stored",
            Kind::Whole => "all bytes",
        };
        let fetched = size(self.fetched_bytes);
        table.pair("  fetched", format!("{fetched}, {what}"));
        if self.wire_bytes != self.fetched_bytes {
            table.pair("  now", size(self.wire_bytes));
        }
        let verified = match (&self.digest, &self.hash) {
            (Some(digest), _) if verbose => format!("by digest {digest}"),
            (Some(_), _) => "by digest".to_owned(),
            (None, Some(hash)) => match hash.split_once(':') {
                Some((algorithm, _)) if !verbose => format!("by {algorithm}"),
                _ => format!("by {hash}"),
            },
            (None, None) => "no: the service keeps no hash".to_owned(),
        };
        table.pair("  verified", verified);
        format!(
            "pulled {} to {disk} in {}\n{table}",
            self.image,
            units::seconds(time)
        )
    }
}

impl Pull {
    /// Prepares a pull from a server that is reached without a proxy; the base holds the image's parent.
    pub(crate) fn directly(image: String, token: &str, to: &Path, base: Option<&Path>) -> Self {
        Self {
            image,
            to: to.to_owned(),
            base: base.map(Path::to_owned),
            base_image: None,
            force: false,
            unverified: false,
            token: Some(token.to_owned()),
            cacert: None,
            work_dir: None,
            retries: RETRIES,
            directly: true,
        }
    }

    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        context.output.confirm(&self.pull(context)?)?;
        Ok(Outcome::Done)
    }

    /// Makes the disk, and tells what was done.
    pub(crate) fn pull(&self, context: &Context) -> Result<Pulled, Failure> {
        if let Some(Err(reason)) = self.base_image.as_deref().map(check_id) {
            let message = format!("--base-image: {reason}");
            return Err(usage::error(ErrorKind::InvalidValue, &message).into());
        }
        let start = SystemClock.elapsed();
        let url = ImageUrl::parse(&self.image)?;
        let target = Target::of(&self.to, self.base.as_deref(), self.work_dir.as_deref())?;
        let mut state = State::open(target.state_path(), self.request(&url))?;
        let mut work = Work {
            pull: self,
            context,
            url: &url,
            target: &target,
            state: &mut state,
        };
        let mut pulled = match work.made() {
            Some(pulled) => pulled,
            None => work.run()?,
        };
        target.finish(state, &pulled)?;
        pulled.seconds = SystemClock.elapsed().saturating_sub(start).as_secs_f64();
        Ok(pulled)
    }

    /// Says what is asked for: what another request has left is no use.
    fn request(&self, url: &ImageUrl) -> String {
        let path = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let base = self.base.as_ref().map(path);
        let base = base.map(|base| base.display().to_string());
        let image = self.base_image.as_deref();
        format!(
            "{}/{} over {} as {}",
            url.service,
            url.image,
            base.as_deref().unwrap_or("nothing"),
            image.unwrap_or("its parent")
        )
    }
}

/// A pull under way.
struct Work<'a> {
    pull: &'a Pull,
    context: &'a Context,
    url: &'a ImageUrl,
    target: &'a Target,
    state: &'a mut State,
}

impl Work<'_> {
    /// What the last run made and was stopped from finishing, if it is still there.
    fn made(&mut self) -> Option<Pulled> {
        match self.state.saved.made.clone() {
            Some(made) if self.target.has(&made.file) => Some(Pulled {
                wire_bytes: 0,
                resumed: true,
                ..made.pulled
            }),
            _ => {
                self.state.saved.made = None;
                None
            }
        }
    }

    fn run(&mut self) -> Result<Pulled, Failure> {
        self.target.check_room_for_new(self.pull.force)?;
        if self.state.fresh {
            self.target.discard_part()?;
        }
        // What was fetched to its end needs no server any more.
        if self.state.saved.complete {
            match self.apply(Fetched {
                pieced: true,
                ..Fetched::default()
            })? {
                Some(pulled) => return Ok(pulled),
                None => self.forget()?,
            }
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = self.pull.token.as_deref().filter(|token| !token.is_empty());
        let identity = Identity::of(token, &variable)?;
        let https = self.url.service.starts_with("https:");
        let cacert = self.pull.cacert.as_deref();
        let mut client = Client::new(
            identity,
            cacert,
            https,
            (self.pull.retries, self.pull.directly),
        )?;
        let image = Image::look(&mut client, self.url, &self.url.image)?;
        image.check_active()?;
        match knows_increments(&mut client, self.url)? {
            true => self.pull_delta(&mut client, &image),
            false => self.pull_whole(&mut client, &image),
        }
    }

    fn pull_delta(&mut self, client: &mut Client, image: &Image) -> Result<Pulled, Failure> {
        self.target.check_delta()?;
        let base = self.base_image(client, image)?;
        let id = base.as_ref().map_or("none", |base| &base.id);
        let url = self
            .url
            .path(&format!("images/{}/delta?base={id}", image.id));
        self.state.saved.expected = Expected {
            size: image.size,
            digest: image.digest.clone(),
            base_digest: base.as_ref().and_then(|base| base.digest.clone()),
            base_image: base.map(|base| base.id),
        };
        let download = Download {
            url: &url,
            kind: DELTA_TYPE,
            length: None,
            constant: false,
        };
        let path = self.target.delta_path();
        loop {
            let file = state::open_private(&path).map_err(PullError::file("open", &path))?;
            let filled = Filled {
                path: &path,
                file: &file,
            };
            let progress = Progress::begin(self.context.output, "pull");
            let fetched = download.run(client, self.state, &filled, &progress)?;
            drop(progress);
            self.state.saved.complete = true;
            self.state.save()?;
            // Of pieces that do not fit together all is fetched once more.
            if let Some(pulled) = self.apply(fetched)? {
                return Ok(pulled);
            }
            self.forget()?;
        }
    }

    /// Returns the image that the base file holds.
    fn base_image(&self, client: &mut Client, image: &Image) -> Result<Option<Image>, PullError> {
        let Some(file) = &self.pull.base else {
            return Ok(None);
        };
        let id = self.pull.base_image.as_ref().or(image.parent.as_ref());
        let id = id.ok_or_else(|| PullError::BaseUnknown {
            base: file.clone(),
            image: image.id.clone(),
        })?;
        let base = Image::look(client, self.url, id)?;
        self.target.check_base_length(&base, image)?;
        Ok(Some(base))
    }

    /// Forgets what was fetched, since it is of no use.
    fn forget(&mut self) -> Result<(), PullError> {
        self.state.saved.complete = false;
        self.state.saved.entity = None;
        self.state.save()?;
        self.target.remove_delta()
    }

    fn pull_whole(&mut self, client: &mut Client, image: &Image) -> Result<Pulled, Failure> {
        self.target.check_whole()?;
        if self.pull.base.is_some() {
            let remark = "the service knows no increments: the whole image is fetched";
            self.context.output.remark(remark);
        }
        let hash = image.hash.as_ref().filter(|hash| hash.is_known());
        let url = self.url.path(&format!("images/{}/file", image.id));
        if hash.is_none() && !self.pull.unverified {
            return Err(PullError::NoHash { url }.into());
        }
        let download = Download {
            url: &url,
            kind: "application/octet-stream",
            length: image.size,
            constant: true,
        };
        let path = self.target.part_path();
        let mut again = false;
        let fetched = loop {
            let file = target::open_new(&path)?;
            let filled = Filled {
                path: &path,
                file: &file,
            };
            let progress = Progress::begin(self.context.output, "pull");
            let fetched = download.run(client, self.state, &filled, &progress)?;
            drop(progress);
            let progress = Progress::begin(self.context.output, "verify");
            let differs = match hash {
                Some(hash) => {
                    hash.differs(&file, &path, |done| progress.update(done, image.size))?
                }
                None => None,
            };
            let (Some(found), Some(hash)) = (differs, hash) else {
                break fetched;
            };
            self.state.saved.entity = None;
            self.state.save()?;
            file.set_len(0).map_err(PullError::file("empty", &path))?;
            if !fetched.pieced || again {
                return Err(PullError::Differs {
                    url,
                    what: "a hash of",
                    expected: hash.value.clone(),
                    found,
                }
                .into());
            }
            again = true;
        };
        let entity = self.state.saved.entity.as_ref();
        let total = entity.map_or(0, |entity| entity.total);
        Ok(Pulled {
            image: image.id.clone(),
            disk: self.pull.to.display().to_string(),
            kind: Kind::Whole,
            base_image: None,
            virtual_size: total,
            fetched_bytes: total,
            wire_bytes: fetched.wire_bytes,
            digest: None,
            hash: hash.map(|hash| format!("{}:{}", hash.algorithm, hash.value)),
            base: None,
            resumed: fetched.pieced,
            done_before: false,
            seconds: 0.0,
        })
    }
}
