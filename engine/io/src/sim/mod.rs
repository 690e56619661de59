//! A simulated disk: it counts and fails calls, loses what was not synced, and shows every state a crash may leave.
//!
//! ```text
//!  calls ──► tree: what processes see ──crash──► what a reboot finds = durable + a choice of the rest
//!                │ sync                              ▲
//!                └──────────► platter: what is durable, and what waits to become so
//! ```
//! Deterministic: the same calls and the same choices give the same disk.

mod choices;
mod fault;
mod platter;
mod stats;
mod storage;

pub use choices::Choices;
pub use fault::{Call, Fault, Repeat};
pub use stats::{Handles, Stats};

use crate::StorePath;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::tree::{FileId, Item, Tree};
use fault::Armed;
use platter::Platter;
use stats::Paths;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;

/// A simulated disk. A clone is the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when a lock is let go, a name changes, or the machine crashes.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tree: Tree,
    platter: Platter,
    calls: Vec<(Call, StorePath)>,
    faults: Vec<Armed>,
    bad: Vec<(FileId, Range<u64>)>,
    crash_at: Option<u64>,
    crashed: bool,
    stats: Stats,
    paths: Paths,
    handles: Handles,
}

impl State {
    /// Counts a call and tells what goes wrong with it.
    fn begin(&mut self, call: Call, path: &StorePath) -> io::Result<Option<Fault>> {
        self.calls.push((call, path.clone()));
        let number = self.calls.len() as u64;
        self.crashed |= self.crash_at.is_some_and(|at| number >= at);
        if self.crashed {
            return Err(crashed());
        }
        self.stats.count(call);
        self.paths.count(call, path);
        let struck = self.faults.iter().find(|armed| armed.strikes(number));
        let harmless = |fault: &Fault| *fault == Fault::LostWrite && call != Call::Append;
        Ok(struck
            .map(|armed| armed.fault)
            .filter(|fault| !harmless(fault)))
    }

    /// Fails if some of these bytes of a file are unreadable.
    fn check_readable(&self, id: FileId, wanted: Range<u64>) -> io::Result<()> {
        let spoiled = self
            .bad
            .iter()
            .any(|(bad, range)| *bad == id && range.start < wanted.end && wanted.start < range.end);
        match spoiled {
            true => Err(Fault::Io.to_error()),
            false => Ok(()),
        }
    }

    /// Frees what neither a process nor a crash can reach any more.
    fn forget(&mut self, files: impl IntoIterator<Item = FileId>) {
        let mut files = files
            .into_iter()
            .filter(|id| !self.tree.has_name(*id))
            .peekable();
        if files.peek().is_some() {
            let recoverable = self.platter.files();
            let files: Vec<FileId> = files.filter(|id| !recoverable.contains(id)).collect();
            files.iter().for_each(|id| self.tree.forget(*id));
            self.platter.forget(&files);
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

impl SimDisk {
    /// Returns an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(tree: Tree, platter: Platter) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                tree,
                platter,
                ..State::default()
            }),
            changed: Condvar::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call: `effect` is what it does if nothing goes wrong.
    fn call<T>(
        &self,
        call: Call,
        path: &StorePath,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.call_or(call, path, effect, |_, fault| Err(fault.to_error()))
    }

    /// Makes one call: `instead` is what it does if something goes wrong.
    fn call_or<T>(
        &self,
        call: Call,
        path: &StorePath,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
        instead: impl FnOnce(&mut State, Fault) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        let (done, reported) = match state.begin(call, path) {
            Err(error) => (Err(error), Ok(())),
            Ok(None) => (effect(&mut state), Ok(())),
            Ok(Some(fault @ Fault::DoneButFailed)) => (effect(&mut state), Err(fault.to_error())),
            Ok(Some(fault)) => (instead(&mut state, fault), Ok(())),
        };
        drop(state);
        self.0.changed.notify_all();
        // Only now: what was done may be a handle, which takes the lock to go away.
        reported.and(done)
    }

    // ---- what a test arms -----------------------------------------------------------------------------------------

    /// Makes the `call`-th call, counted from 1 since this disk came to be, fail.
    pub fn fail_at(&self, call: u64, fault: Fault, repeat: Repeat) {
        let armed = Armed {
            call,
            fault,
            repeat,
        };
        self.state().faults.push(armed);
    }

    /// Makes a part of a file unreadable, whatever its name will be: every read of a byte of it fails with EIO, and so
    /// does mapping the file.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn spoil(&self, path: &StorePath, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        let id = state.tree.file(path)?;
        state.bad.push((id, range));
        Ok(())
    }

