//! For tests: inputs for parsers, of which most begin as good ones and are then spoilt, so that they get past the first
//! check. Random numbers and a coverage-guided fuzzer can both make them.

mod input;

pub use input::Input;
