//! A store: made once, opened to begin sessions.

use crate::{Environment, Session, StoreError, config, files, paths};
use std::io;
use std::sync::Arc;
use tegula_format::{BlockSize, GcState, StoreConfig, StoreId};
use tegula_io::{Existing, Lock, LockMode, StorePath};

/// What a new store is made with.
#[derive(Debug, Clone, Copy)]
pub struct InitOptions {
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The zstd level of new chunks.
    pub zstd_level: i32,
    /// Whether chunks may be stored as frames that have other chunks as their prefix.
    pub prefix_frames: bool,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            block_size: BlockSize::DEFAULT,
            zstd_level: 1,
            prefix_frames: true,
        }
    }
}

/// An open store. Cheap to clone; holds no lock: those belong to a [`Session`].
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) environment: Arc<Environment>,
    pub(crate) config: StoreConfig,
}

impl Store {
    /// Makes a store in an empty directory. What an interrupted attempt left there is no hindrance.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] if there is a store already, or anything that is not ours.
    pub fn init(environment: Environment, options: InitOptions) -> Result<Self, StoreError> {
        let root = StorePath::root();
        refuse_occupied(&environment)?;
        for name in paths::DIRECTORIES {
            let path = paths::directory(name);
            match environment.storage.create_directory(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::io("create", &path)(error));
                }
                _ => {}
            }
        }
        drop(
            environment
                .storage
                .try_lock(&paths::epoch_lock(0), LockMode::Shared),
        );
        files::sync_directory(&environment, &paths::directory(paths::LOCKS))?;
        // Whoever makes a store here at the same time is not to put its own copy of the configuration beside ours.
        let path = paths::commit_lock();
        let lock = environment.storage.lock(&path, LockMode::Exclusive);
        let _lock = lock.map_err(StoreError::io("lock", &path))?;
        refuse_occupied(&environment)?;
        files::publish(
            &environment,
            &paths::gc_state(),
            &GcState::default().encode(),
            Existing::Replace,
        )?;
        let config = StoreConfig {
            id: StoreId::from_bytes(
                environment
                    .random
                    .id()
                    .map_err(StoreError::io("name", &root))?,
            ),
            block_size: options.block_size,
            zstd_level: options.zstd_level,
            prefix_frames: options.prefix_frames,
            has_copy: true,
            created_at_us: environment.clock.now_us(),
        };
        // Last, so that a directory with this file is a whole store.
        config::publish(&environment, &config)?;
        Ok(Self {
            environment: Arc::new(environment),
            config,
        })
    }

    /// Opens the store in a directory.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`] if there is none; [`StoreError::Corrupt`] if its configuration is damaged, or lost from a
    /// store that holds something; [`StoreError::NeedsNewerProgram`] for a later format.
    pub fn open(environment: Environment) -> Result<Self, StoreError> {
        let config = config::read(&environment)?;
        Ok(Self {
            environment: Arc::new(environment),
            config,
        })
    }

    /// Begins a session: until it ends, nothing it can see is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Corrupt`].
    pub fn begin(&self) -> Result<Session, StoreError> {
        Session::begin(self)
    }

    /// Returns what the store was made with.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Returns what the store was given from outside.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Takes the lock under which image records change, waiting for others.
    pub(crate) fn commit_lock(&self) -> Result<Lock, StoreError> {
        self.lock(&paths::commit_lock())
    }

    /// Takes one of the store's locks exclusively, waiting for others, making the directory of locks again if it is
    /// missing: on a read-only medium a session does without.
    pub(crate) fn lock(&self, path: &StorePath) -> Result<Lock, StoreError> {
        files::with_directory(&self.environment, &path.parent(), || {
            self.environment.storage.lock(path, LockMode::Exclusive)
        })
        .map_err(StoreError::io("lock", path))
    }

    /// Takes one of the store's locks without waiting, making the directory of locks again if it is missing.
    pub(crate) fn try_lock(
        &self,
        path: &StorePath,
        mode: LockMode,
    ) -> Result<Option<Lock>, StoreError> {
        files::with_directory(&self.environment, &path.parent(), || {
            self.environment.storage.try_lock(path, mode)
        })
        .map_err(StoreError::io("lock", path))
    }

    pub(crate) fn read_gc_state(&self) -> Result<GcState, StoreError> {
        let path = paths::gc_state();
        // Every store was made with one: without it nobody knows what may be removed.
        let bytes = files::read_if_present(&self.environment, &path)?.unwrap_or_default();
        GcState::decode(&bytes).map_err(StoreError::corrupt(&path))
    }
}

/// Refuses a directory that has anything but what an interrupted [`Store::init`] leaves.
fn refuse_occupied(environment: &Environment) -> Result<(), StoreError> {
    let root = StorePath::root();
    let entries = environment
        .storage
        .list(&root)
        .map_err(StoreError::io("list", &root))?;
    if entries
        .iter()
        .any(|entry| entry.name == paths::config().as_str())
    {
        return Err(StoreError::NotEmpty {
            found: "it is a tegula store already".to_owned(),
        });
    }
    // Another configuration would make strangers of all the segments there are.
    if config::holds_something(environment) {
        return Err(StoreError::NotEmpty {
            found: "it is a tegula store that has lost its tegula.store".to_owned(),
        });
    }
    let files = [paths::gc_state(), paths::config_copy()];
    let ours = |name: &str| {
        paths::DIRECTORIES.contains(&name) || files.iter().any(|file| file.as_str() == name)
    };
    match entries.iter().find(|entry| !ours(&entry.name)) {
        Some(stranger) => Err(StoreError::NotEmpty {
            found: format!("the directory holds {:?}", stranger.name),
        }),
        None => Ok(()),
    }
}
