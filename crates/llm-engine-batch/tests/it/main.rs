//! What a run does, by a clock that only the tests move, and a server that does as they say.

mod budgets;
mod crashes;
mod harness;
mod inputs;
mod outages;
mod outputs;
mod rows;
