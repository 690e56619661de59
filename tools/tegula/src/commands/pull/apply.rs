//! Making the disk of a delta that was fetched.

use super::download::Fetched;
use super::{Kind, PullError, Pulled, Work};
use crate::failure::Failure;
use crate::progress::Progress;
use tegula_engine::{
    DeltaEnd, DeltaError, DeltaSource, DeltaSummary, EngineError, RawDeltaApplied, RawDeltaRequest,
    Task, apply_delta_to_disk, show_delta,
};

impl Work<'_> {
    /// Applies the delta that was fetched; `None` if it is damaged and was put together of pieces, which may not have
    /// been those of the same stream.
    pub(super) fn apply(&mut self, fetched: Fetched) -> Result<Option<Pulled>, Failure> {
        let path = self.target.delta_path();
        if !path.exists() {
            // The end was near when the last run stopped: it had been applied.
            return Ok(None);
        }
        let task = Task::unattended();
        let summary = match show_delta(&path, task) {
            Ok(summary) => summary,
            Err(EngineError::Delta(error)) if fetched.pieced && error.is_damage() => {
                return Ok(None);
            }
            Err(error) => {
                // It would be damaged the next time too.
                self.forget()?;
                return Err(error.into());
            }
        };
        if let Err(error) = self.check(&summary) {
            self.forget()?;
            return Err(error.into());
        }
        let progress = Progress::begin(self.context.output, "copy");
        let base = self.target.prepare(&progress)?;
        drop(progress);
        let applied = self.patch()?;
        let entity = self.state.saved.entity.as_ref();
        let expected = &self.state.saved.expected;
        Ok(Some(Pulled {
            image: self.url.image.clone(),
            disk: self.pull.to.display().to_string(),
            kind: match summary.base {
                Some(_) => Kind::Delta,
                None => Kind::FullDelta,
            },
            base_image: expected.base_image.clone(),
            virtual_size: summary.target.virtual_size,
            fetched_bytes: entity.map_or(summary.bytes, |entity| entity.total),
            wire_bytes: fetched.wire_bytes,
            digest: Some(summary.target.digest.to_string()),
            hash: None,
            base,
            resumed: fetched.pieced || applied.resumed,
            done_before: applied.done_before && self.target.is_in_place(),
            seconds: 0.0,
        }))
    }

    /// Compares what the delta says of itself with what the service says of the images.
    fn check(&self, summary: &DeltaSummary) -> Result<(), PullError> {
        let expected = &self.state.saved.expected;
        let entity = self.state.saved.entity.as_ref();
        let differs = |what, expected: String, found: String| PullError::Differs {
            url: entity.map_or_else(String::new, |entity| entity.url.clone()),
            what,
            expected,
            found,
        };
        let DeltaEnd {
            virtual_size,
            digest,
        } = summary.target;
        if let Some(size) = expected.size.filter(|size| *size != virtual_size) {
            return Err(differs(
                "an image of length",
                size.to_string(),
                virtual_size.to_string(),
            ));
        }
        let digest = digest.to_string();
        if let Some(wanted) = expected.digest.as_ref().filter(|wanted| **wanted != digest) {
            return Err(differs("an image of digest", wanted.clone(), digest));
        }
        let base = summary.base.map(|base| base.digest.to_string());
        let wanted = &expected.base_digest;
        let other = match (&expected.base_image, &base) {
            (Some(_), Some(found)) => wanted.as_ref().is_some_and(|wanted| wanted != found),
            (wanted, found) => wanted.is_some() != found.is_some(),
        };
        match other {
            true => {
                let name = |digest: &Option<String>| digest.clone().unwrap_or("none".to_owned());
                Err(differs("a base of digest", name(wanted), name(&base)))
            }
            false => Ok(()),
        }
    }

    fn patch(&mut self) -> Result<RawDeltaApplied, Failure> {
        let (delta, disk, journal) = (
            self.target.delta_path(),
            self.target.patched_path(),
            self.target.journal_path(),
        );
        let progress = Progress::begin(self.context.output, "apply");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: self.context.interruption(),
        };
        let request = || RawDeltaRequest {
            source: DeltaSource::File(&delta),
            disk: &disk,
            journal: Some(&journal),
            dry_run: false,
        };
        match apply_delta_to_disk(request(), task) {
            // A copy that another delta was applied to in part: the base is still there.
            Err(EngineError::Delta(error))
                if matches!(*error, DeltaError::JournalOfAnother { .. })
                    && !self.target.is_in_place() =>
            {
                self.target.discard_part()?;
                self.target.prepare(&progress)?;
                Ok(apply_delta_to_disk(request(), task)?)
            }
            applied => Ok(applied?),
        }
    }
}
