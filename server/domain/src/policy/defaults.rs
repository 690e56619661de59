//! Every rule there is, with the text it has unless the operator gives another.
//!
//! The names are those of Glance, so that a `policy.yaml` written for it means the same here; the texts are its defaults of
//! today (roles reader, member, admin and service in a project), but for these:
//!
//! - Whom a shared image is shared with is asked here too. Glance leaves that to its database and lets the policy pass every
//!   shared image; here an image that the database should not have found is refused once more. Only one that belongs to no
//!   project is everybody's while it is shared, as there.
//! - A service token's role counts as much as the user's own where a service may do more than a user
//!   ([`Rule::ServiceApi`]).
//! - The rules named `set_lineage` and `lineage_…` are ours.
//!
//! Rules about no image in particular (to list, to see the stores) are asked of the caller's own project, as Glance asks them:
//! its texts for them compare the two.

/// Who administers: whatever `context_is_admin` says.
macro_rules! admin {
    () => {
        "rule:context_is_admin"
    };
}

/// A project's own images, for those who may read.
macro_rules! project_reader {
    () => {
        "role:reader and project_id:%(project_id)s"
    };
}

/// A project's own images, for those who may write.
macro_rules! project_member {
    () => {
        "role:member and project_id:%(project_id)s"
    };
}

/// Images that a project may see: its own, those shared with it, and everybody's.
macro_rules! visible {
    () => {
        "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s \
         or None:%(owner)s and 'shared':%(visibility)s)"
    };
}

