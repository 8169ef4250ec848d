//! What the limiter promises, tested from the outside: through its public interface, in fake time, against oracles that
//! are written in other terms than the limiter itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod against_governor;
mod any_bookings;
mod bookings;
mod bookings_and_others;
mod bookings_of_many;
mod bound;
mod budgets;
mod claims;
mod clients;
mod clock;
mod concurrency;
mod eviction;
mod examples;
mod extremes;
mod fuzz;
mod interleavings;
mod ledger;
mod levels;
mod model;
mod never_fits;
mod observe;
mod oracle;
mod partition;
mod refund;
mod refusal;
mod reload;
mod replay;
mod saved;
mod shapes;
mod trace;
mod turns;
mod wait;
