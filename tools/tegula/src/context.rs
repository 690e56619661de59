//! What a command needs: the store, a place to print, the signals.

use crate::cli::Options;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;
use crate::usage;
use clap::error::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tegula_engine::{BackendPreference, Engine, EngineError, RepairReport};

/// What stands before every command, made ready for use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    pub(crate) backend: BackendPreference,
    store: Option<PathBuf>,
    signals: Signals,
}

impl Context {
    pub(crate) fn new(options: Options) -> Result<Self, Failure> {
        let signals = Signals::watch().map_err(|source| Failure::Signals { source })?;
        Ok(Self {
            output: Output {
                json: options.json,
                quiet: options.quiet,
                verbose: options.verbose,
            },
            backend: options.io.into(),
            store: options.store,
            signals,
        })
    }

    /// Returns the store's directory, if one was given.
    pub(crate) fn store_path(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    /// Returns the store's directory.
    ///
    /// # Errors
    /// [`Failure::Usage`] if none was given.
    pub(crate) fn needed_store_path(&self) -> Result<&Path, Failure> {
        self.store_path().ok_or_else(|| {
            let message = "which store? give --store PATH or set TEGULA_STORE";
            usage::error(ErrorKind::MissingRequiredArgument, message).into()
        })
    }

    /// Refuses a destination among the store's own files, in whatever way it is named.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is one.
    pub(crate) fn check_outside_store(&self, destination: &Path) -> Result<(), Failure> {
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let places = [destination, parent].map(|path| path.canonicalize().ok());
        let Ok(store) = self.needed_store_path()?.canonicalize() else {
            return Ok(());
        };
        match places
            .iter()
            .flatten()
            .any(|place| place.starts_with(&store))
        {
            true => {
                let message = "DEST is in the store, whose files nothing else may overwrite";
                Err(usage::error(ErrorKind::ArgumentConflict, message).into())
            }
            false => Ok(()),
        }
    }

    /// Opens the store.
    pub(crate) fn open(&self) -> Result<Engine, Failure> {
        Ok(self.open_at(self.needed_store_path()?)?)
    }

    /// Opens the store to repair it; also returns what was already done for that.
    pub(crate) fn open_to_repair(&self) -> Result<(Engine, RepairReport), Failure> {
        let path = self.needed_store_path()?;
        let (engine, remark, report) = Engine::open_to_repair(path, self.backend)?;
        self.remark(remark);
        Ok((engine, report))
    }

    /// Opens a store in any directory.
    pub(crate) fn open_at(&self, path: &Path) -> Result<Engine, EngineError> {
        let (engine, remark) = Engine::open(path, self.backend)?;
        self.remark(remark);
        Ok(engine)
    }

    /// Shows the engine's remark, if it has one.
    pub(crate) fn remark(&self, remark: Option<String>) {
        if let Some(remark) = remark {
            self.output.remark(&remark);
        }
    }

    /// Asks for the first signal to be told, not obeyed: for work that has something to clean up.
    pub(crate) fn interruption(&self) -> &AtomicBool {
        self.signals.first_asks()
    }

    /// Tells whether a signal came.
    pub(crate) fn interrupted(&self) -> bool {
        self.signals.requested()
    }
}
