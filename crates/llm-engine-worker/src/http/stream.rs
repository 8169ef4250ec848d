use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::answer::{AnswerForm, Events};
use crate::cancel::CancelOnDrop;
use crate::engine::{Event, FinishReason};
use crate::refusal::Refusal;

/// The body of a streamed answer. Dropping it, as happens when the connection ends, cancels the request.
#[derive(Debug)]
pub(super) struct AnswerStream {
    form: AnswerForm,
    events: UnboundedReceiver<Event>,
    /// The event that was awaited before the status line was sent.
    first: Option<Event>,
    ended: bool,
    _cancel: CancelOnDrop,
}

impl AnswerStream {
    pub(super) fn new(
        form: AnswerForm,
        first: Event,
        events: UnboundedReceiver<Event>,
        cancel: CancelOnDrop,
    ) -> Self {
        Self {
            form,
            events,
            first: Some(first),
            ended: false,
            _cancel: cancel,
        }
    }

    /// What goes over the wire for an event of the engine.
    fn write(&mut self, event: Event, written: &mut Events) {
        if let Some(FinishReason::Failed(why)) = event.reason {
            // Without `[DONE]`, so that nobody takes the answer for complete.
            written.error(&Refusal::failed(why));
            self.ended = true;
            return;
        }
        if let Some(role) = self.form.role(&event) {
            written.chunk(&role);
        }
        let (usage, is_last) = (event.usage, event.is_last);
        written.chunk(&self.form.event(event));
        if is_last {
            if let Some(chunk) = self.form.usage(usage) {
                written.chunk(&chunk);
            }
            written.done();
            self.ended = true;
        }
    }
}

impl Stream for AnswerStream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut written = Events::default();
        if let Some(first) = this.first.take() {
            this.write(first, &mut written);
        }
        if written.is_empty() && !this.ended {
            match ready!(this.events.poll_recv(context)) {
                Some(event) => this.write(event, &mut written),
                None => {
                    written.error(&Refusal::failed("the model is not running"));
                    this.ended = true;
                }
            }
        }
        Poll::Ready((!written.is_empty()).then(|| Ok(written.into_bytes())))
    }
}
