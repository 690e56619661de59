//! All sequences of choices, one after the other.

/// Runs through everything a function can choose: call [`Self::choose`] for each choice of a run, then
/// [`Self::advance`] to the next run until there is none.
///
/// Only for few choices: the runs multiply.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// What was chosen, and of how many.
    made: Vec<(usize, usize)>,
    next: usize,
}

impl Choices {
    /// Begins with the run that always chooses 0.
    pub const fn new() -> Self {
        Self {
            made: Vec::new(),
            next: 0,
        }
    }

    /// Chooses a number below `of`.
    ///
    /// # Panics
    /// If the same choices before led to another question: what is tried does not depend on the choices alone.
    pub fn choose(&mut self, of: usize) -> usize {
        let made = match self.made.get(self.next) {
            Some((made, before)) => {
                assert_eq!(*before, of, "the run is not determined by its choices");
                *made
            }
            None => {
                self.made.push((0, of));
                0
            }
        };
        self.next += 1;
        made
    }

    /// Goes to the next run; `false` if there is none.
    pub fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((made, of)) = self.made.pop() {
            if made + 1 < of {
                self.made.push((made + 1, of));
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_comes_once() {
        let mut choices = Choices::new();
        let mut seen = Vec::new();
        loop {
            let first = choices.choose(2);
            // How many choices there are may depend on those before.
            let second = if first == 0 { choices.choose(3) } else { 9 };
            seen.push((first, second));
            if !choices.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 9)]);
    }
}
