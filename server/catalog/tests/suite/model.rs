//! The catalog as a map in memory that does everything the slow and obvious way: what the databases are compared with.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tegula_catalog::db::{Catalog, CatalogError, ProjectUsage};
use tegula_domain::query::{
    Asked, Comparison, Direction, Filter, ImageQuery, ListScope, NumberColumn, SortKey, TextColumn,
    TimeColumn,
};
use tegula_domain::{Image, ImageId, ImageStatus, Member, MemberStatus, Timestamp, Visibility};

/// Images, deleted ones too, by their ids in lower case, with their members.
#[derive(Debug, Default)]
pub(crate) struct Model(
    Mutex<BTreeMap<String, (Image, Vec<Member>)>>,
    Mutex<Option<String>>,
);

impl Catalog for Model {
    fn store(&self) -> Result<Option<String>, CatalogError> {
        Ok(self.1.lock().unwrap().clone())
    }

    fn note_store(&self, store: &str) -> Result<String, CatalogError> {
        let mut noted = self.1.lock().unwrap();
        Ok(noted.get_or_insert_with(|| store.to_owned()).clone())
    }

    fn forget_store(&self) -> Result<Option<String>, CatalogError> {
        Ok(self.1.lock().unwrap().take())
    }

    fn insert(&self, image: &Image) -> Result<(), CatalogError> {
        let mut images = self.0.lock().unwrap();
        if images.contains_key(&image.id.lower_case()) {
            return Err(CatalogError::IdTaken(image.id.clone()));
        }
        images.insert(image.id.lower_case(), (image.clone(), Vec::new()));
        Ok(())
    }

    fn image(&self, id: &ImageId) -> Result<Option<Image>, CatalogError> {
        Ok(self.find(id).map(|(image, _)| image))
    }

    fn save(&self, image: &Image) -> Result<u64, CatalogError> {
        let mut images = self.0.lock().unwrap();
        let found = images.get_mut(&image.id.lower_case());
        let (before, members) = found
            .filter(|(before, _)| {
                before.id == image.id
                    && before.status != ImageStatus::Deleted
                    && before.version == image.version
            })
            .ok_or_else(|| CatalogError::Stale(image.id.clone()))?;
        let created_at = before.created_at;
        *before = image.clone();
        before.created_at = created_at;
        before.version += 1;
        if image.status == ImageStatus::Deleted {
            members.clear();
        }
        Ok(before.version)
    }

    fn save_within(&self, image: &Image, project_bytes: u64) -> Result<u64, CatalogError> {
        if let Some(owner) = &image.owner {
            let bytes = |image: &Image| image.size.unwrap_or(0) * image.locations.len() as u64;
            let before = self.find(&image.id).map_or(0, |(before, _)| {
                match before.owner.as_deref() == Some(owner) {
                    true => bytes(&before),
                    false => 0,
                }
            });
            if self.usage(owner)?.bytes - before + bytes(image) > project_bytes {
                let what = "bytes of a project's images";
                let limit = project_bytes;
                return Err(CatalogError::Limit { what, limit });
            }
        }
        self.save(image)
    }

    fn list(
        &self,
        query: &ImageQuery,
        shown: &dyn Fn(&Image) -> bool,
    ) -> Result<Vec<Image>, CatalogError> {
        let images = self.0.lock().unwrap();
        let mut found: Vec<&Image> = images
            .values()
            .filter(|(image, members)| {
                !matches!(
                    image.status,
                    ImageStatus::Deleted | ImageStatus::PendingDelete
                ) && image.hidden == query.scope.hidden
                    && in_scope(image, members, &query.scope)
                    && query.filters.iter().all(|filter| fulfils(image, filter))
                    && shown(image)
            })
            .map(|(image, _)| image)
            .collect();
        found.sort_by(|left, right| compare(left, right, &query.sort));
        if let Some(marker) = &query.marker {
            let (marker, _) = images
                .get(&marker.lower_case())
                .filter(|(image, members)| {
                    image.id == *marker
                        && may_be_marker(image, members, &query.scope)
                        && (image.status == ImageStatus::Deleted || shown(image))
                })
                .ok_or_else(|| CatalogError::NoMarker(marker.clone()))?;
            found.retain(|image| compare(image, marker, &query.sort) == Ordering::Greater);
        }
        found.truncate(query.limit as usize);
        Ok(found.into_iter().cloned().collect())
    }

