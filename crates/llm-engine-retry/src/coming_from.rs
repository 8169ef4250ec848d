//! What takes the place of which part of `tenacity` and `backoff`, the Python libraries that the guide's examples use.
//!
//! # Waits
//!
//! | there | here |
//! |---|---|
//! | `wait_none()` | `Backoff::constant(Duration::ZERO)` |
//! | `wait_fixed(3)`, `backoff.constant(3)` | `Backoff::constant(3 s)` |
//! | `wait_random(1, 3)` | `Backoff::random(1 s..=3 s)` |
//! | `wait_incrementing(1, 2, max=10)` | `Backoff::linear(1 s, 2 s).at_most(10 s)` |
//! | `wait_exponential(multiplier=1, min=2, max=60)` | `Backoff::exponential(1 s, 2.0).at_least(2 s).at_most(60 s)` |
//! | `wait_random_exponential(min=1, max=60)`, `wait_full_jitter` | the same, `.jitter(Jitter::Full)`; with 1 s to 60 s [`Backoff::published`](crate::Backoff::published) |
//! | `wait_exponential_jitter(max=60, jitter=1)` | `Backoff::exponential(1 s, 2.0).at_most(60 s).jitter(Jitter::Additive(1 s))` |
//! | `wait_chain(a, b, c)` | `Backoff::sequence([a, b, c])` |
//! | `wait_combine(a, b)`, `a + b` | `a + b` |
//! | `wait_exception(f)`, `backoff.runtime(value=f)` | [`Judgement::Hinted`](crate::Judgement::Hinted): the failure says when to come back |
//! | `backoff.expo(base=2, factor=1, max_value=60)` | `Backoff::exponential(1 s, 2.0).at_most(60 s)` |
//! | `backoff.fibo(max_value=60)` | `Backoff::fibonacci(1 s).at_most(60 s)` |
//! | `jitter=backoff.full_jitter` | `.jitter(Jitter::Full)` |
//! | `jitter=backoff.random_jitter` | `+ Backoff::random(0 s..=1 s)`. As `.jitter(Jitter::Additive(1 s))` it stays below the maximum, over which `backoff` goes |
//!
//! All have the same distribution as the original (a test compares 20,000 draws of each with the real libraries), with one difference on
//! purpose: the bounds hold after the jitter.
//!
//! # Stops
//!
//! | there | here |
//! |---|---|
//! | `stop_never` | `Stop::never()` |
//! | `stop_after_attempt(6)`, `max_tries=6` | `Stop::after_attempts(6)` |
//! | `stop_after_delay(60)` | `Stop::after(60 s)` |
//! | `stop_before_delay(60)` | `Stop::before(60 s)` |
//! | `max_time=60` | `Stop::after(60 s)`, with which `backoff` also shortens the last wait so as to end at 60 s: `Stop::before(60 s)` does not begin what can't be ended |
//! | `stop_when_event_set(event)` | `Stop::when_set(flag)` |
//! | `stop_any(a, b)`, `a \| b` | `a \| b` |
//! | `stop_all(a, b)`, `a & b` | `a & b` |
//!
//! # What is retried
//!
//! A predicate is a function from the error to a [`Failure`](crate::Failure), so whatever can be asked of an error can be asked. An
//! answer that is not good enough is returned as an error by the work itself.
//!
//! ```
//! use llm_engine_retry::{Backoff, Failure, Judgement, Retry, Stop, VirtualClock};
//! # use std::time::Duration;
//!
//! #[derive(Debug)]
//! enum Error {
//!     Io(std::io::Error),
//!     Empty,
//!     Wrong(String),
//! }
//!
//! let judge = |error: &Error| {
//!     let is_transient = match error {
//!         // retry_if_exception_type(ConnectionError), and its `cause`
//!         Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
//!         // retry_if_result(lambda answer: answer == ""), on_predicate
//!         Error::Empty => true,
//!         // retry_if_exception_message(match="busy"), retry_if_not_exception_message, giveup=
//!         Error::Wrong(message) => message.starts_with("busy"),
//!     };
//!     // retry_any is `||`, retry_all is `&&`, retry_unless_exception_type is `!`
//!     let judgement = if is_transient { Judgement::Transient } else { Judgement::Permanent };
//!     Failure { what: format!("{error:?}"), judgement }
//! };
//!
//! let retry = Retry::new(Backoff::published(), Stop::after_attempts(6));
//! let mut answers = vec![Err(Error::Wrong("busy".into())), Ok(""), Ok("hello")].into_iter();
//! let answer = retry.call(
//!     &mut VirtualClock::default(),
//!     || 0.5,
//!     |_| match answers.next().expect("there is one more") {
//!         Ok("") => Err(Error::Empty),
//!         answer => answer,
//!     },
//!     judge,
//! );
//! assert_eq!(answer.unwrap(), "hello");
//! ```
//!
//! # What happens besides
//!
//! | there | here |
//! |---|---|
//! | `RetryError.last_attempt`, `reraise=True` | [`GaveUp::last`](crate::GaveUp::last) |
//! | `retry.statistics` | [`GaveUp::attempts`](crate::GaveUp::attempts): of each attempt when, what, how long waited |
//! | `before_sleep`, `on_backoff` | the loop around [`Attempts`](crate::Attempts) is yours |
//! | `sleep=`, a patched `time.sleep` in tests | [`Clock`](crate::Clock), [`VirtualClock`](crate::VirtualClock) |
