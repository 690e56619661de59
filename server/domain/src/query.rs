//! What a listing of images asks for: parsed, complete, and the same for every database.
//!
//! Which texts mean which query is the API's business; which rows a caller may list is in [`ListScope`], made of the caller
//! and of what it asks for, so that no database can forget it.

use crate::{ImageId, MemberStatus, Timestamp, Visibility};

/// Columns that images are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// The name; none sorts as the empty one.
    Name,
    /// The state's name.
    Status,
    /// The container format; none sorts as the empty one.
    ContainerFormat,
    /// The disk format; none sorts as the empty one.
    DiskFormat,
    /// The length; none sorts as 0.
    Size,
    /// The id.
    Id,
    /// When it was made.
    CreatedAt,
    /// When it was last changed.
    UpdatedAt,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// Columns of text that a listing can be narrowed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the columns of `Image`")]
pub enum TextColumn {
    Id,
    Name,
    Status,
    Owner,
    Checksum,
    HashAlgorithm,
    HashValue,
    DiskFormat,
    ContainerFormat,
}

/// Columns of numbers that a listing can be narrowed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the columns of `Image`")]
pub enum NumberColumn {
    Size,
    VirtualSize,
    MinRam,
    MinDisk,
}

/// Columns of times that a listing can be narrowed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the columns of `Image`")]
pub enum TimeColumn {
    CreatedAt,
    UpdatedAt,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual names")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One condition of a listing. All must hold. A column without a value fulfils none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// A text is one of these.
    Text(TextColumn, Vec<String>),
    /// A number compares so.
    Number(NumberColumn, Comparison, i64),
    /// A time compares so, in whole seconds, the resolution that is shown.
    Time(TimeColumn, Comparison, Timestamp),
    /// It is protected, or is not.
    Protected(bool),
    /// It has the tag.
    Tag(String),
    /// Its property of that name has that value.
    Property(String, String),
    /// Nothing fulfils this one: the caller asked for what cannot be, or may not be known.
    Nothing,
}

/// Which rows a caller may list, before any filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListScope {
    /// The visibilities asked for; none if the caller did not say.
    pub visibility: Asked,
    /// The caller's project.
    pub project: Option<String>,
    /// Whether the caller sees the images of all projects.
    pub admin: bool,
    /// The membership that images shared with the caller's project must have; none: any.
    pub member_status: Option<MemberStatus>,
    /// Whether hidden images are asked for, and only those.
    pub hidden: bool,
}

/// The `visibility` of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Not said: public images, those of the caller's project, those shared with it; for administrators all but community
    /// images of other projects.
    Usual,
    /// All that the caller may see.
    All,
    /// Those of one visibility.
    Only(Visibility),
}

/// A listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageQuery {
    /// Which rows are the caller's to list.
    pub scope: ListScope,
    /// Which of them are asked for.
    pub filters: Vec<Filter>,
    /// The order: at least created-at and id are among the keys, so it is total.
    pub sort: Vec<(SortKey, Direction)>,
    /// The image after which the page begins.
    pub marker: Option<ImageId>,
    /// How many at most.
    pub limit: u32,
}
