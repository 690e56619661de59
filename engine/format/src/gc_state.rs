//! What garbage collection has promised the sessions of a store (SPEC 9).

use crate::envelope::{self, Kind};
use crate::{Corruption, LayerId, SegmentNumber, Structure};

const KIND: Kind = Kind {
    what: Structure::GcState,
    magic: *b"TGCOLLE\n",
};

/// The most that may be condemned at once (SPEC 9): 4 bytes a segment and 32 a layer, in bytes.
pub const CONDEMNED_BYTES_MAX: usize = envelope::BODY_BYTES_MAX - 28;

/// The collection state: replaced as a whole, by the one process that holds the collection lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcState {
    /// Sessions begun now belong to this epoch. It only grows.
    pub epoch: u64,
    /// Every segment number given out from now on is above this one.
    pub segment_floor: u32,
    /// Segments about to be removed, ascending: nobody who begins now may come to need them.
    pub condemned_segments: Vec<SegmentNumber>,
    /// Layers about to be removed, ascending: likewise.
    pub condemned_layers: Vec<LayerId>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Body {
    epoch: u64,
    segment_floor: u32,
    condemned_segments: Vec<u32>,
    condemned_layers: Vec<[u8; 32]>,
}

impl GcState {
    /// Tells whether a segment is condemned.
    pub fn condemns_segment(&self, segment: SegmentNumber) -> bool {
        self.condemned_segments.binary_search(&segment).is_ok()
    }

    /// Tells whether a layer is condemned.
    pub fn condemns_layer(&self, layer: &LayerId) -> bool {
        self.condemned_layers.binary_search(layer).is_ok()
    }

    /// Returns the bytes of the state file.
    ///
    /// # Panics
    /// If more is condemned than [`CONDEMNED_BYTES_MAX`] allows.
    pub fn encode(&self) -> Vec<u8> {
        let body = Body {
            epoch: self.epoch,
            segment_floor: self.segment_floor,
            condemned_segments: self
                .condemned_segments
                .iter()
                .map(|segment| segment.get())
                .collect(),
            condemned_layers: self
                .condemned_layers
                .iter()
                .map(|layer| *layer.as_bytes())
                .collect(),
        };
        envelope::encode(KIND, &body)
    }

    /// Reads the state file.
    ///
    /// # Errors
    /// Whatever is wrong with it; see [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let body: Body = envelope::decode_whole(KIND, bytes)?;
        let sorted = body.condemned_segments.is_sorted_by(|a, b| a < b)
            && body.condemned_layers.is_sorted_by(|a, b| a < b);
        if !sorted {
            return Err(Corruption::Body {
                what: KIND.what,
                reason: "a list is not ascending".to_owned(),
            });
        }
        Ok(Self {
            epoch: body.epoch,
            segment_floor: body.segment_floor,
            condemned_segments: body
                .condemned_segments
                .into_iter()
                .map(SegmentNumber::new)
                .collect(),
            condemned_layers: body
                .condemned_layers
                .into_iter()
                .map(LayerId::from_bytes)
                .collect(),
        })
    }
}
