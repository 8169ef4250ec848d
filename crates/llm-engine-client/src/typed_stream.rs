use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use llm_engine_retry::Reason;
use serde::de::DeserializeOwned;

use crate::failed::Failed;
use crate::{Error, EventStream};

/// An [`EventStream`] whose events are read as messages.
///
/// ```no_run
/// use llm_engine_client::Client;
/// use llm_engine_client::openai::{ChatRequest, Completion, Message};
/// use llm_engine_client::TypedStream;
///
/// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
/// let request = ChatRequest::new("m", [Message::user("Hello")]);
/// let mut chunks: TypedStream<Completion> = client.chat_stream(&request).await?;
/// while let Some(chunk) = chunks.next().await {
///     print!("{}", chunk?.text());
/// }
/// println!("({:?})", chunks.events().request_id());
/// # Ok(())
/// # }
/// ```
pub struct TypedStream<T> {
    events: EventStream,
    message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> TypedStream<T> {
    pub(crate) fn new(events: EventStream) -> Self {
        Self {
            events,
            message: PhantomData,
        }
    }

    /// The next message; `None` after the last one.
    ///
    /// # Errors
    /// [`Error`], if there is no more although the answer is not whole, or if an event is not what it should be.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The events below, for the request id and the number of attempts.
    #[must_use]
    pub fn events(&self) -> &EventStream {
        &self.events
    }

    /// The events themselves, from here on.
    #[must_use]
    pub fn into_events(self) -> EventStream {
        self.events
    }
}

impl<T: DeserializeOwned> Stream for TypedStream<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = ready!(Pin::new(&mut self.events).poll_next(cx));
        Poll::Ready(event.map(|event| {
            serde_json::from_slice(&event?).map_err(|error| {
                let failed = Failed::unexpected(format!("an event is not what it should be: {error}"));
                Error::new(failed, Reason::Permanent, Vec::new())
            })
        }))
    }
}

impl<T> fmt::Debug for TypedStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedStream").field(&self.events).finish()
    }
}
