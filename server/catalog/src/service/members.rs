//! Shares an image with other projects; what they say of it.
//!
//! Only shared images have members. Their owner sees all of them, a member only itself: for it, the others do not exist.

use super::{Seen, Service, ServiceError};
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, Image, ImageId, Member, MemberStatus, Visibility};

impl Service {
    /// Shares the image with a project, which is then to say whether it wants it.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`], [`ServiceError::Limit`]; [`ServiceError::Forbidden`] if the image
    /// is not a shared one; [`ServiceError::Conflict`] if the project is a member already.
    pub fn add_member(
        &self,
        caller: &Caller,
        id: &ImageId,
        project: &str,
    ) -> Result<Member, ServiceError> {
        let seen = self.see(caller, id)?;
        let authorized = self.authorize(caller, seen, Rule::AddMember)?;
        check_is_shared(authorized.image())?;
        let now = self.now();
        let member = Member {
            project: project.to_owned(),
            status: MemberStatus::Pending,
            created_at: now,
            updated_at: now,
        };
        self.catalog
            .insert_member(id, &member, self.limits.members.unwrap_or(u64::MAX))?;
        Ok(member)
    }

    /// The members of the image that the caller may know of.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`]; [`ServiceError::Forbidden`] if the image is not a shared one.
    pub fn members(&self, caller: &Caller, id: &ImageId) -> Result<Vec<Member>, ServiceError> {
        let seen = self.see(caller, id)?;
        check_is_shared(seen.image())?;
        if !self.allows(caller, &seen, Rule::GetMembers) {
            return Err(ServiceError::Denied(Rule::GetMembers));
        }
        let mut members = self.catalog.members(id)?;
        members.retain(|member| self.may_know(caller, &seen, &member.project));
        Ok(members)
    }

    /// One membership.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`]; [`ServiceError::NoMember`], also if the image is not a shared one.
    pub fn member(
        &self,
        caller: &Caller,
        id: &ImageId,
        project: &str,
    ) -> Result<Member, ServiceError> {
        let seen = self.see(caller, id)?;
        let member = self.known_member(caller, &seen, project)?;
        let (rules, image) = (self.rules(), seen.image());
        if image.visibility != Visibility::Shared
            || !rules.allows(Rule::GetMember, caller, image, Some(project))
        {
            return Err(no_member(image, project));
        }
        Ok(member)
    }

    /// Notes what the project says of the image: for the project itself to do, not for the image's owner.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::NoMember`], [`ServiceError::Denied`]; [`ServiceError::Forbidden`] if the image
    /// is not a shared one.
    pub fn set_member(
        &self,
        caller: &Caller,
        id: &ImageId,
        project: &str,
        status: MemberStatus,
    ) -> Result<Member, ServiceError> {
        let seen = self.see(caller, id)?;
        check_is_shared(seen.image())?;
        self.known_member(caller, &seen, project)?;
        let (rules, image) = (self.rules(), seen.image());
        if !rules.allows(Rule::ModifyMember, caller, image, Some(project)) {
            return Err(ServiceError::Denied(Rule::ModifyMember));
        }
        Ok(self.catalog.set_member(id, project, status, self.now())?)
    }

    /// Shares the image with a project no longer.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::NoMember`], [`ServiceError::Denied`]; [`ServiceError::Forbidden`] if the image
    /// is not a shared one.
    pub fn remove_member(
        &self,
        caller: &Caller,
        id: &ImageId,
        project: &str,
    ) -> Result<(), ServiceError> {
        let seen = self.see(caller, id)?;
        check_is_shared(seen.image())?;
        self.known_member(caller, &seen, project)?;
        self.authorize(caller, seen, Rule::DeleteMember)?;
        Ok(self.catalog.remove_member(id, project)?)
    }

    /// A membership that the caller may know of.
    fn known_member(
        &self,
        caller: &Caller,
        seen: &Seen,
        project: &str,
    ) -> Result<Member, ServiceError> {
        let refused = || no_member(seen.image(), project);
        if !self.may_know(caller, seen, project) {
            return Err(refused());
        }
        self.catalog
            .member(&seen.image().id, project)?
            .ok_or_else(refused)
    }

    /// Whether the caller may know whether that project is a member.
    fn may_know(&self, caller: &Caller, seen: &Seen, project: &str) -> bool {
        caller.is_of(seen.image().owner.as_deref())
            || caller.is_of(Some(project))
            || self.is_admin(caller)
    }
}

fn no_member(image: &Image, project: &str) -> ServiceError {
    ServiceError::NoMember {
        image: image.id.clone(),
        project: project.to_owned(),
    }
}

fn check_is_shared(image: &Image) -> Result<(), ServiceError> {
    if image.visibility == Visibility::Shared {
        return Ok(());
    }
    Err(ServiceError::Forbidden(format!(
        "image {} is {}: only shared images have members",
        image.id,
        image.visibility.as_str()
    )))
}
