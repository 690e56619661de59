//! Image records: what makes an image exist, under its name (SPEC 7).
//!
//! A record changes only under the commit lock, by a rename that replaces it as a whole.

use crate::files::Spare;
use crate::{Environment, Session, Store, StoreError, files, paths};
use std::collections::HashSet;
use tegula_format::{Corruption, ImageName, ImageRecord, ParentReference, RecordId, Structure};
use tegula_io::{Existing, StorePath};

/// The files of damaged records, each with what is wrong with it.
pub(crate) type DamagedRecords = Vec<(StorePath, StoreError)>;

impl Session {
    /// Returns the record of an image.
    ///
    /// Reads no record but the image's own, and those that could be the newer one of a rename that was interrupted.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`], or [`StoreError::Corrupt`] if its record is damaged.
    pub fn image(&self, name: &ImageName) -> Result<ImageRecord, StoreError> {
        match read_record(self.environment(), name)? {
            Some(record) if !is_superseded(self.environment(), &record)? => Ok(record),
            _ => Err(StoreError::ImageNotFound {
                name: name.as_str().to_owned(),
            }),
        }
    }

    /// Returns the records of all images, by name. One damaged record fails the whole call: nobody may take a list
    /// that lacks an image for complete.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Io`].
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let (records, damage) = self.images_and_damage()?;
        damage
            .into_iter()
            .next()
            .map_or(Ok(records), |(_, error)| Err(error))
    }

    /// Returns the readable records by name, and for each damaged one its file and what is wrong with it.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the list itself cannot be read.
    pub(crate) fn images_and_damage(
        &self,
    ) -> Result<(Vec<ImageRecord>, DamagedRecords), StoreError> {
        let (mut records, mut damage) = (Vec::new(), Vec::new());
        for entry in files::list(self.environment(), paths::IMAGES)? {
            if !entry.name.ends_with(".image") {
                // Not ours: somebody's notes, an editor's backup.
                continue;
            }
            let path = paths::directory(paths::IMAGES).join(&entry.name);
            let Some(name) = paths::parse_image(&entry.name) else {
                let reason = "no image has such a file name".to_owned();
                let source = Corruption::Body {
                    what: Structure::ImageRecord,
                    reason,
                };
                damage.push((path.clone(), StoreError::Corrupt { path, source }));
                continue;
            };
            match read_record(self.environment(), &name) {
                Ok(record) => records.extend(record),
                Err(error) if error.is_unreadable() => damage.push((path, error)),
                Err(error) => return Err(error),
            }
        }
        let superseded: HashSet<RecordId> = records
            .iter()
            .filter_map(|record| record.supersedes)
            .collect();
        records.retain(|record| !superseded.contains(&record.id));
        Ok((records, damage))
    }
}

/// What stood under a name before a record is published there.
#[derive(Debug)]
enum Before<'a> {
    Nothing,
    /// A record, ready to be put back.
    Record(Spare<'a>),
    /// Something the disk does not give back.
    Unreadable,
}

impl Store {
    /// Gives an image another name. Its content, its digest and its layers stay.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`], [`StoreError::ImageExists`].
    pub fn rename(&self, from: &ImageName, to: &ImageName) -> Result<ImageRecord, StoreError> {
        let session = self.begin()?;
        let _lock = self.commit_lock()?;
        let old = current_record(&session, from)?;
        finish_rename(&session, &old)?;
        if from == to {
            return Ok(old);
        }
        let new = ImageRecord {
            id: self.new_record_id()?,
            name: to.clone(),
            supersedes: Some(old.id),
            ..old.clone()
        };
        // From here on the image has its new name, whether or not the old file is gone yet.
        self.publish_new(&session, &new)?;
        remove_record(self.environment(), from)?;
        Ok(new)
    }

    /// Gives the content of an image a second name, on the same layers. The new image says that it came from the old one;
    /// each can be removed without harm to the other.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`]; [`StoreError::ImageExists`] if the name is taken and not to be replaced, or is the
    /// image's own.
    pub fn clone_image(
        &self,
        from: &ImageName,
        to: &ImageName,
        replace: bool,
    ) -> Result<ImageRecord, StoreError> {
        let session = self.begin()?;
        // As long as this is held nobody can condemn what the record names: it is looked at first.
        let _lock = self.commit_lock()?;
        let old = current_record(&session, from)?;
        if from == to {
            return Err(StoreError::ImageExists { name: to.clone() });
        }
        let parent = ParentReference {
            name: old.name.clone(),
            digest: old.digest,
        };
        let new = ImageRecord {
            id: self.new_record_id()?,
            name: to.clone(),
            parent: Some(parent),
            supersedes: None,
            created_at_us: self.environment().clock.now_us(),
            ..old
        };
        match replace {
            true => self.publish_replacing(&session, &new)?,
            false => self.publish_new(&session, &new)?,
        }
        Ok(new)
    }

