#![expect(clippy::unwrap_used, reason = "in a test")]

mod attempts;
mod crowd;
mod hints;
mod one_process;
