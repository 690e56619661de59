//! The result of an operation that may still be under way.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A result that is there or will come. Wait for it on a thread, or await it.
///
/// Dropping it does not stop the operation; its buffer is kept alive until the operation is over.
#[derive(Debug)]
#[must_use = "an operation's error is in its result"]
pub struct Pending<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Ready(Option<io::Result<T>>),
    Coming(Arc<Slot<T>>),
}

#[derive(Debug)]
struct Slot<T> {
    content: Mutex<Content<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Content<T> {
    result: Option<io::Result<T>>,
    waker: Option<Waker>,
}

/// The other end of a [`Pending`]: whoever carries out the operation keeps it. Dropping it without a result is a
/// result too: an error.
#[derive(Debug)]
pub struct Promise<T>(Option<Arc<Slot<T>>>);

impl<T> Pending<T> {
    /// Wraps a result that is there.
    pub fn ready(result: io::Result<T>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// Returns a result to come and the end that brings it.
    pub fn coming() -> (Promise<T>, Self) {
        let content = Mutex::new(Content {
            result: None,
            waker: None,
        });
        let slot = Arc::new(Slot {
            content,
            filled: Condvar::new(),
        });
        (Promise(Some(Arc::clone(&slot))), Self(State::Coming(slot)))
    }

    /// Waits for the result. Must not be called on the thread that carries out the operation.
    ///
    /// # Errors
    /// The operation's.
    pub fn wait(self) -> io::Result<T> {
        match self.0 {
            State::Ready(result) => result.expect("because only a finished future has none"),
            State::Coming(slot) => {
                let mut content = slot.content.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(result) = content.result.take() {
                        return result;
                    }
                    content = slot
                        .filled
                        .wait(content)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl<T: Unpin> Future for Pending<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(
                result
                    .take()
                    .expect("because a future is not polled after its end"),
            ),
            State::Coming(slot) => {
                let mut content = slot.content.lock().unwrap_or_else(PoisonError::into_inner);
                match content.result.take() {
                    Some(result) => Poll::Ready(result),
                    None => {
                        content.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            }
        }
    }
}

impl<T> Promise<T> {
    /// Brings the result.
    pub fn fulfil(mut self, result: io::Result<T>) {
        self.settle(result);
    }

    fn settle(&mut self, result: io::Result<T>) {
        if let Some(slot) = self.0.take() {
            let mut content = slot.content.lock().unwrap_or_else(PoisonError::into_inner);
            content.result = Some(result);
            let waker = content.waker.take();
            drop(content);
            slot.filled.notify_all();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.settle(Err(io::Error::other(
            "the I/O thread ended before the operation did",
        )));
    }
}
