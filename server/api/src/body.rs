//! The body of an answer, which notes when it has been taken.

use crate::access_log::AccessEntry;
use crate::app::Shared;
use crate::outflow::Outflow;
use crate::route::Endpoint;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Body {
    content: Content,
    finish: Option<Finish>,
}

#[derive(Debug)]
enum Content {
    /// What is left to be taken; none when all was.
    Bytes(Option<Bytes>),
    /// What comes from elsewhere, boxed: few answers have it.
    Stream(Box<Outflow>),
}

/// What is done when the body has been taken, or given up: the request is counted and noted.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Option<Endpoint>,
    /// When the request came, by the clock.
    pub(crate) began: Duration,
    pub(crate) entry: AccessEntry,
}

impl Body {
    /// No bytes.
    pub(crate) const fn empty() -> Self {
        Self {
            content: Content::Bytes(None),
            finish: None,
        }
    }

    /// These bytes.
    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            content: Content::Bytes(Some(bytes).filter(|bytes| !bytes.is_empty())),
            finish: None,
        }
    }

    /// Bytes that are still being read.
    pub(crate) fn stream(outflow: Outflow) -> Self {
        Self {
            content: Content::Stream(Box::new(outflow)),
            finish: None,
        }
    }

    /// The same body, noted when it ends.
    pub(crate) fn finishing(mut self, finish: Finish) -> Self {
        self.finish = Some(finish);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let bytes = match &mut self.content {
            Content::Bytes(bytes) => bytes.take().map(Ok),
            Content::Stream(outflow) => ready!(outflow.poll_next(context)),
        };
        if let Some(finish) = &mut self.finish {
            match &bytes {
                Some(Ok(bytes)) => finish.entry.bytes_sent += bytes.len() as u64,
                Some(Err(error)) => finish.entry.detail = Some(error.to_string()),
                None => {}
            }
        }
        Poll::Ready(bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.is_none(),
            Content::Stream(outflow) => outflow.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream(outflow) => SizeHint::with_exact(outflow.left()),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let complete = self.is_end_stream();
        if let Some(mut finish) = self.finish.take() {
            let now = finish.shared.clock.elapsed();
            let entry = &mut finish.entry;
            entry.complete = complete;
            entry.duration = now.saturating_sub(finish.began);
            let metrics = &finish.shared.metrics;
            metrics.count(finish.endpoint, entry.status, entry.duration);
            metrics.sent.fetch_add(entry.bytes_sent, Relaxed);
            metrics.in_flight.fetch_sub(1, Relaxed);
            finish.shared.log.log(entry);
        }
    }
}
