//! The mishaps that cannot be told from a store's normal life. Every other one must be found.

use crate::change::Change;
use crate::world::World;

/// What may become of the images in a mishap that need not be found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// All read as always.
    Exact,
    /// One is as it was before it was replaced.
    AsBefore(&'static str),
    /// One is not there.
    Absent(String),
}

/// Returns why repair leaves a mishap as it is, if it may: what it touched stays as unreadable as it was found, and
/// the rest is as sound as ever.
pub(crate) fn beyond_repair(change: &Change) -> Option<&'static str> {
    match change {
        Change::Return { path, .. } if path.starts_with("images/") => {
            Some("the image was removed and its layers with it; what is left is to remove it again")
        }
        _ => None,
    }
}

/// Returns why a mishap need not be found, and what it may do, if it is one of those.
pub(crate) fn exception(world: &World, change: &Change) -> Option<(&'static str, Reads)> {
    let directory = |path: &str| {
        path.split_once('/')
            .map(|(directory, _)| directory.to_owned())
    };
    let in_index = |path: &str| directory(path).as_deref() == Some("index");
    match change {
        Change::Delete { path } if in_index(path) => Some((
            "a crash may come between a segment and its run: a segment in no run is read by its own table",
            Reads::Exact,
        )),
        Change::SwapFiles { a, b } if in_index(a) && in_index(b) => {
            Some(("a run's name is random and means nothing", Reads::Exact))
        }
        Change::Duplicate { path, .. } if in_index(path) => Some((
            "a writer that crashes while it merges leaves rows in two runs",
            Reads::Exact,
        )),
        Change::Return { path, .. } if in_index(path) => Some((
            "rows of removed segments are passed over until the next writer drops them",
            Reads::Exact,
        )),
        Change::Return { path, .. } if directory(path)? != "images" => Some((
            "collection crashed before it removed the file: garbage, which the next one takes",
            Reads::Exact,
        )),
        Change::Delete { path } if directory(path)? == "layers" && world.users(path).is_empty() => {
            Some((
                "collection takes such layers: no image needs them",
                Reads::Exact,
            ))
        }
        Change::Replay { path, .. } if path == "gc.state" => Some((
            "an earlier epoch is as good as any while nobody has a session",
            Reads::Exact,
        )),
        // The two that could matter to a user. A record is the only thing that tells that its image exists, so that
        // one rename commits a put and one removal an rm; whoever can undo them needs to be told by a backup or a
        // catalog that keeps the digests.
        Change::Replay { path, .. } if path == "images/other.image" => Some((
            "the layer and chunks of the earlier image are not collected yet: this is the put undone",
            Reads::AsBefore(world.replaced.0),
        )),
        Change::Delete { path } if directory(path)? == "images" => {
            let image = path.strip_prefix("images/")?.strip_suffix(".image")?;
            Some(("this is an rm", Reads::Absent(image.to_owned())))
        }
        _ => None,
    }
}
