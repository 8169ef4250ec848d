use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use futures_util::Stream;
use llm_engine_wire::openai::Usage;
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
    has_role: bool,
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
            has_role: false,
            ended: false,
            _cancel: cancel,
        }
    }

    /// What goes over the wire for an event of the engine.
    fn write(&mut self, event: Event, written: &mut Events) {
        let usage = match &event {
            Event::Progress { usage, .. } | Event::End { usage, .. } => *usage,
        };
        if !std::mem::replace(&mut self.has_role, true)
            && let Some(role) = self.form.role(Usage::new(usage.prompt_tokens, 0))
        {
            written.chunk(&role);
        }
        match event {
            Event::Progress { text, usage } => written.chunk(&self.form.text(text, None, usage)),
            Event::End {
                reason: FinishReason::Failed(why),
                ..
            } => {
                // Without `[DONE]`, so that nobody takes the answer for complete.
                written.error(&Refusal::failed(why));
                self.ended = true;
            }
            Event::End { text, reason, usage } => {
                written.chunk(&self.form.text(text, Some(reason), usage));
                if let Some(chunk) = self.form.usage(usage) {
                    written.chunk(&chunk);
                }
                written.done();
                self.ended = true;
            }
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