    fn in_status(&self, statuses: &[ImageStatus]) -> Result<Vec<Image>, CatalogError> {
        let found = self.all(|image| statuses.contains(&image.status));
        Ok(oldest_first(found))
    }

    fn without_hash(&self) -> Result<Vec<ImageId>, CatalogError> {
        let lacking = self.all(|image| {
            matches!(image.status, ImageStatus::Active | ImageStatus::Deactivated)
                && image.hash.is_none()
        });
        let ids = oldest_first(lacking).into_iter().map(|image| image.id);
        Ok(ids.collect())
    }

    fn ids(&self) -> Result<Vec<ImageId>, CatalogError> {
        Ok(self
            .all(|_| true)
            .into_iter()
            .map(|image| image.id)
            .collect())
    }

    fn members(&self, image: &ImageId) -> Result<Vec<Member>, CatalogError> {
        let mut members = self
            .find(image)
            .map(|(_, members)| members)
            .unwrap_or_default();
        members.sort_by(|left, right| {
            (left.created_at, &left.project).cmp(&(right.created_at, &right.project))
        });
        Ok(members)
    }

    fn member(&self, image: &ImageId, project: &str) -> Result<Option<Member>, CatalogError> {
        let members = self.members(image)?;
        Ok(members.into_iter().find(|member| member.project == project))
    }

    fn insert_member(
        &self,
        image: &ImageId,
        member: &Member,
        limit: u64,
    ) -> Result<(), CatalogError> {
        let (_, members) = self
            .find(image)
            .ok_or_else(|| CatalogError::NoImage(image.clone()))?;
        if members.iter().any(|other| other.project == member.project) {
            return Err(CatalogError::MemberTaken {
                image: image.clone(),
                project: member.project.clone(),
            });
        }
        if members.len() as u64 >= limit {
            let what = "members";
            return Err(CatalogError::Limit { what, limit });
        }
        let mut images = self.0.lock().unwrap();
        images
            .get_mut(&image.lower_case())
            .unwrap()
            .1
            .push(member.clone());
        Ok(())
    }

    fn set_member(
        &self,
        image: &ImageId,
        project: &str,
        status: MemberStatus,
        now: Timestamp,
    ) -> Result<Member, CatalogError> {
        self.member(image, project)?
            .ok_or_else(|| no_member(image, project))?;
        let mut images = self.0.lock().unwrap();
        let members = &mut images.get_mut(&image.lower_case()).unwrap().1;
        let member = members.iter_mut().find(|member| member.project == project);
        let member = member.unwrap();
        member.status = status;
        member.updated_at = now;
        Ok(member.clone())
    }

    fn remove_member(&self, image: &ImageId, project: &str) -> Result<(), CatalogError> {
        self.member(image, project)?
            .ok_or_else(|| no_member(image, project))?;
        let mut images = self.0.lock().unwrap();
        let members = &mut images.get_mut(&image.lower_case()).unwrap().1;
        members.retain(|member| member.project != project);
        Ok(())
    }

    fn usage(&self, project: &str) -> Result<ProjectUsage, CatalogError> {
        let own = self.all(|image| image.owner.as_deref() == Some(project));
        let arriving = [
            ImageStatus::Saving,
            ImageStatus::Uploading,
            ImageStatus::Importing,
        ];
        Ok(ProjectUsage {
            images: own.len() as u64,
            bytes: own
                .iter()
                .map(|image| image.size.unwrap_or(0) * image.locations.len() as u64)
                .sum(),
            uploading: own
                .iter()
                .filter(|image| arriving.contains(&image.status))
                .count() as u64,
        })
    }

    fn check(&self) -> Result<(), CatalogError> {
        Ok(())
    }
}

impl Model {
    fn find(&self, id: &ImageId) -> Option<(Image, Vec<Member>)> {
        let images = self.0.lock().unwrap();
        images
            .get(&id.lower_case())
            .filter(|(image, _)| image.id == *id && image.status != ImageStatus::Deleted)
            .cloned()
    }

    fn all(&self, wanted: impl Fn(&Image) -> bool) -> Vec<Image> {
        let images = self.0.lock().unwrap();
        images
            .values()
            .map(|(image, _)| image)
            .filter(|image| image.status != ImageStatus::Deleted && wanted(image))
            .cloned()
            .collect()
    }
}

fn oldest_first(mut images: Vec<Image>) -> Vec<Image> {
    images.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
    images
}

fn no_member(image: &ImageId, project: &str) -> CatalogError {
    CatalogError::NoMember {
        image: image.clone(),
        project: project.to_owned(),
    }
}

