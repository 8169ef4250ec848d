//! How much the models can take now, and whose turn it is.
//!
//! An [`Admission`] stands in front of one pool of models. Each request that [arrives](Admission::arrive) gets a [`Place`] among
//! those that run, or waits in the queue for its [`Turn`], or is told when to come back ([`Saturated`]). What it is made of:
//!
//! - a **limit** on the tokens of the requests in flight, which follows what the models can take: they are full when first tokens
//!   are later than they are when a model is not busy, which is learned for each deployment by the length of prompts;
//! - a **fair queue**: the caller's turn that has been served least;
//! - **refusal by time**: at once, if the wait would be too long, instead of after it;
//! - **promises**: a refused request that comes again at the time that it was told comes before others.
//!
//! Time is an argument, and nothing here does I/O, blocks, or draws randomness. All operations take logarithmic time in what is
//! queued and what runs. An `Admission` is a plain value; who shares it between threads puts it behind a lock, and asks it for
//! [turns](Admission::turn) after each call.

#![warn(missing_docs)]

mod admission;
mod arrival;
mod average;
mod awaited;
mod backlog;
mod drain;
mod law;
mod promises;
mod queue;
mod request;
mod unloaded;

#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmissionSetup};
pub use arrival::{Arrival, Place, Queued, Standing, Turn};
pub use law::Limit;
pub use request::{Class, Reason, Request, Saturated};
