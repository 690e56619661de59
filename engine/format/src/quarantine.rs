//! Places whose bytes are known to be damaged (SPEC 10).

use crate::envelope::{self, Kind};
use crate::{Corruption, Place, Structure};

const KIND: Kind = Kind {
    what: Structure::Quarantine,
    magic: *b"TGQUARA\n",
};

/// The most places that can be in quarantine (SPEC 10).
pub const QUARANTINE_PLACES_MAX: usize = (envelope::BODY_BYTES_MAX - 8) / 8;

/// The quarantine list: chunks at these places are treated as absent, so that the next one who brings them stores
/// them anew. The bytes stay where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantineList {
    /// The places, ascending.
    pub places: Vec<Place>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Body {
    places: Vec<u64>,
}

impl QuarantineList {
    /// Tells whether a place is in quarantine.
    pub fn contains(&self, place: Place) -> bool {
        self.places.binary_search(&place).is_ok()
    }

    /// Returns the bytes of the list's file.
    ///
    /// # Panics
    /// If there are more than [`QUARANTINE_PLACES_MAX`] places.
    pub fn encode(&self) -> Vec<u8> {
        envelope::encode(
            KIND,
            &Body {
                places: self.places.iter().map(|place| place.ordinal()).collect(),
            },
        )
    }

    /// Reads the list's file.
    ///
    /// # Errors
    /// Whatever is wrong with it; see [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let body: Body = envelope::decode_whole(KIND, bytes)?;
        let places: Option<Vec<_>> = body
            .places
            .iter()
            .map(|ordinal| Place::from_ordinal(*ordinal))
            .collect();
        match places {
            Some(places) if places.is_sorted_by(|a, b| a < b) => Ok(Self { places }),
            _ => Err(Corruption::Body {
                what: KIND.what,
                reason: "the places are not ascending".to_owned(),
            }),
        }
    }
}
