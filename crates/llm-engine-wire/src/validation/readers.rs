//! One reader per type; each accepts what pydantic's lax mode accepts. The `loc` of their problems is relative to the
//! field.

use serde_json::{Map, Value, json};

use super::{Loc, Problem};

/// A bound on a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At least this.
    AtLeast(f64),
    /// More than this.
    Above(f64),
    /// At most this.
    AtMost(f64),
}

/// A text.
///
/// # Errors
/// Anything else is a problem.
pub fn string(value: &Value) -> Result<String, Vec<Problem>> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(vec![problem(
            "string_type",
            "Input should be a valid string",
            value,
        )]),
    }
}

/// A list of texts.
///
/// # Errors
/// Anything that is not a list is a problem, and each element that is not a text.
pub fn strings(value: &Value) -> Result<Vec<String>, Vec<Problem>> {
    let Value::Array(elements) = value else {
        return Err(vec![problem("list_type", "Input should be a valid list", value)]);
    };
    let mut texts = Vec::with_capacity(elements.len());
    let mut problems = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        match string(element) {
            Ok(text) => texts.push(text),
            Err(found) => problems.extend(found.into_iter().map(|mut problem| {
                problem.loc.insert(0, Loc::Index(index));
                problem
            })),
        }
    }
    if problems.is_empty() {
        Ok(texts)
    } else {
        Err(problems)
    }
}

/// An object.
///
/// # Errors
/// Anything else is a problem.
pub fn dictionary(value: &Value) -> Result<Map<String, Value>, Vec<Problem>> {
    match value {
        Value::Object(fields) => Ok(fields.clone()),
        _ => Err(vec![problem(
            "dict_type",
            "Input should be a valid dictionary",
            value,
        )]),
    }
}

/// True or false, also as a word or as 0 and 1.
///
/// # Errors
/// Anything else is a problem.
pub fn boolean(value: &Value) -> Result<bool, Vec<Problem>> {
    let unreadable = "Input should be a valid boolean, unable to interpret input";
    let read = match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match integer_from_number(number) {
            Some(0) => Some(false),
            Some(1) => Some(true),
            Some(_) => None,
            None => {
                return Err(vec![problem(
                    "bool_type",
                    "Input should be a valid boolean",
                    value,
                )]);
            }
        },
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" | "t" | "y" => Some(true),
            "false" | "0" | "no" | "off" | "f" | "n" => Some(false),
            _ => None,
        },
        _ => {
            return Err(vec![problem(
                "bool_type",
                "Input should be a valid boolean",
                value,
            )]);
        }
    };
    read.ok_or_else(|| vec![problem("bool_parsing", unreadable, value)])
}

/// A whole number, also as text, as a number without fraction, or as true and false. What is beyond 64 bits saturates.
///
/// # Errors
/// Anything else is a problem, and a number outside the bounds.
pub fn integer(bounds: &'static [Bound]) -> impl Fn(&Value) -> Result<i64, Vec<Problem>> {
    move |value| {
        let read = match value {
            Value::Bool(value) => i64::from(*value),
            Value::Number(number) => match (integer_from_number(number), number.as_u64()) {
                (Some(integer), _) => integer,
                (None, Some(_)) => i64::MAX,
                (None, None) if number.as_f64().is_some_and(|float| float.fract() == 0.0) => {
                    let message = "Unable to parse input string as an integer, exceeded maximum size";
                    return Err(vec![problem("int_parsing_size", message, value)]);
                }
                (None, None) => {
                    let message = "Input should be a valid integer, got a number with a fractional part";
                    return Err(vec![problem("int_from_float", message, value)]);
                }
            },
            Value::String(text) => integer_from_text(text).ok_or_else(|| {
                let message = "Input should be a valid integer, unable to parse string as an integer";
                vec![problem("int_parsing", message, value)]
            })?,
            _ => {
                return Err(vec![problem(
                    "int_type",
                    "Input should be a valid integer",
                    value,
                )]);
            }
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "the bounds are small; a large number stays large"
        )]
        check_bounds(read as f64, bounds, value, |bound| json!(whole(bound)))?;
        Ok(read)
    }
}

/// A number, also as text or as true and false.
///
/// # Errors
/// Anything else is a problem, and a number outside the bounds.
pub fn number(bounds: &'static [Bound]) -> impl Fn(&Value) -> Result<f64, Vec<Problem>> {
    move |value| {
        let read = match value {
            Value::Bool(value) => f64::from(u8::from(*value)),
            Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
            Value::String(text) => number_from_text(text).ok_or_else(|| {
                let message = "Input should be a valid number, unable to parse string as a number";
                vec![problem("float_parsing", message, value)]
            })?,
            _ => {
                return Err(vec![problem(
                    "float_type",
                    "Input should be a valid number",
                    value,
                )]);
            }
        };
        check_bounds(read, bounds, value, |bound| json!(bound))?;
        Ok(read)
    }
}

/// A number without fraction, if 64 bits hold it.
fn integer_from_number(number: &serde_json::Number) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if number.is_u64() || number.is_i64() {
        return number.as_i64();
    }
    let float = number.as_f64()?;
    (float.fract() == 0.0 && (-BEYOND..BEYOND).contains(&float)).then(|| whole(float))
}

/// Pydantic's reading of a number: spaces around it, or underscores between its digits, but not both.
fn number_from_text(text: &str) -> Option<f64> {
    let grouped = |text: &str| {
        let misplaced = text.starts_with('_') || text.ends_with('_') || text.contains("__");
        if misplaced {
            None
        } else {
            text.replace('_', "").parse().ok()
        }
    };
    text.trim().parse().ok().or_else(|| grouped(text))
}

/// Python's reading of an integer with optional zeros for a fraction: `"7"`, `" 7 "`, `"1_000"`, `"7.0"`.
fn integer_from_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => digits,
        Some(_) => return None,
        None => text,
    };
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let digit_group = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    if !unsigned.split('_').all(digit_group) {
        return None;
    }
    let beyond = if digits.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    Some(digits.replace('_', "").parse().unwrap_or(beyond))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "saturating at 64 bits is what is wanted"
)]
fn whole(number: f64) -> i64 {
    number as i64
}

fn check_bounds(
    number: f64,
    bounds: &[Bound],
    value: &Value,
    shown: impl Fn(f64) -> Value,
) -> Result<(), Vec<Problem>> {
    // The upper ones first: only of what is no number is more than one passed.
    let (upper, lower): (Vec<Bound>, Vec<Bound>) =
        bounds.iter().partition(|bound| matches!(bound, Bound::AtMost(_)));
    for bound in upper.into_iter().chain(lower) {
        let (holds, kind, words, key, limit) = match bound {
            Bound::AtLeast(limit) => (
                number >= limit,
                "greater_than_equal",
                "greater than or equal to",
                "ge",
                limit,
            ),
            Bound::Above(limit) => (number > limit, "greater_than", "greater than", "gt", limit),
            Bound::AtMost(limit) => (
                number <= limit,
                "less_than_equal",
                "less than or equal to",
                "le",
                limit,
            ),
        };
        if !holds {
            return Err(vec![Problem {
                ctx: Some(json!({ key: shown(limit) })),
                ..problem(kind, &format!("Input should be {words} {limit}"), value)
            }]);
        }
    }
    Ok(())
}

fn problem(kind: &'static str, msg: &str, input: &Value) -> Problem {
    Problem {
        kind,
        loc: Vec::new(),
        msg: msg.to_owned(),
        input: input.clone(),
        ctx: None,
    }
}
