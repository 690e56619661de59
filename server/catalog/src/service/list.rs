//! Lists images.

use super::{Service, ServiceError, View};
use tegula_domain::policy::Rule;
use tegula_domain::query::{Asked, Direction, Filter, ImageQuery, ListScope, SortKey};
use tegula_domain::{Caller, Image, ImageId, MemberStatus, Visibility};

/// What a caller asks to have listed: an [`ImageQuery`] without what the caller has no say in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// The visibilities.
    pub visibility: Asked,
    /// The membership that images shared with the caller must have; none: any.
    pub member_status: Option<MemberStatus>,
    /// Whether hidden images are asked for, and only those.
    pub hidden: bool,
    /// What must hold.
    pub filters: Vec<Filter>,
    /// The order, total.
    pub sort: Vec<(SortKey, Direction)>,
    /// The image after which the page begins.
    pub marker: Option<ImageId>,
    /// How many at most.
    pub limit: u32,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The images that the caller may see.
    pub images: Vec<View>,
    /// The last image of the page, if the page is full: the next one begins after it.
    pub next: Option<ImageId>,
}

impl Service {
    /// One page of the images that the caller asks for and may see. Those that the policy hides leave no gap in it.
    ///
    /// A condition on a property that the caller may not read is fulfilled by nothing: otherwise the answer would tell its
    /// value.
    ///
    /// # Errors
    /// [`ServiceError::Denied`]; [`ServiceError::Invalid`] if the marker is no image that the caller could have listed.
    pub fn list(&self, caller: &Caller, request: ListRequest) -> Result<Page, ServiceError> {
        self.authorize_generally(caller, Rule::GetImages)?;
        let query = self.query(caller, request);
        let may_list = |image: &Image| self.may_list(caller, image, query.scope.admin);
        let found = self.catalog.list(&query, &may_list)?;
        let full = found.len() as u64 >= u64::from(query.limit);
        let next = found.last().filter(|_| full).map(|image| image.id.clone());
        let images = found
            .into_iter()
            .map(|image| self.view(caller, image))
            .collect();
        Ok(Page { images, next })
    }

    fn query(&self, caller: &Caller, request: ListRequest) -> ImageQuery {
        let readable = |filter: Filter| match filter {
            Filter::Property(name, _) if !self.may_read(caller, &name) => Filter::Nothing,
            filter => filter,
        };
        ImageQuery {
            scope: ListScope {
                visibility: request.visibility,
                project: caller.project.clone(),
                admin: self.is_admin(caller),
                member_status: request.member_status,
                hidden: request.hidden,
            },
            filters: request.filters.into_iter().map(readable).collect(),
            sort: request.sort,
            marker: request.marker,
            limit: request.limit,
        }
    }

    /// Whether the policy lets the caller see an image that is its to list. A shared image of another project is among
    /// these only because the caller's project is a member, unless the caller administers all.
    fn may_list(&self, caller: &Caller, image: &Image, admin: bool) -> bool {
        let shared_with_it = image.visibility == Visibility::Shared
            && !admin
            && !caller.is_of(image.owner.as_deref());
        let member = caller.project.as_deref().filter(|_| shared_with_it);
        self.rules().allows(Rule::GetImage, caller, image, member)
    }
}
