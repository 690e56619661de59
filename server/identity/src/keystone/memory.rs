//! What Keystone said of tokens, for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::token::Token;
use crate::static_tokens::TokenHash;

/// Good tokens by their SHA-256, the oldest answer first. Bounded in number; every answer is kept for the same time, so
/// what goes first is always what came first.
#[derive(Debug)]
pub(crate) struct Memory {
    lifetime: Duration,
    entries_max: usize,
    tokens: HashMap<TokenHash, Remembered>,
    /// When which came. An entry that was replaced stands here twice; the older place is ignored when its turn comes.
    arrivals: VecDeque<(Instant, TokenHash)>,
}

#[derive(Debug)]
struct Remembered {
    arrived: Instant,
    token: Arc<Token>,
}

impl Memory {
    /// Remembers up to so many answers, each for so long.
    pub(crate) fn new(lifetime: Duration, entries_max: usize) -> Self {
        Self {
            lifetime,
            entries_max,
            tokens: HashMap::new(),
            arrivals: VecDeque::new(),
        }
    }

    pub(crate) fn get(&self, hash: &TokenHash, now: Instant) -> Option<Arc<Token>> {
        let remembered = self.tokens.get(hash)?;
        let fresh = now.duration_since(remembered.arrived) < self.lifetime;
        fresh.then(|| Arc::clone(&remembered.token))
    }

    pub(crate) fn put(&mut self, hash: TokenHash, token: Arc<Token>, now: Instant) {
        self.tokens.insert(
            hash,
            Remembered {
                arrived: now,
                token,
            },
        );
        self.arrivals.push_back((now, hash));
        while let Some((arrived, oldest)) = self.arrivals.front().copied() {
            let stale = now.duration_since(arrived) >= self.lifetime;
            if !stale && self.arrivals.len() <= self.entries_max {
                break;
            }
            self.arrivals.pop_front();
            if self
                .tokens
                .get(&oldest)
                .is_some_and(|remembered| remembered.arrived == arrived)
            {
                self.tokens.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Arc<Token> {
        let json = br#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": "u"}}}"#;
        Arc::new(Token::decode(json).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_after_their_time_and_when_there_are_too_many() {
        let start = Instant::now();
        let mut memory = Memory::new(Duration::from_secs(300), 2);
        let [a, b, c] = ["a", "b", "c"].map(TokenHash::of);
        memory.put(a, token(), start);
        let later = start + Duration::from_secs(299);
        assert!(memory.get(&a, later).is_some());
        assert!(memory.get(&a, start + Duration::from_secs(300)).is_none());
        memory.put(b, token(), later);
        memory.put(c, token(), later);
        assert!(memory.get(&a, later).is_none(), "two are kept");
        assert!(memory.get(&b, later).is_some() && memory.get(&c, later).is_some());
        memory.put(a, token(), start + Duration::from_secs(600));
        assert_eq!(
            (memory.tokens.len(), memory.arrivals.len()),
            (1, 1),
            "old ones leave no trace"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_renewed_counts_from_the_new_one() {
        let start = Instant::now();
        let mut memory = Memory::new(Duration::from_secs(300), 10);
        let a = TokenHash::of("a");
        memory.put(a, token(), start);
        memory.put(a, token(), start + Duration::from_secs(200));
        memory.put(
            TokenHash::of("b"),
            token(),
            start + Duration::from_secs(400),
        );
        assert!(memory.get(&a, start + Duration::from_secs(400)).is_some());
    }
}