/// Images API, listing: which rows a caller lists.
fn in_scope(image: &Image, members: &[Member], scope: &ListScope) -> bool {
    let own = scope.project.is_some() && image.owner == scope.project;
    if let Asked::Only(visibility) = scope.visibility
        && image.visibility != visibility
    {
        return false;
    }
    let usual = scope.visibility == Asked::Usual;
    if scope.admin {
        return own || !usual || image.visibility != Visibility::Community;
    }
    let shared = image.visibility == Visibility::Shared
        && members.iter().any(|member| {
            Some(&member.project) == scope.project.as_ref()
                && scope
                    .member_status
                    .is_none_or(|asked| asked == member.status)
        });
    own || shared
        || image.visibility == Visibility::Public
        || (!usual && image.visibility == Visibility::Community)
}

fn may_be_marker(image: &Image, members: &[Member], scope: &ListScope) -> bool {
    let own = scope.project.is_some() && image.owner == scope.project;
    scope.admin
        || (image.status != ImageStatus::Deleted
            && match image.visibility {
                Visibility::Public | Visibility::Community => true,
                Visibility::Private => own,
                Visibility::Shared => {
                    own || image.owner.is_none()
                        || members
                            .iter()
                            .any(|member| Some(&member.project) == scope.project.as_ref())
                }
            })
}

fn fulfils(image: &Image, filter: &Filter) -> bool {
    match filter {
        Filter::Text(column, values) => {
            text(image, *column).is_some_and(|text| values.contains(&text))
        }
        Filter::Number(column, comparison, value) => {
            let number = match column {
                NumberColumn::Size => image.size,
                NumberColumn::VirtualSize => image.virtual_size,
                NumberColumn::MinRam => Some(image.min_ram.into()),
                NumberColumn::MinDisk => Some(image.min_disk.into()),
            };
            number
                .is_some_and(|number| holds(i128::from(number).cmp(&(*value).into()), *comparison))
        }
        Filter::Time(column, comparison, value) => {
            let time = match column {
                TimeColumn::CreatedAt => image.created_at,
                TimeColumn::UpdatedAt => image.updated_at,
            };
            holds(time.seconds().cmp(&value.seconds()), *comparison)
        }
        Filter::Protected(protected) => image.protected == *protected,
        Filter::Tag(tag) => image.tags.contains(tag),
        Filter::Property(name, value) => image.properties.get(name) == Some(value),
        Filter::Nothing => false,
    }
}

fn text(image: &Image, column: TextColumn) -> Option<String> {
    match column {
        TextColumn::Id => Some(image.id.as_str().to_owned()),
        TextColumn::Name => image.name.clone(),
        TextColumn::Status => Some(image.status.as_str().to_owned()),
        TextColumn::Owner => image.owner.clone(),
        TextColumn::Checksum => image.checksum.clone(),
        TextColumn::HashAlgorithm => image.hash.as_ref().map(|hash| hash.algorithm.clone()),
        TextColumn::HashValue => image.hash.as_ref().map(|hash| hash.value.clone()),
        TextColumn::DiskFormat => image.disk_format.clone(),
        TextColumn::ContainerFormat => image.container_format.clone(),
    }
}

const fn holds(ordering: Ordering, comparison: Comparison) -> bool {
    match comparison {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::LessOrEqual => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
    }
}

fn compare(left: &Image, right: &Image, sort: &[(SortKey, Direction)]) -> Ordering {
    let key = |key: SortKey| match key {
        SortKey::Name => left
            .name
            .as_deref()
            .unwrap_or("")
            .cmp(right.name.as_deref().unwrap_or("")),
        SortKey::Status => left.status.as_str().cmp(right.status.as_str()),
        SortKey::ContainerFormat => {
            let format = |image: &Image| image.container_format.clone().unwrap_or_default();
            format(left).cmp(&format(right))
        }
        SortKey::DiskFormat => {
            let format = |image: &Image| image.disk_format.clone().unwrap_or_default();
            format(left).cmp(&format(right))
        }
        SortKey::Size => left.size.unwrap_or(0).cmp(&right.size.unwrap_or(0)),
        SortKey::Id => left.id.cmp(&right.id),
        SortKey::CreatedAt => left.created_at.cmp(&right.created_at),
        SortKey::UpdatedAt => left.updated_at.cmp(&right.updated_at),
    };
    sort.iter()
        .map(|(by, direction)| match direction {
            Direction::Ascending => key(*by),
            Direction::Descending => key(*by).reverse(),
        })
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}
