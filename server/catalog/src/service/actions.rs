//! Withdraws an image from all but administrators, and gives it back.

use super::{Service, ServiceError};
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, ImageId, ImageStatus};

impl Service {
    /// Withdraws an active image; one that is withdrawn already stays so.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`]; [`ServiceError::Forbidden`] in any other state.
    pub fn deactivate(&self, caller: &Caller, id: &ImageId) -> Result<(), ServiceError> {
        self.turn_to(caller, id, Rule::Deactivate, ImageStatus::Deactivated)
    }

    /// Gives a withdrawn image back; an active one stays so.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`]; [`ServiceError::Forbidden`] in any other state.
    pub fn reactivate(&self, caller: &Caller, id: &ImageId) -> Result<(), ServiceError> {
        self.turn_to(caller, id, Rule::Reactivate, ImageStatus::Active)
    }

    fn turn_to(
        &self,
        caller: &Caller,
        id: &ImageId,
        right: Rule,
        to: ImageStatus,
    ) -> Result<(), ServiceError> {
        self.in_turn(|| {
            let seen = self.see(caller, id)?;
            let authorized = self.authorize(caller, seen, right)?;
            let mut image = authorized.image().clone();
            // A queued image may become active too, but by its bytes, not by this.
            if !matches!(image.status, ImageStatus::Active | ImageStatus::Deactivated) {
                return Err(ServiceError::Forbidden(format!(
                    "an image that is {} cannot become {to} by this action",
                    image.status
                )));
            }
            if image.status != to {
                image
                    .transition(to)
                    .map_err(|refused| ServiceError::Forbidden(refused.to_string()))?;
                self.save(&authorized, image)?;
            }
            Ok(())
        })
    }
}
