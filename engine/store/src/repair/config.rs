//! Repair of the store's configuration, without which a store does not even open.

use super::RepairReport;
use crate::config::{self, CopyState};
use crate::segment::list_sealed;
use crate::{Environment, InitOptions, Store, StoreError, files, images, paths};
use std::collections::HashMap;
use std::sync::Arc;
use tegula_format::{BlockSize, SEGMENT_DATA_START, SegmentHeader, StoreConfig, StoreId};
use tegula_io::{Existing, LockMode, StorePath};

/// What a configuration was made again from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// Its copy: it is as it was.
    Copy,
    /// The heads of the segments: they have the store's id and block size. New chunks are compressed as in a store that was
    /// made without options, and may be frames over others.
    Segments,
    /// The image records: the store has no segment, so that its id means nothing.
    Images,
}

impl Store {
    /// Opens the store in a directory to repair it: a configuration that is lost or damaged is made again, and what stood
    /// in its place kept. Returns from what, and adds to the report what was moved aside.
    ///
    /// # Errors
    /// As for [`Self::open`], if nothing tells what the store was made with; [`StoreError::Busy`] while a collection runs.
    pub fn open_to_repair(environment: Environment) -> Result<(Self, RepairReport), StoreError> {
        let mut report = RepairReport::default();
        // Twice: a disk that fails now and then is no reason to make it again.
        let error = match config::read(&environment).or_else(|_| config::read(&environment)) {
            Ok(_) => return Ok((Self::open(environment)?, report)),
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        let Some((config, source)) = proven(&environment)? else {
            return Err(error);
        };
        let store = Self {
            environment: Arc::new(environment),
            config,
        };
        let Some(_lock) = store.try_lock(&paths::gc_lock(), LockMode::Exclusive)? else {
            return Err(StoreError::Busy {
                what: "garbage collection",
            });
        };
        // Another repair may have been quicker.
        if config::read(store.environment()).is_err_and(|error| error.is_damage()) {
            store.keep_if_present(&paths::config(), &mut report)?;
            // One of another store, or that cannot be read.
            if !matches!(config::read_copy(store.environment()), Ok(Some(copy)) if copy == config) {
                store.keep_if_present(&paths::config_copy(), &mut report)?;
                config::publish_copy(store.environment(), &config)?;
                report.config_copy_restored = true;
            }
            let bytes = config.encode();
            files::publish(
                store.environment(),
                &paths::config(),
                &bytes,
                Existing::Replace,
            )?;
            report.config_restored = Some(source);
        }
        let store = Self::open(store.environment().clone())?;
        Ok((store, report))
    }

    fn keep_if_present(
        &self,
        path: &StorePath,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        match self.keep(path, report) {
            Err(error) if error.is_not_found() => Ok(()),
            kept => kept,
        }
    }

    /// Makes the configuration's copy again if it is not as it should be, and for a store that was made without one.
    pub(super) fn restore_config_copy(&self, report: &mut RepairReport) -> Result<(), StoreError> {
        match self.begin()?.check_config_copy()? {
            CopyState::Sound => return Ok(()),
            CopyState::Absent => {}
            CopyState::Damaged(path, _) => {
                self.keep_if_present(&path, report)?;
            }
        }
        config::publish_copy(self.environment(), self.config())?;
        report.config_copy_restored = true;
        Ok(())
    }
}

/// Returns what the store must have been made with, as far as what is left of it tells.
fn proven(environment: &Environment) -> Result<Option<(StoreConfig, ConfigSource)>, StoreError> {
    let segments = heads(environment)?;
    let belongs = |copy: &StoreConfig| {
        segments.is_empty() || segments.contains_key(&(copy.id, copy.block_size))
    };
    match config::read_copy(environment) {
        Ok(Some(copy)) if belongs(&copy) => return Ok(Some((copy, ConfigSource::Copy))),
        Ok(_) => {}
        Err(error) if error.is_unreadable() => {}
        Err(error) => return Err(error),
    }
    let records = records(environment)?;
    let (found, source) = match most(&segments) {
        Some(found) => (Some(found), ConfigSource::Segments),
        // Segments that contradict each other, or of which no head can be read, prove nothing.
        None if !list_sealed(environment)?.is_empty() => return Ok(None),
        None => {
            let random = environment.random.id();
            let id = random.map_err(StoreError::io("name", &paths::config()))?;
            let block_size = most(&records.block_sizes);
            let found = block_size.map(|block_size| (StoreId::from_bytes(id), block_size));
            (found, ConfigSource::Images)
        }
    };
    Ok(found.map(|(id, block_size)| {
        let usual = InitOptions::default();
        let config = StoreConfig {
            id,
            block_size,
            zstd_level: usual.zstd_level,
            // Whoever must not take a record with bases could not read what may be there.
            prefix_frames: true,
            has_copy: true,
            created_at_us: records.oldest_us.unwrap_or(environment.clock.now_us()),
        };
        (config, source)
    }))
}

/// Returns what is counted more often than all else together.
fn most<T: Copy>(counts: &HashMap<T, usize>) -> Option<T> {
    let total: usize = counts.values().sum();
    let found = counts.iter().find(|(_, count)| **count > total / 2);
    found.map(|(value, _)| *value)
}

/// Returns which store and block size the heads of the sealed segments name, and how many each.
fn heads(environment: &Environment) -> Result<HashMap<(StoreId, BlockSize), usize>, StoreError> {
    let mut heads = HashMap::new();
    for (number, bytes) in list_sealed(environment)? {
        let path = paths::sealed_segment(number);
        let length = usize::try_from(SEGMENT_DATA_START.min(bytes)).unwrap_or_default();
        let file = environment.storage.open(&path);
        let head = file.and_then(|file| file.read_at(0, length).wait());
        let head = match head.map_err(StoreError::io("read", &path)) {
            Err(error) if error.is_unreadable() || error.is_not_found() => continue,
            head => SegmentHeader::decode(&head?),
        };
        // One that strayed here under another's number says nothing of this store.
        if let Some(head) = head.ok().filter(|head| head.number == number) {
            *heads.entry((head.store, head.block_size)).or_default() += 1;
        }
    }
    Ok(heads)
}

/// What the image records tell of the store.
#[derive(Debug, Default)]
struct Records {
    block_sizes: HashMap<BlockSize, usize>,
    oldest_us: Option<i64>,
}

fn records(environment: &Environment) -> Result<Records, StoreError> {
    let mut records = Records::default();
    for entry in files::list(environment, paths::IMAGES)? {
        let Some(name) = paths::parse_image(&entry.name) else {
            continue;
        };
        let record = match images::read_record(environment, &name) {
            Err(error) if error.is_unreadable() => continue,
            record => record?,
        };
        if let Some(record) = record {
            *records.block_sizes.entry(record.block_size).or_default() += 1;
            let oldest = records.oldest_us.unwrap_or(i64::MAX);
            records.oldest_us = Some(oldest.min(record.created_at_us));
        }
    }
    Ok(records)
}