    /// Removes an image. Others that share its layers or chunks stay whole; space is freed by collection.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`].
    pub fn remove(&self, name: &ImageName) -> Result<ImageRecord, StoreError> {
        let session = self.begin()?;
        let _lock = self.commit_lock()?;
        let record = current_record(&session, name)?;
        // First, or the old name would come back when this record is gone.
        finish_rename(&session, &record)?;
        remove_record(self.environment(), name)?;
        Ok(record)
    }

    /// Removes an image if it still is the one that somebody has the record of, under the same name.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`]; [`StoreError::ImageChanged`] if another has taken its place.
    pub fn remove_exactly(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let session = self.begin()?;
        let _lock = self.commit_lock()?;
        let current = current_record(&session, &record.name)?;
        if current.id != record.id {
            let name = record.name.clone();
            return Err(StoreError::ImageChanged { name });
        }
        finish_rename(&session, &current)?;
        remove_record(self.environment(), &record.name)
    }

    /// Removes an image whose record is damaged or not given back by the disk. What stands under its name is moved to
    /// the quarantine directory; returns its path there. Nobody can tell any more which layer was its, so the next
    /// collection frees what only this image needs.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`]; [`StoreError::ImageChanged`] if the record can be read.
    pub fn remove_unreadable(&self, name: &ImageName) -> Result<String, StoreError> {
        let _lock = self.commit_lock()?;
        match read_record(self.environment(), name) {
            Ok(Some(_)) => Err(StoreError::ImageChanged { name: name.clone() }),
            Ok(None) => Err(StoreError::ImageNotFound {
                name: name.as_str().to_owned(),
            }),
            Err(error) if error.is_damage() => {
                let path = paths::image(name);
                self.move_to_quarantine(&path, path.name())
                    .map(|kept| kept.to_string())
            }
            Err(error) => Err(error),
        }
    }

    /// Publishes the record of a new image, under the commit lock.
    pub(crate) fn publish_new(
        &self,
        session: &Session,
        record: &ImageRecord,
    ) -> Result<(), StoreError> {
        match self.publish_record(record, Existing::Refuse) {
            Err(StoreError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                // A rename that was interrupted may have left its old name behind.
                let others = session.images()?;
                if others.iter().any(|other| other.name == record.name) {
                    return Err(StoreError::ImageExists {
                        name: record.name.clone(),
                    });
                }
                remove_record(self.environment(), &record.name)?;
                self.publish_record(record, Existing::Refuse)
                    .map_err(|error| self.take_back(record, Before::Nothing, error))
            }
            done => done.map_err(|error| self.take_back(record, Before::Nothing, error)),
        }
    }

    /// Publishes a record in place of another of that name, under the commit lock.
    pub(crate) fn publish_replacing(
        &self,
        session: &Session,
        record: &ImageRecord,
    ) -> Result<(), StoreError> {
        let environment = self.environment();
        match read_record(environment, &record.name) {
            Ok(Some(old)) => finish_rename(session, &old)?,
            // A damaged record is replaced as well: that is how a user brings the image back.
            Err(error) if !error.is_damage() => return Err(error),
            Ok(None) | Err(_) => {}
        }
        let path = paths::image(&record.name);
        let before = match files::read_if_present(environment, &path) {
            Err(error) if error.is_bad_medium() => Before::Unreadable,
            Err(error) => return Err(error),
            Ok(None) => Before::Nothing,
            // Ready before anything is changed, so that a disk that fails in the middle, or has no room, can take it
            // back.
            Ok(Some(old)) => Before::Record(Spare::prepare(environment, &old)?),
        };
        self.publish_record(record, Existing::Replace)
            .map_err(|error| self.take_back(record, before, error))
    }

    /// Takes a record back whose publishing failed, after all or in part: the answer may be lost, or its name not be
    /// durable, and an image that was not acknowledged shall not be. Returns the error to report.
    fn take_back(&self, record: &ImageRecord, before: Before<'_>, error: StoreError) -> StoreError {
        let published = match read_record(self.environment(), &record.name) {
            Ok(now) => now.is_some_and(|now| now.id == record.id),
            Err(_) => true,
        };
        let path = paths::image(&record.name);
        let taken_back = match (published, before) {
            (false, _) => true,
            (true, Before::Record(old)) => old.put_back(&path).is_ok(),
            (true, Before::Nothing) => files::remove_if_present(self.environment(), &path).is_ok(),
            (true, Before::Unreadable) => false,
        };
        match taken_back {
            true => error,
            false => StoreError::PublishedInDoubt {
                name: record.name.clone(),
                source: Box::new(error),
            },
        }
    }

