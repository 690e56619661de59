//! Repair of what a session needs to begin: the collection state and the quarantine list.

use super::RepairReport;
use crate::segment::list_sealed;
use crate::{Store, StoreError, files, paths, session};
use tegula_format::GcState;

impl Store {
    /// Begins anew whichever of the two cannot be read. Under the collection lock.
    ///
    /// A lost state loses nothing: what it condemned is garbage that the next collection finds again. The new epoch is
    /// above every one that still has a lock, so that whoever began before looks again before it publishes. A lost
    /// list is made again by the verification that follows.
    pub(super) fn restore_state(&self, report: &mut RepairReport) -> Result<(), StoreError> {
        let environment = self.environment();
        // Twice: a disk that fails now and then is no reason to begin anew.
        match self.read_gc_state().or_else(|_| self.read_gc_state()) {
            Err(error) if error.is_damage() || error.is_not_found() => {
                if environment.storage.open(&paths::gc_state()).is_ok() {
                    self.move_aside(&paths::gc_state(), report)?;
                }
                let locks = files::list(environment, paths::LOCKS)?;
                let epochs = locks
                    .iter()
                    .filter_map(|entry| paths::parse_epoch_lock(&entry.name));
                let highest = list_sealed(environment)?.last().map(|(number, _)| *number);
                let state = GcState {
                    epoch: epochs.max().map_or(0, |epoch| epoch.saturating_add(1)),
                    segment_floor: highest.map_or(0, |number| number.get()),
                    ..GcState::default()
                };
                self.write_gc_state(&state)?;
                report.state_restored = true;
            }
            other => drop(other?),
        }
        let list = session::read_quarantine(environment);
        match list.or_else(|_| session::read_quarantine(environment)) {
            Err(error) if error.is_damage() => {
                self.move_aside(&paths::quarantined_places(), report)?;
                report.state_restored = true;
            }
            other => drop(other?),
        }
        Ok(())
    }
}