    /// Makes the machine crash at the `call`-th call, counted from 1: it and all later ones fail and do nothing.
    pub fn crash_at(&self, call: u64) {
        self.state().crash_at = Some(call);
    }

    /// Makes the machine crash now.
    pub fn crash(&self) {
        self.state().crashed = true;
        self.0.changed.notify_all();
    }

    /// Takes back all faults and crashes to come, and what is unreadable.
    pub fn disarm(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.bad.clear();
        state.crash_at = None;
    }

    // ---- what a test looks at -------------------------------------------------------------------------------------

    /// Returns how many calls were made.
    pub fn calls(&self) -> u64 {
        self.state().calls.len() as u64
    }

    /// Says what the `call`-th call was, for messages of tests.
    pub fn describe(&self, call: u64) -> String {
        let state = self.state();
        let index = usize::try_from(call)
            .ok()
            .and_then(|call| call.checked_sub(1));
        match index.and_then(|index| state.calls.get(index)) {
            Some((kind, path)) => format!("call {call}: {kind:?} of {path}"),
            None => format!("call {call}: not made"),
        }
    }

    /// Tells whether the machine has crashed.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Returns what was counted since this disk came to be.
    pub fn stats(&self) -> Stats {
        self.state().stats
    }

    /// Returns how often files were read or mapped that had been opened by a path that begins so.
    pub fn reads_of(&self, prefix: &str) -> u64 {
        self.state().paths.below(prefix).1
    }

    /// Returns how often files were opened by a path that begins so.
    pub fn opens_of(&self, prefix: &str) -> u64 {
        self.state().paths.below(prefix).0
    }

    /// Returns what is open or held now.
    pub fn handles(&self) -> Handles {
        self.state().handles
    }

    /// Changes a file's bytes behind the back of whoever keeps it, durably: bit rot, or somebody's editor. Handles that
    /// are open keep showing what they did.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn alter(&self, path: &StorePath, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state();
        let id = state.tree.file(path)?;
        let bytes = state.tree.bytes_mut(id);
        change(bytes);
        let length = bytes.len();
        state.platter.altered(id, length);
        Ok(())
    }

    // ---- what comes after -----------------------------------------------------------------------------------------

    /// Returns a disk that a reboot may find if the power fails now: what is durable, and of the rest what `choice`
    /// chooses. It is asked for a number below the given one; 0 always loses the most, the highest keeps the most.
    ///
    /// Everything on the new disk is durable, nothing is locked, open or armed, and its counters begin at 0. This disk
    /// is not changed.
    pub fn after_crash(&self, choice: &mut dyn FnMut(usize) -> usize) -> Self {
        let state = self.state();
        let names = state.platter.names_after_crash(choice);
        let mut contents = BTreeMap::new();
        for item in names.values() {
            if let Item::File(id) = item {
                let cached = state.tree.bytes(*id);
                let bytes = state.platter.bytes_after_crash(*id, &cached, choice);
                contents.insert(*id, bytes);
            }
        }
        let platter = Platter::durable(names.clone());
        Self::with(Tree::of(names, contents), platter)
    }

    /// Returns the disk as it is when all processes were killed now: everything written is there to be read, durable or
    /// not, and nothing is locked. A later crash may still lose what was not synced.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let mut tree = state.tree.clone();
        tree.unlock_all();
        Self::with(tree, state.platter.clone())
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the state: that would take the lock, which the caller may hold.
        f.write_str("SimDisk")
    }
}

#[cfg(test)]
mod tests;
