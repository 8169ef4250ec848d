//! What the limiter promises, tested from the outside: through its public interface, in fake time, against oracles that
//! are written in other terms than the limiter itself.

mod against_governor;
mod bound;
mod clock;
mod concurrency;
mod examples;
mod extremes;
mod ledger;
mod levels;
mod model;
mod never_fits;
mod oracle;
mod partition;
mod refund;
mod refusal;
mod replay;
mod shapes;
mod trace;
mod wait;
