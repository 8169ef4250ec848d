//! The rules of this repository. A failure names the file, the rule, and what to do.

mod edges;
mod layout;
mod licences;
mod workspace;
