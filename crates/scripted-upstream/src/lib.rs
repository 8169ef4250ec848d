//! For tests: an OpenAI-compatible upstream that does what a test tells it.
//!
//! It is a real HTTP server on a loopback port that the system chose. Each request that arrives becomes an [`Exchange`],
//! which the test answers as it likes: whole, as a stream piece by piece, badly, or not at all.
//!
//! Beside it there is a [`Collector`] of traces, of which the test sees what it is sent.
//!
//! [`freeze`] stops tokio's clock, so that time only passes when a test says so, also while sockets are waited for.

mod clock;
mod collector;
mod exchange;
mod upstream;

pub use clock::{Frozen, freeze, stay_frozen};
pub use collector::{Collector, Export, Span};
pub use exchange::{EventStream, Exchange};
pub use upstream::Upstream;

/// A certificate for `localhost` and `127.0.0.1` that signs itself, in PEM. Its key is no secret: it is for tests only.
pub const CERTIFICATE: &str = include_str!("../tls/certificate.pem");
/// The key of [`CERTIFICATE`], in PEM.
pub const KEY: &str = include_str!("../tls/key.pem");
