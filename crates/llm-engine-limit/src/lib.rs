//! May this work start now under these quotas, and what did it really cost?
//!
//! A [`Limiter`] holds [`Policy`]s, each a named set of [`Quota`]s and what it is counted per. [`Limiter::admit`] decides
//! about every bucket that a request touches at one instant, all or nothing, and reserves the request's upper bound;
//! [`Limiter::settle`] replaces the bound by what was really used.
//!
//! What holds, exactly:
//!
//! - **Never over.** The settled usage of the requests admitted in any interval `w` is at most `burst + rate · w`, plus
//!   the overrun of requests that used more than they had reserved. With `burst = limit` a window can therefore hold
//!   almost `2 · limit`: a full bucket is spent at once and refills meanwhile. Where times are booked
//!   ([`Limiter::admit_or_book`]) whoever comes late for its time finds what refills in 3 s on top. [`Quota::strict`] makes
//!   `limit` the bound of every window. Here `w` counts in the quota's own ticks ([`Quota::tick`]); in raw time the bound
//!   can be exceeded by what refills in one tick. A strict bound holds in raw time.
//! - **Never false.** With nothing else happening on its quotas, a refused request is refused at every instant before
//!   its [`NotNow::wait`] is over, and admitted at it. (The wait for a running request to end is an estimate, and says so.)
//! - **A refusal changes nothing.** Not the level of any bucket, nor what is running.
//! - **Never is not "not now".** A cost above a quota's burst is [`Refusal::NeverFits`]: no wait would help.
//! - **A refund mints nothing.** Every admitted history, replayed at its true costs, is admissible (see `open.rs`).
//!
//! Time is an argument ([`Time`]), integer arithmetic is exact, and nothing here does I/O, blocks, or draws randomness:
//! the same code runs in production, in property tests and in simulations. A `Limiter` is a plain value; who shares it
//! between threads puts it behind a lock.

mod admitted;
mod bookings;
mod bucket;
mod buckets;
mod budget;
mod calendar;
mod claims;
mod cost;
mod counts;
mod index;
mod limiter;
mod meter;
mod name;
mod open;
mod opens;
mod partition;
mod policy;
mod policy_group;
mod quota;
mod running;
mod saved;
mod schedule;
mod time;
mod verdict;

pub use bookings::{Booking, Bookings, Fingerprint, GRACE, HORIZON, Turn};
pub use budget::Budget;
pub use calendar::{Calendar, Period};
pub use cost::{Cost, Unit};
pub use counts::Counts;
pub use limiter::{Limiter, LimiterOptions, Reservation};
pub use name::Name;
pub use policy::{Match, Mode, Per, Policy, Subject, User};
pub use quota::{Quota, QuotaError};
pub use saved::{Saved, SavedLevel};
pub use time::Time;
pub use verdict::{Counted, Level, NeverFits, NotNow, Refusal, Refused};
