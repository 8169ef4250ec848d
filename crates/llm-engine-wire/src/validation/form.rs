use serde_json::{Map, Value, json};

use super::{Bound, Loc, Problem, boolean, dictionary, integer, number, string, strings};

/// One field of a request.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there; else it may also be null.
    pub is_required: bool,
    /// What it may hold.
    pub form: Form,
}

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// True or false.
    Boolean,
    /// A whole number.
    Integer(&'static [Bound]),
    /// A number.
    Number(&'static [Bound]),
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// An object.
    Dictionary,
    /// One text, or a list of one to four.
    Stop,
    /// A text, or a list of whatever prompts can be.
    Prompt,
    /// At least one message with a role.
    Messages,
    /// What belongs to a stream.
    StreamOptions,
}

pub(super) const MOST_STOPS: usize = 4;

impl Field {
    /// A field that must be there.
    #[must_use]
    pub const fn required(name: &'static str, form: Form) -> Self {
        Self {
            name,
            is_required: true,
            form,
        }
    }

    /// A field that may be absent or null.
    #[must_use]
    pub const fn optional(name: &'static str, form: Form) -> Self {
        Self {
            name,
            is_required: false,
            form,
        }
    }
}

type Read = Result<Option<Value>, Vec<Problem>>;

impl Form {
    /// What the field means in plain OpenAI, `None` if that is what was sent.
    pub(crate) fn read(self, value: &Value) -> Read {
        match self {
            Self::Boolean => {
                let read = boolean(value)?;
                Ok((!value.is_boolean()).then(|| read.into()))
            }
            Self::Integer(bounds) => {
                let read = integer(bounds)(value)?;
                let is_plain = value.is_i64() || value.is_u64();
                Ok((!is_plain).then(|| read.into()))
            }
            Self::Number(bounds) => {
                let read = number(bounds)(value)?;
                Ok((!value.is_number()).then(|| read.into()))
            }
            Self::Text => string(value).map(|_| None),
            Self::Texts => strings(value).map(|_| None),
            Self::Dictionary => dictionary(value).map(|_| None),
            Self::Stop => stop(value),
            Self::Prompt => prompt(value),
            Self::Messages => messages(value),
            Self::StreamOptions => stream_options(value),
        }
    }
}

fn stop(value: &Value) -> Read {
    let Err(of_text) = string(value) else {
        return Ok(None);
    };
    let Err(of_list) = strings(value).and_then(|stops| has_items(stops.len(), Some(MOST_STOPS), value))
    else {
        return Ok(None);
    };
    Err(neither(of_text, (of_list, "StopConfiguration1")))
}

fn prompt(value: &Value) -> Read {
    if value.is_array() {
        return Ok(None);
    }
    let of_text = string(value).map(|_| None);
    let of_list = strings(value).err().unwrap_or_default();
    of_text.map_err(|of_text| neither(of_text, (of_list, "list[str]")))
}

/// What is neither a text nor a list has the problems of both; `name` is the public servers' of the list.
fn neither(of_text: Vec<Problem>, (of_list, name): (Vec<Problem>, &'static str)) -> Vec<Problem> {
    let of_text = placed(of_text, Loc::Name("str"));
    [of_text, placed(of_list, Loc::Name(name))].concat()
}

fn messages(value: &Value) -> Read {
    let Value::Array(messages) = value else {
        return Err(vec![problem("list_type", "Input should be a valid list", value)]);
    };
    has_items(messages.len(), None, value)?;
    let found = messages.iter().enumerate().filter_map(|(index, message)| {
        let problem = role_problem(message)?;
        Some(placed(vec![problem], Loc::Index(index)))
    });
    match found.flatten().collect::<Vec<_>>() {
        problems if problems.is_empty() => Ok(None),
        problems => Err(problems),
    }
}

/// What a message says is the model's business; whose it is, ours.
fn role_problem(message: &Value) -> Option<Problem> {
    let Some(fields) = message.as_object() else {
        return Some(no_object(message));
    };
    match fields.get("role") {
        None => Some(Problem::missing(vec![Loc::Name("role")], message.clone())),
        Some(role) => placed(string(role).err()?, Loc::Name("role")).pop(),
    }
}

fn stream_options(value: &Value) -> Read {
    let Some(options) = value.as_object() else {
        return Err(vec![no_object(value)]);
    };
    let mut plain = Map::new();
    for name in ["include_usage", "continuous_usage_stats"] {
        if let Some(option) = options.get(name).filter(|option| !option.is_null()) {
            let read = Form::Boolean.read(option);
            let read = read.map_err(|problems| placed(problems, Loc::Name(name)))?;
            plain.extend(read.map(|value| (name.to_owned(), value)));
        }
    }
    if plain.is_empty() {
        return Ok(None);
    }
    let mut options = options.clone();
    options.extend(plain);
    Ok(Some(options.into()))
}

/// At least one, and not more than `most`.
fn has_items(count: usize, most: Option<usize>, value: &Value) -> Result<(), Vec<Problem>> {
    let (kind, words, key, limit) = match most {
        _ if count == 0 => ("too_short", "at least 1 item".to_owned(), "min_length", 1),
        Some(most) if count > most => ("too_long", format!("at most {most} items"), "max_length", most),
        _ => return Ok(()),
    };
    Err(vec![Problem {
        ctx: Some(json!({ "field_type": "List", key: limit, "actual_length": count })),
        ..problem(
            kind,
            &format!("List should have {words} after validation, not {count}"),
            value,
        )
    }])
}

fn no_object(value: &Value) -> Problem {
    let message = "Input should be a valid dictionary or object to extract fields from";
    problem("model_attributes_type", message, value)
}

fn problem(kind: &'static str, message: &str, input: &Value) -> Problem {
    Problem {
        kind,
        loc: Vec::new(),
        msg: message.to_owned(),
        input: input.clone(),
        ctx: None,
    }
}

/// Says one step more of the way to the problems, before those that they have.
fn placed(mut problems: Vec<Problem>, place: Loc) -> Vec<Problem> {
    for problem in &mut problems {
        problem.loc.insert(0, place.clone());
    }
    problems
}
