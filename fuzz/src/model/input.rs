//! Bytes read as choices. When they are used up every choice is the first.

use crate::world;

#[derive(Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Returns a number below `limit`, which is at most 2^16.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let number = u16::from_le_bytes([self.byte(), self.byte()]);
        usize::from(number) % limit.max(1)
    }

    pub(super) fn choose<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        let at = usize::from(self.byte()) % from.len();
        from.get(at)
            .expect("because it was taken modulo the length")
    }

    /// Returns the bytes of a small image: up to 15 blocks, the last may be short.
    pub(super) fn disk(&mut self) -> Vec<u8> {
        let blocks = self.byte();
        let kinds: Vec<u8> = (0..blocks % 16).map(|_| self.byte()).collect();
        let cut = match blocks >= 128 {
            true => self.below(world::BLOCK),
            false => 0,
        };
        world::disk(&kinds, cut)
    }

    /// Changes an image: its length, some blocks, some bytes.
    pub(super) fn edit(&mut self, bytes: &mut Vec<u8>) {
        let edits = self.byte() % 6;
        for _ in 0..edits {
            match self.byte() % 4 {
                0 => {
                    let length = self.below(16 * world::BLOCK);
                    bytes.resize(length, 0);
                }
                1 => {
                    let at = self.below(bytes.len());
                    let change = self.byte();
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= change;
                    }
                }
                _ => {
                    let block = world::block(self.byte());
                    let at = self.below(16) * world::BLOCK;
                    let place = bytes.get_mut(at..).unwrap_or_default();
                    place
                        .iter_mut()
                        .zip(block)
                        .for_each(|(to, from)| *to = from);
                }
            }
        }
    }
}
