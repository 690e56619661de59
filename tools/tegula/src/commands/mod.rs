//! The commands, a file each: its arguments, its report, and what it does.

mod changed;
pub(crate) mod clone;
pub(crate) mod coalesce;
pub(crate) mod completions;
pub(crate) mod delta;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod du;
pub(crate) mod flatten;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod optimize;
pub(crate) mod pull;
pub(crate) mod put;
pub(crate) mod rename;
pub(crate) mod repair;
pub(crate) mod rm;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod verify;
