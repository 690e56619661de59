//! What tests of several kinds do with an engine.

use tegula_engine::{Destination, Engine, ImageName, PutRequest, Source, Task};

pub(crate) fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Puts a new image in, over its parent if there is one.
pub(crate) fn put(engine: &Engine, image: &str, mut bytes: &[u8], parent: Option<&str>) {
    let request = PutRequest {
        name: name(image),
        source: Source::Stream(&mut bytes),
        parent: parent.map(name),
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap();
}

/// Reads an image whole.
pub(crate) fn get(engine: &Engine, image: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = Destination::Stream(&mut bytes);
    engine.get(&name(image), to, Task::unattended()).unwrap();
    bytes
}
