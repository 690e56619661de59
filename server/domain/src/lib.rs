//! The rules of the catalog: what an image is, which states it goes through, who sees it and may do what with it.
//!
//! Pure: no I/O, no clock, no randomness, no runtime, no names of any wire. Times come in as [`Timestamp`]s, ids as
//! [`ImageId`]s, and every rule is a function of its arguments. The services of the catalog load these values, ask them,
//! and save them; the API translates them.

#![forbid(unsafe_code)]

mod caller;
mod id;
mod image;
pub mod inspect;
mod location;
mod member;
pub mod policy;
pub mod property;
pub mod protection;
pub mod query;
pub mod quota;
mod status;
mod timestamp;
mod visibility;

pub use caller::{Caller, Scope};
pub use id::{ImageId, NotAnImageId};
pub use image::{ContentHash, Image, Lineage, NewImage};
pub use location::Location;
pub use member::{Member, MemberStatus};
pub use status::{IllegalTransition, ImageStatus};
pub use timestamp::Timestamp;
pub use visibility::Visibility;
