//! Random histories against a map from name to bytes.

mod history;
mod input;

use history::History;
use input::Input;

/// The most operations of a history.
const OPERATIONS_MAX: usize = 60;

/// Bytes are read as operations on a store and on a map that does the same; both must always agree.
///
/// Every get gives the map's bytes, equal bytes have equal digests, a diff is what comparing block by block gives,
/// verification finds nothing, whoever reads from an older session reads what there was, and when all images are
/// removed collection leaves no segment and no layer.
pub fn model(data: &[u8]) {
    let mut input = Input::new(data);
    let mut history = History::new();
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        history.step(&mut input);
    }
    history.finish();
}
