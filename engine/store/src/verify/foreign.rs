//! What stands in a store's directories and is none of its files (SPEC 11).

use crate::{Session, StoreError, files, paths};
use tegula_io::StorePath;

impl Session {
    /// Returns what has a name that none of the store's files has, by path.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a directory cannot be listed.
    pub(super) fn foreign_files(&self) -> Result<Vec<String>, StoreError> {
        let environment = self.environment();
        let root = environment.storage.list(&StorePath::root());
        let root = root.map_err(StoreError::io("list", &StorePath::root()))?;
        let mut foreign: Vec<String> = root
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| !is_in_root(name))
            .collect();
        for directory in paths::DIRECTORIES {
            let entries = files::list(environment, directory)?.into_iter();
            let strange = entries.filter(|entry| !paths::is_name_in(directory, &entry.name));
            foreign.extend(strange.map(|entry| format!("{directory}/{}", entry.name)));
        }
        foreign.sort();
        Ok(foreign)
    }
}

fn is_in_root(name: &str) -> bool {
    let files = [paths::config(), paths::config_copy(), paths::gc_state()];
    paths::DIRECTORIES.contains(&name) || files.iter().any(|file| file.name() == name)
}
