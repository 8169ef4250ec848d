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
        Value::Number(number) => number.as_f64().and_then(|number| match number {
            0.0 => Some(false),
            1.0 => Some(true),
            _ => None,
        }),
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
            Value::Number(number) => integer_from_number(number, value)?,
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
            Value::String(text) => text.trim().parse().map_err(|_| {
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

fn integer_from_number(number: &serde_json::Number, value: &Value) -> Result<i64, Vec<Problem>> {
    if let Some(integer) = number.as_i64() {
        return Ok(integer);
    }
    if number.as_u64().is_some() {
        return Ok(i64::MAX);
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    if float.fract() == 0.0 {
        return Ok(whole(float));
    }
    let message = "Input should be a valid integer, got a number with a fractional part";
    Err(vec![problem("int_from_float", message, value)])
}

/// Python's reading of an integer with optional zeros for a fraction: `"7"`, `" 7 "`, `"7.0"`.
fn integer_from_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => digits,
        Some(_) => return None,
        None => text,
    };
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let beyond = if digits.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    Some(digits.parse().unwrap_or(beyond))
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
    for bound in bounds {
        let (holds, kind, words, key, limit) = match *bound {
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
