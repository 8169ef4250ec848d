//! Whether and when another attempt is made: retries for any work that can fail, not only for calls of LLM Engine.
//!
//! - [`Retry`] is a policy: a [`Backoff`], a [`Stop`], what to make of hints; [`Retry::call`] runs it
//! - [`Attempts`] is one call under it, for those who run it themselves: an async client, say
//! - [`Judgement`] says what a failure means; [`Hint`] when to come back, in every form in which servers say it
//! - [`Budget`] bounds the retries of all calls together, so that an outage is not made worse
//! - [`Gate`] lets all calls to one server leave at the pace that it can take
//! - [`VirtualClock`] lets tests of your own code wait for hours within microseconds
//!
//! Nothing here sleeps, reads a clock or draws a random number: time is an argument, a [`Duration`](std::time::Duration) since any
//! moment that the caller chooses, and so is randomness. [`coming_from`] shows what takes the place of which part of `tenacity` and
//! `backoff`.

#![warn(missing_docs)]

mod attempts;
mod backoff;
mod budget;
mod clock;
pub mod coming_from;
mod gate;
mod hint;
mod jitter;
mod judgement;
mod limits;
mod retry;
mod stop;

pub use attempts::{Attempt, Attempts, Next};
pub use backoff::{Backoff, Waits};
pub use budget::Budget;
pub use clock::{Clock, VirtualClock};
pub use gate::{Departure, Gate, Leave};
pub use hint::Hint;
pub use jitter::Jitter;
pub use judgement::{Failure, Judgement};
pub use limits::Limits;
pub use retry::{GaveUp, Reason, Retry};
pub use stop::{Progress, Stop};
