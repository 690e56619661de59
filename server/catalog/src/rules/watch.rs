//! Noticing that the files of the rules have changed.

use super::{LoadedRules, RuleFiles, RulesError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Reads the rules anew when their files change. Whoever has it asks from time to time, and puts in force what it gets.
///
/// A file is read once it has been the same for two questions: an editor that writes in place is not overtaken. What is
/// wrong is told once, and the rules in force stay; the next change is another chance.
#[derive(Debug)]
pub struct RuleWatch {
    files: RuleFiles,
    /// What the files looked like when they were last read.
    read: Stamps,
    /// What they looked like at the last question, if not so.
    settling: Option<Stamps>,
}

/// What each file looks like: enough to tell that it was replaced or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps(Vec<Option<Stamp>>);

/// Device, inode, length, and the time of the last change of content and of the inode, in seconds and nanoseconds.
type Stamp = [i128; 5];

impl RuleWatch {
    /// Reads the rules, and watches their files from then on.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn start(files: RuleFiles) -> Result<(LoadedRules, Self), RulesError> {
        // The stamps first: what changes while it is read is read once more.
        let read = Stamps::of(&files);
        let rules = files.load()?;
        let watch = Self {
            files,
            read,
            settling: None,
        };
        Ok((rules, watch))
    }

    /// The rules, if the files have changed since they were last read and are still the same as when this was last asked.
    pub fn poll(&mut self) -> Option<Result<LoadedRules, RulesError>> {
        let now = Stamps::of(&self.files);
        if now == self.read {
            self.settling = None;
            return None;
        }
        if self.settling.as_ref() == Some(&now) {
            return Some(self.reload());
        }
        self.settling = Some(now);
        None
    }

    /// The rules as the files have them now, whether they have changed or not: for an operator who says so.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn reload(&mut self) -> Result<LoadedRules, RulesError> {
        self.read = Stamps::of(&self.files);
        self.settling = None;
        self.files.load()
    }
}

impl Stamps {
    fn of(files: &RuleFiles) -> Self {
        Self(files.paths().map(stamp).collect())
    }
}

/// A file that is not there, or may not be looked at, looks like none.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Some([
        metadata.dev().into(),
        metadata.ino().into(),
        metadata.len().into(),
        nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    ])
}
