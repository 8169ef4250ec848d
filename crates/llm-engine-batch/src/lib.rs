//! Many rows through one `send`, each exactly once, whatever happens.
//!
//! - [`Input`] reads the rows: JSON lines or CSV, any number of them in constant memory
//! - [`Work`] is what is done with a row: whatever has it answered
//! - [`Journal`] is the file that says what was begun and what came of it. A run that was interrupted, in whatever way, is gone on with
//!   from there
//! - [`open`] finds the journal of the run that an output belongs to, or begins one
//! - [`run`] does what is left
//! - [`Journal::write_output`] writes the output when all rows have ended, whole or not at all
//!
//! Rows are sent again when they fail, but what befalls all of them, such as a server that is down, uses up nobody's attempts.
//! How fast rows are sent is not decided here but by who sends: it waits where it is told to.

#![warn(missing_docs)]

mod bits;
mod form;
mod input;
mod journal;
mod lane;
mod models;
mod open;
mod outcome;
mod output;
mod row;
mod runner;
mod tally;
mod work;

pub use form::Form;
pub use input::{Format, Input, Reader, Survey, SurveyError};
pub use journal::{Header, Journal, JournalError};
pub use open::{OpenError, open};
pub use outcome::{Answer, Consequence, Failed, Outcome, RowError, Usage};
pub use output::{Order, journal_of};
pub use row::{BadRow, Row};
pub use runner::{End, RunError, Wish, run};
pub use tally::Tally;
pub use work::{Most, Request, Settings, Work};
