//! Answers that must have a form: one of some texts, a regular expression, a JSON schema, a grammar.
//!
//! A form is read from the request ([`Form`]), becomes a grammar of `llguidance`, is compiled on a thread of its own
//! ([`Compiler`]), and then says before each token which tokens may follow ([`Guide`]). It is obeyed, or the request is
//! refused with 400 and the reason. What a caller sends is bounded before it is compiled, compiling is bounded by
//! `llguidance`'s own limits, and none of it reaches llama.cpp.

mod compiler;
mod form;
mod gbnf;
mod grammar;
mod guide;
mod schema;

pub(crate) use compiler::Compiler;
pub(crate) use form::Form;
pub(crate) use guide::Guide;
