//! From a form to a grammar of `llguidance`.

use std::fmt::Write as _;

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::form::Rule;
use super::{gbnf, schema};

/// The grammar of a form, not compiled yet.
///
/// # Errors
/// What is wrong with it, for the caller.
pub(super) fn grammar(rule: &Rule) -> Result<TopLevelGrammar, String> {
    match rule {
        Rule::Choice(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
            Ok(TopLevelGrammar::from_regex(&texts.join("|")))
        }
        Rule::Regex(regex) => Ok(TopLevelGrammar::from_regex(regex)),
        Rule::Json(schema) => json_schema(schema),
        Rule::Grammar(grammar) if grammar.contains("::=") => {
            Ok(TopLevelGrammar::from_lark(gbnf::to_lark(grammar)?))
        }
        // Its schemas would escape our bounds.
        Rule::Grammar(grammar) if grammar.contains("%json") => {
            Err("'%json' is not supported in a grammar; use 'guided_json'".to_owned())
        }
        Rule::Grammar(grammar) => Ok(TopLevelGrammar::from_lark(grammar.clone())),
    }
}

fn json_schema(schema: &str) -> Result<TopLevelGrammar, String> {
    let mut schema: Value =
        serde_json::from_str(schema).map_err(|error| format!("it is not JSON: {error}"))?;
    schema::check(&schema)?;
    if let Some(fields) = schema.as_object_mut() {
        if fields.contains_key("x-guidance") {
            return Err("'x-guidance' is not supported".to_owned());
        }
        // One line, with or without a space after comma and colon. With white space at will a small model may go on
        // with it until its maximum of tokens is used up.
        let options =
            json!({"whitespace_flexible": false, "item_separator": ",[ ]?", "key_separator": ":[ ]?"});
        fields.insert("x-guidance".to_owned(), options);
    }
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// A regular expression for nothing but this text.
pub(super) fn literal(text: &str) -> String {
    let mut regex = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            regex.push(character);
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(regex, "\\x{{{:X}}}", u32::from(character));
        }
    }
    regex
}
