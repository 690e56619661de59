//! What every database behind the catalog does: one suite, instantiated for each.

pub(crate) mod cases;
pub(crate) mod model;
pub(crate) mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tegula_catalog::db::Catalog;
use tegula_domain::query::{Asked, Direction, ImageQuery, ListScope, SortKey};
use tegula_domain::{Image, ImageId, ImageStatus, Lineage, Timestamp, Visibility};

/// An empty database for one test.
pub(crate) struct World {
    /// The catalog in it.
    pub(crate) catalog: Arc<dyn Catalog>,
    /// What opens it once more.
    pub(crate) url: String,
    /// Removes it when it is dropped.
    pub(crate) _guard: Box<dyn std::any::Any + Send + Sync>,
}

/// Makes a test of each case of the suite; `$world` makes an empty database.
macro_rules! conformance {
    ($world:path: $($module:ident::$case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                suite::$module::$case(&$world());
            }
        )*
    };
    ($world:path) => {
        conformance! {
            $world:
            cases::an_image_comes_back_as_it_was_inserted,
            cases::an_id_is_taken_whatever_its_case_and_even_when_deleted,
            cases::a_stale_image_is_not_saved,
            cases::saving_writes_every_difference,
            cases::a_deleted_image_disappears_from_every_call,
            cases::members_are_inserted_changed_and_removed,
            cases::memberships_keep_to_the_limit_when_many_insert,
            cases::saves_from_many_threads_lose_no_update,
            cases::one_of_many_inserts_of_an_id_wins,
            cases::what_was_saved_is_there_after_opening_again,
            cases::numbers_that_do_not_fit_are_refused,
            cases::texts_that_do_not_fit_are_refused_and_found_nowhere,
            cases::usage_counts_what_a_project_has,
            cases::projects_keep_to_their_bytes_when_many_images_arrive,
            cases::pages_follow_one_another_without_gap_or_overlap,
            cases::a_marker_must_be_one_that_the_caller_could_see,
            cases::images_that_are_not_shown_leave_no_gap_in_a_page,
            cases::limits_and_filters_that_select_nothing_give_empty_pages,
            cases::a_filter_takes_thousands_of_values,
            cases::the_store_that_was_noted_first_stays_until_it_is_forgotten,
            random::operations_and_listings_agree_with_the_model,
        }
    };
}

/// The id that ends with that number.
pub(crate) fn id(number: u32) -> ImageId {
    ImageId::parse(&format!("0a000000-0000-4000-8000-0000{number:08x}")).unwrap()
}

/// A queued image of project `p1` that says little of itself.
pub(crate) fn image(number: u32) -> Image {
    Image {
        id: id(number),
        name: None,
        status: ImageStatus::Queued,
        visibility: Visibility::Shared,
        protected: false,
        hidden: false,
        checksum: None,
        hash: None,
        owner: Some("p1".to_owned()),
        size: None,
        virtual_size: None,
        disk_format: None,
        container_format: None,
        min_ram: 0,
        min_disk: 0,
        tags: BTreeSet::new(),
        properties: BTreeMap::new(),
        locations: Vec::new(),
        lineage: Lineage::default(),
        created_at: at(number.into()),
        updated_at: at(number.into()),
        version: 1,
    }
}

/// So many seconds after the beginning of these tests.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros((1_790_000_000 + seconds) * 1_000_000)
}

/// The first page of what a project lists, newest first.
pub(crate) fn query(project: &str, limit: u32) -> ImageQuery {
    ImageQuery {
        scope: ListScope {
            visibility: Asked::Usual,
            project: Some(project.to_owned()),
            admin: false,
            member_status: Some(tegula_domain::MemberStatus::Accepted),
            hidden: false,
        },
        filters: Vec::new(),
        sort: vec![
            (SortKey::CreatedAt, Direction::Descending),
            (SortKey::Id, Direction::Descending),
        ],
        marker: None,
        limit,
    }
}
