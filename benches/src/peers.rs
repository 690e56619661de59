//! The installed peers on the same images: what people would otherwise use.

use crate::measure::{Measured, children_cpu_seconds};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use tegula_io::{Clock, SystemClock};

/// A peer: how to make its store, put an image and get one back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    init: &'static str,
    put: &'static str,
    get: &'static str,
}

/// Each command runs in `sh -c` with $R the store, $N the image's name, $F the file.
pub(crate) const PEERS: [Peer; 3] = [
    Peer {
        name: "borg",
        init: "borg init -e none $R",
        put: "borg create -C zstd,1 --chunker-params fixed,65536 --sparse $R::$N $F",
        get: "cd $(dirname $F) && borg extract --sparse --stdout $R::$N > $F",
    },
    Peer {
        name: "restic",
        init: "RESTIC_PASSWORD=x restic -q -r $R init",
        put: "RESTIC_PASSWORD=x restic -q -r $R backup --tag $N $F",
        get: "RESTIC_PASSWORD=x restic -q -r $R dump --tag $N latest $(realpath $S) > $F",
    },
    Peer {
        name: "casync",
        init: "mkdir -p $R/s.castr",
        put: "casync make --store=$R/s.castr --compression=zstd $R/$N.caibx $F",
        get: "casync extract --store=$R/s.castr $R/$N.caibx $F",
    },
];

impl Peer {
    pub(crate) fn is_installed(&self) -> bool {
        Command::new(self.name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    }

    pub(crate) fn init(&self, store: &Path) -> anyhow::Result<Measured> {
        self.run(self.init, store, "", Path::new(""), Path::new(""))
    }

    pub(crate) fn put(&self, store: &Path, name: &str, image: &Path) -> anyhow::Result<Measured> {
        self.run(self.put, store, name, image, image)
    }

    pub(crate) fn get(
        &self,
        store: &Path,
        name: &str,
        image: &Path,
        to: &Path,
    ) -> anyhow::Result<Measured> {
        // Some take what stands there for a seed.
        if to.exists() {
            std::fs::remove_file(to)?;
        }
        self.run(self.get, store, name, to, image)
    }

    fn run(
        &self,
        command: &str,
        store: &Path,
        name: &str,
        file: &Path,
        source: &Path,
    ) -> anyhow::Result<Measured> {
        let (before, cpu_before) = (SystemClock.elapsed(), children_cpu_seconds()?);
        let output = Command::new("sh")
            .args(["-c", command])
            .env("R", store)
            .env("N", name)
            .env("F", file)
            .env("S", source)
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()?;
        anyhow::ensure!(
            output.status.success(),
            "{}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let wall_s = (SystemClock.elapsed() - before).as_secs_f64();
        Ok(Measured {
            wall_s,
            cpu_s: children_cpu_seconds()? - cpu_before,
            peak_mib: 0.0,
            anonymous_mib: 0.0,
            counts: BTreeMap::new(),
        })
    }
}
