//! For tests: an OpenAI-compatible upstream that does what a test tells it.
//!
//! It is a real HTTP server on a loopback port that the system chose. Each request that arrives becomes an [`Exchange`],
//! which the test answers as it likes: whole, as a stream piece by piece, badly, or not at all.
//!
//! [`freeze`] stops tokio's clock, so that time only passes when a test says so, also while sockets are waited for.

mod clock;
mod exchange;
mod upstream;

pub use clock::{Frozen, freeze, stay_frozen};
pub use exchange::{EventStream, Exchange};
pub use upstream::Upstream;
