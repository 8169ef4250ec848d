//! The rules of this repository that a compiler doesn't check. They are tests, in `tests/it`, so that they are run and
//! read where all others are; there is nothing here to use.
