//! Asking once about each token.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::client::Client;
use super::memory::Memory;
use super::token::Token;
use crate::error::{Flaw, IdentityError};
use crate::static_tokens::TokenHash;

type Answer = Result<Arc<Token>, IdentityError>;
type Question = (TokenHash, bool);

/// Tokens that Keystone was asked about, and those it is being asked about.
///
/// A question runs as a task of its own: the request that asked first may go away, those that wait with it do not.
#[derive(Clone)]
pub(crate) struct Validations {
    client: Arc<Client>,
    state: Arc<Mutex<State>>,
}

struct State {
    memory: Memory,
    under_way: HashMap<Question, watch::Receiver<Option<Answer>>>,
}

impl fmt::Debug for Validations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validations").finish_non_exhaustive()
    }
}

impl Validations {
    pub(crate) fn new(client: Client, lifetime: Duration, entries_max: usize) -> Self {
        let state = State {
            memory: Memory::new(lifetime, entries_max),
            under_way: HashMap::new(),
        };
        Self {
            client: Arc::new(client),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What Keystone says of a token. One that is remembered may have expired since.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] and [`IdentityError::Unavailable`]; neither is remembered.
    pub(crate) async fn validate(&self, token: &str, allow_expired: bool) -> Answer {
        let question = (TokenHash::of(token), allow_expired);
        let mut answer = {
            let mut state = self.state();
            if let Some(token) = state.memory.get(&question.0, Instant::now()) {
                return Ok(token);
            }
            match state.under_way.get(&question) {
                Some(answer) => answer.clone(),
                None => {
                    let (sender, answer) = watch::channel(None);
                    state.under_way.insert(question, answer.clone());
                    tokio::spawn(self.clone().ask(question, token.to_owned(), sender));
                    answer
                }
            }
        };
        let answer = answer.wait_for(Option::is_some).await;
        answer
            .ok()
            .and_then(|answer| answer.clone())
            .unwrap_or_else(|| {
                Err(IdentityError::Unavailable(
                    "asking it was broken off".to_owned(),
                ))
            })
    }

    async fn ask(self, question: Question, token: String, sender: watch::Sender<Option<Answer>>) {
        let _done = Done {
            validations: &self,
            question,
        };
        let answer = match self.client.validate(&token, question.1).await {
            Ok(Some(token)) => Ok(Arc::new(token)),
            Ok(None) => Err(IdentityError::Invalid(Flaw::Unknown)),
            Err(failure) => Err(IdentityError::Unavailable(failure.to_string())),
        };
        if let Ok(token) = &answer {
            self.state()
                .memory
                .put(question.0, Arc::clone(token), Instant::now());
        }
        // Nobody may be waiting any more.
        let _ = sender.send(Some(answer));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of it is one call: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a question off the list when its task ends, however it ends.
struct Done<'a> {
    validations: &'a Validations,
    question: Question,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.validations.state().under_way.remove(&self.question);
    }
}