    fn publish_record(&self, record: &ImageRecord, existing: Existing) -> Result<(), StoreError> {
        files::publish(
            self.environment(),
            &paths::image(&record.name),
            &record.encode(),
            existing,
        )
    }

    /// Replaces the record of an image by another of the same name and content, under the commit lock.
    pub(crate) fn replace_record(
        &self,
        session: &Session,
        old: &ImageRecord,
        new: &ImageRecord,
    ) -> Result<ImageRecord, StoreError> {
        if current_record(session, &old.name)
            .map(|record| record.id)
            .ok()
            != Some(old.id)
        {
            return Err(StoreError::ImageChanged {
                name: old.name.clone(),
            });
        }
        let new = ImageRecord {
            id: self.new_record_id()?,
            supersedes: None,
            ..new.clone()
        };
        self.publish_replacing(session, &new)?;
        Ok(new)
    }

    pub(crate) fn new_record_id(&self) -> Result<RecordId, StoreError> {
        let directory = paths::directory(paths::IMAGES);
        let id = self
            .environment()
            .random
            .id()
            .map_err(StoreError::io("name a record in", &directory))?;
        Ok(RecordId::from_bytes(id))
    }
}

/// Returns the record of an image about to be changed, under the commit lock. What an interrupted rename left under
/// the old name is taken away: it is no image of its own.
fn current_record(session: &Session, name: &ImageName) -> Result<ImageRecord, StoreError> {
    if let Some(record) = read_record(session.environment(), name)? {
        if !is_superseded(session.environment(), &record)? {
            return Ok(record);
        }
        remove_record(session.environment(), name)?;
    }
    Err(StoreError::ImageNotFound {
        name: name.as_str().to_owned(),
    })
}

/// Tells whether a record is what an interrupted rename left under the old name.
///
/// The record that took its place differs from it in id, name and `supersedes` alone, so its file has one length, which
/// the list of the directory tells: no other record needs to be read. One that is damaged supersedes nothing.
fn is_superseded(environment: &Environment, record: &ImageRecord) -> Result<bool, StoreError> {
    let newer = ImageRecord {
        supersedes: Some(record.id),
        ..record.clone()
    };
    let bytes_but_name = newer.encode().len() - record.name.as_str().len();
    for entry in files::list(environment, paths::IMAGES)? {
        let name = paths::parse_image(&entry.name).filter(|name| {
            *name != record.name && entry.bytes == (bytes_but_name + name.as_str().len()) as u64
        });
        let Some(name) = name else { continue };
        match read_record(environment, &name) {
            Ok(Some(other)) if other.supersedes == Some(record.id) => return Ok(true),
            Err(error) if !error.is_undecodable() => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

/// Takes away the old name of an image whose rename was interrupted, under the commit lock.
fn finish_rename(session: &Session, record: &ImageRecord) -> Result<(), StoreError> {
    let Some(superseded) = record.supersedes else {
        return Ok(());
    };
    let environment = session.environment();
    for entry in files::list(environment, paths::IMAGES)? {
        let Some(name) = paths::parse_image(&entry.name) else {
            continue;
        };
        match read_record(environment, &name) {
            Ok(Some(old)) if old.id == superseded => remove_record(environment, &name)?,
            // A damaged record cannot be told to be the old one; repair will.
            Err(error) if !error.is_undecodable() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn remove_record(environment: &Environment, name: &ImageName) -> Result<(), StoreError> {
    files::remove_if_present(environment, &paths::image(name))?;
    files::sync_directory(environment, &paths::directory(paths::IMAGES))
}

pub(crate) fn read_record(
    environment: &Environment,
    name: &ImageName,
) -> Result<Option<ImageRecord>, StoreError> {
    let path = paths::image(name);
    let Some(bytes) = files::read_if_present(environment, &path)? else {
        return Ok(None);
    };
    let record = ImageRecord::decode(&bytes).map_err(StoreError::corrupt(&path))?;
    if record.name != *name {
        let reason = format!("it is the record of {:?}", record.name.as_str());
        let source = Corruption::Body {
            what: Structure::ImageRecord,
            reason,
        };
        return Err(StoreError::Corrupt { path, source });
    }
    Ok(Some(record))
}
