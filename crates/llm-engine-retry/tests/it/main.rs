#![expect(clippy::unwrap_used, reason = "in a test")]
#![expect(clippy::print_stdout, reason = "the figures of a simulation are worth seeing")]

mod any_gate;
mod attempts;
mod crowd;
mod fuzz;
mod hints;
mod one_process;
mod server;