const ADMIN: &str = admin!();
const ADMIN_OR_READER: &str = concat!(admin!(), " or role:reader");
const ADMIN_OR_PROJECT_READER: &str = concat!(admin!(), " or ", project_reader!());
const ADMIN_OR_PROJECT_MEMBER: &str = concat!(admin!(), " or ", project_member!());
const CREATOR: &str = concat!(
    admin!(),
    " or ",
    project_member!(),
    " and project_id:%(owner)s"
);
const SEER: &str = concat!(admin!(), " or role:reader and ", visible!());
const DOWNLOADER: &str = concat!(admin!(), " or role:member and ", visible!());
const MEMBERSHIP_READER: &str = concat!(
    admin!(),
    " or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
);
const SHAREE: &str = concat!(admin!(), " or role:member and project_id:%(member_id)s");
const NAMESPACE_READER: &str = concat!(
    admin!(),
    " or role:reader and (project_id:%(project_id)s or 'public':%(visibility)s)"
);
const MODIFY_IMAGE: &str = "rule:modify_image";
const DEFAULT: &str = "rule:default";
const METADEF_ADMIN: &str = "rule:metadef_admin";

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident $name:literal $text:expr;)*) => {
        /// A rule of the policy: what it allows, and its name in a `policy.yaml`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($(#[$doc])* $variant,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The text it has unless the operator gives another.
            pub const fn default_text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

rules! {
    /// What rules that once had no text of their own refer to.
    Default "default" "@";
    /// Whether the caller administers the deployment: it sees everything, and `is_admin:True` asks for it.
    ContextIsAdmin "context_is_admin" "role:admin";
    /// Whether a service asks, for itself or on a user's behalf.
    ServiceApi "service_api" "role:service or service_roles:service or role:admin";

    /// Add an image. The target is the image to be.
    AddImage "add_image" CREATOR;
    /// See an image at all: without it, there is none.
    GetImage "get_image" SEER;
    /// List images; which ones is asked of [`Rule::GetImage`].
    GetImages "get_images" ADMIN_OR_READER;
    /// Change what is known about an image.
    ModifyImage "modify_image" ADMIN_OR_PROJECT_MEMBER;
    /// Delete an image.
    DeleteImage "delete_image" ADMIN_OR_PROJECT_MEMBER;
    /// Make an image public.
    PublicizeImage "publicize_image" ADMIN;
    /// Make an image a community image.
    CommunitizeImage "communitize_image" ADMIN_OR_PROJECT_MEMBER;
    /// Read an image's bytes.
    DownloadImage "download_image" DOWNLOADER;
    /// Choose the store that an image's bytes are read from.
    DownloadFromStore "download_from_store" DOWNLOADER;
    /// Give an image its bytes.
    UploadImage "upload_image" ADMIN_OR_PROJECT_MEMBER;
    /// Take a location away, with the bytes there.
    DeleteImageLocation "delete_image_location" ADMIN;
    /// See where an image's bytes are.
    GetImageLocation "get_image_location" ADMIN_OR_PROJECT_READER;
    /// Say where an image's bytes are, by changing it.
    SetImageLocation "set_image_location" ADMIN_OR_PROJECT_MEMBER;
    /// Say where an image's bytes are, by the locations API.
    AddImageLocation "add_image_location" concat!("rule:service_api or ", project_member!(), " and project_id:%(owner)s");
    /// See where an image's bytes are, by the locations API.
    FetchImageLocation "fetch_image_location" "rule:service_api";
    /// Share an image with a project.
    AddMember "add_member" ADMIN_OR_PROJECT_MEMBER;
    /// Stop sharing an image with a project.
    DeleteMember "delete_member" ADMIN_OR_PROJECT_MEMBER;
    /// See one project that an image is shared with. The target is the membership.
    GetMember "get_member" MEMBERSHIP_READER;
    /// See the projects that an image is shared with. The target is the membership of the caller.
    GetMembers "get_members" MEMBERSHIP_READER;
    /// Accept or reject what is shared. The target is the membership.
    ModifyMember "modify_member" SHAREE;
    /// Withdraw an image's bytes.
    Deactivate "deactivate" ADMIN_OR_PROJECT_MEMBER;
    /// Offer an image's bytes again.
    Reactivate "reactivate" ADMIN_OR_PROJECT_MEMBER;
    /// Copy an image's bytes to other stores.
    CopyImage "copy_image" ADMIN;

    /// Say what an image is an increment of. Ours.
    SetLineage "set_lineage" MODIFY_IMAGE;
    /// Make an image stand on its own. Ours.
    LineageFlatten "lineage_flatten" MODIFY_IMAGE;
    /// Make an image stand on an older ancestor. Ours.
    LineageCoalesce "lineage_coalesce" MODIFY_IMAGE;
    /// Make an image stand on another. Ours.
    LineageRebase "lineage_rebase" MODIFY_IMAGE;

    /// Manage the cache of images, in the words of older policies.
    ManageImageCache "manage_image_cache" ADMIN;
    /// See which nodes hold an image in their cache.
    ListCachedNodes "list_cached_nodes" ADMIN;
    /// Have an image cached.
    CacheImage "cache_image" ADMIN;
    /// See what is cached.
    CacheList "cache_list" ADMIN;
    /// Take an image out of the cache.
    CacheDelete "cache_delete" ADMIN;
    /// Remove what the cache left behind.
    CacheClean "cache_clean" ADMIN;
    /// Shrink the cache to its size.
    CachePrune "cache_prune" ADMIN;

    /// See how the stores are made.
    StoresInfoDetail "stores_info_detail" concat!(admin!(), " or rule:service_api");

    /// Use the API of tasks at all.
    TasksApiAccess "tasks_api_access" ADMIN;
    /// See one task.
    GetTask "get_task" DEFAULT;
    /// List tasks.
    GetTasks "get_tasks" DEFAULT;
    /// Add a task.
    AddTask "add_task" DEFAULT;
    /// Change a task.
    ModifyTask "modify_task" DEFAULT;

    /// Read metadata definitions, in the words of older policies.
    MetadefDefault "metadef_default" "@";
    /// Write metadata definitions.
    MetadefAdmin "metadef_admin" ADMIN;
    /// See a namespace.
    GetMetadefNamespace "get_metadef_namespace" NAMESPACE_READER;
    /// List namespaces; which ones is asked of [`Rule::GetMetadefNamespace`].
    GetMetadefNamespaces "get_metadef_namespaces" ADMIN_OR_READER;
    /// Change a namespace.
    ModifyMetadefNamespace "modify_metadef_namespace" METADEF_ADMIN;
    /// Add a namespace.
    AddMetadefNamespace "add_metadef_namespace" METADEF_ADMIN;
    /// Delete a namespace.
    DeleteMetadefNamespace "delete_metadef_namespace" METADEF_ADMIN;
    /// See an object of a namespace.
    GetMetadefObject "get_metadef_object" NAMESPACE_READER;
    /// List the objects of a namespace.
    GetMetadefObjects "get_metadef_objects" NAMESPACE_READER;
    /// Change an object.
    ModifyMetadefObject "modify_metadef_object" METADEF_ADMIN;
    /// Add an object.
    AddMetadefObject "add_metadef_object" METADEF_ADMIN;
    /// Delete an object.
    DeleteMetadefObject "delete_metadef_object" METADEF_ADMIN;
    /// List the types of resources.
    ListMetadefResourceTypes "list_metadef_resource_types" ADMIN_OR_READER;
    /// See which types of resources a namespace is for.
    GetMetadefResourceType "get_metadef_resource_type" NAMESPACE_READER;
    /// Say that a namespace is for a type of resources.
    AddMetadefResourceTypeAssociation "add_metadef_resource_type_association" METADEF_ADMIN;
    /// Say that it no longer is.
    RemoveMetadefResourceTypeAssociation "remove_metadef_resource_type_association" METADEF_ADMIN;
    /// See a property of a namespace.
    GetMetadefProperty "get_metadef_property" NAMESPACE_READER;
    /// List the properties of a namespace.
    GetMetadefProperties "get_metadef_properties" NAMESPACE_READER;
    /// Change a property of a namespace.
    ModifyMetadefProperty "modify_metadef_property" METADEF_ADMIN;
    /// Add a property to a namespace.
    AddMetadefProperty "add_metadef_property" METADEF_ADMIN;
    /// Remove a property from a namespace.
    RemoveMetadefProperty "remove_metadef_property" METADEF_ADMIN;
    /// See a tag of a namespace.
    GetMetadefTag "get_metadef_tag" NAMESPACE_READER;
    /// List the tags of a namespace.
    GetMetadefTags "get_metadef_tags" NAMESPACE_READER;
    /// Change a tag of a namespace.
    ModifyMetadefTag "modify_metadef_tag" METADEF_ADMIN;
    /// Add a tag to a namespace.
    AddMetadefTag "add_metadef_tag" METADEF_ADMIN;
    /// Add tags to a namespace.
    AddMetadefTags "add_metadef_tags" METADEF_ADMIN;
    /// Delete a tag of a namespace.
    DeleteMetadefTag "delete_metadef_tag" METADEF_ADMIN;
    /// Delete the tags of a namespace.
    DeleteMetadefTags "delete_metadef_tags" METADEF_ADMIN;
}

impl Rule {
    /// The rule of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }
}
