use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyDataStream;
use llm_engine_wire::sse::Decoder;
use reqwest::{Body, Response};
use tokio::time::{Sleep, sleep_until};

use crate::Error;
use crate::answer::request_id;
use crate::attempt::Read;
use crate::event::Meaning;
use crate::failed::Failed;
use crate::run::Run;

/// An answer that comes in pieces: the data of each server-sent event, without OpenAI's `[DONE]`.
///
/// It ends with `None` only if the answer is whole; if it breaks off, or the call's time is over, the last item is an
/// error. Dropped before its end, the call is cancelled at the server. Besides [`next`](Self::next) it is a [`Stream`].
///
/// ```no_run
/// use futures_util::TryStreamExt as _;
/// use llm_engine_client::{Call, Client};
///
/// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
/// let body = r#"{"model": "m", "prompt": "Hello", "stream": true}"#;
/// let events = client.stream(Call::post("/v1/completions", body).model("m")).await?;
/// println!("{:?} at attempt {}", events.request_id(), events.attempts());
/// let all: Vec<_> = events.try_collect().await?;
/// println!("{} events", all.len());
/// # Ok(())
/// # }
/// ```
pub struct EventStream {
    events: Events,
    headers: HeaderMap,
    attempts: u32,
    handed_out: u64,
    /// `None` when it has ended.
    run: Option<Run>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// A stream whose first text is there.
pub(crate) struct Opened {
    events: Events,
    headers: HeaderMap,
}

/// Events as they arrive.
struct Events {
    base: String,
    body: BodyDataStream<Body>,
    decoder: Decoder,
    /// Arrived and not yet handed out.
    ready: VecDeque<Bytes>,
    has_text: bool,
    is_whole: bool,
    failed: Option<Failed>,
}

/// So many events without text are not held back in the hope of one with text.
const MOST_HELD_BACK: usize = 1000;

impl Read for Opened {
    type Output = Self;

    const ACCEPT: &'static str = "text/event-stream";

    async fn read(response: Response, base: &str) -> Result<Self, Failed> {
        let (parts, body) = http::Response::from(response).into_parts();
        let content_type = parts.headers.get(CONTENT_TYPE);
        if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json")) {
            return Err(Failed::unexpected(
                "the answer is whole: the request has to ask for a stream",
            ));
        }
        let mut events = Events {
            base: base.to_owned(),
            body: BodyDataStream::new(body),
            decoder: Decoder::default(),
            ready: VecDeque::new(),
            has_text: false,
            is_whole: false,
            failed: None,
        };
        while !events.has_text && !events.is_whole && events.failed.is_none() {
            poll_fn(|cx| events.poll_more(cx)).await;
        }
        // Nothing has been handed out, so even what came before it in the same piece can come again.
        match events.failed.take() {
            Some(failed) => Err(failed),
            None => Ok(Self {
                events,
                headers: parts.headers,
            }),
        }
    }
}

impl Events {
    /// Reads one more piece.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(Pin::new(&mut self.body).poll_next(cx)) {
            Some(Ok(bytes)) => {
                self.decoder.push(&bytes);
                self.decode();
            }
            Some(Err(error)) => self.failed = Some(Failed::connection(error, &self.base)),
            None if self.has_text => self.failed = Some(Failed::without_end()),
            None => self.failed = Some(Failed::ended_early()),
        }
        Poll::Ready(())
    }

    fn decode(&mut self) {
        while !self.is_whole && self.failed.is_none() {
            let event = match self.decoder.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    self.failed = Some(Failed::unexpected(error.to_string()));
                    return;
                }
            };
            match Meaning::of(&event) {
                Meaning::Empty => self.has_text |= self.ready.len() >= MOST_HELD_BACK,
                Meaning::Text => self.has_text = true,
                Meaning::Last => self.is_whole = true,
                Meaning::Done => {
                    self.is_whole = true;
                    return;
                }
                Meaning::Failure(failed) => {
                    self.failed = Some(*failed);
                    return;
                }
            }
            self.ready.push_back(event.into());
        }
    }
}

impl EventStream {
    pub(crate) fn new(opened: Opened, run: Run) -> Self {
        Self {
            events: opened.events,
            headers: opened.headers,
            attempts: run.attempt_number(),
            handed_out: 0,
            deadline: run.deadline().map(|deadline| Box::pin(sleep_until(deadline))),
            run: Some(run),
        }
    }

    /// The data of the next event; `None` after the last one.
    ///
    /// # Errors
    /// [`Error`], once, if there is no more although the answer is not whole.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The data of the next event if it has arrived already, without waiting or looking for it.
    ///
    /// For who hands on several at once, at little cost:
    ///
    /// ```no_run
    /// # async fn example(mut events: llm_engine_client::EventStream) -> Result<(), llm_engine_client::Error> {
    /// while let Some(first) = events.next().await {
    ///     let mut together = vec![first?];
    ///     while let Some(event) = events.next_ready() {
    ///         together.push(event);
    ///     }
    ///     println!("{} events at once", together.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_ready(&mut self) -> Option<Bytes> {
        let event = self.events.ready.pop_front();
        self.handed_out += u64::from(event.is_some());
        event
    }

    /// What the server calls the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        request_id(&self.headers)
    }

    /// The headers of the answer.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How many attempts were made, at least 1.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    fn break_off(&mut self, failed: Failed) -> Option<Result<Bytes, Error>> {
        let run = self.run.take()?;
        Some(Err(run.break_off(failed.broken_off(self.handed_out))))
    }
}

impl Stream for EventStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        loop {
            if let Some(event) = stream.events.ready.pop_front() {
                stream.handed_out += 1;
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(run) = &stream.run else {
                return Poll::Ready(None);
            };
            if let Some(failed) = stream.events.failed.take() {
                return Poll::Ready(stream.break_off(failed));
            }
            if stream.events.is_whole {
                if let Some(run) = stream.run.take() {
                    run.finish();
                }
                // Usually the end of the body is there as well; once it is read, the connection can be used again.
                let _ = Pin::new(&mut stream.events.body).poll_next(cx);
                return Poll::Ready(None);
            }
            if stream.events.poll_more(cx).is_pending() {
                let deadline = stream.deadline.as_mut();
                if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
                    let failed = Failed::deadline(run.timeout());
                    return Poll::Ready(stream.break_off(failed));
                }
                return Poll::Pending;
            }
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("request_id", &self.request_id())
            .field("attempts", &self.attempts)
            .field("handed_out", &self.handed_out)
            .finish_non_exhaustive()
    }
}
