//! The messages of a chat, as far as a text model can read them.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// One message of a chat, reduced to text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// `system`, `user` or `assistant`: others would reach the prompt unchecked through the chat template.
    pub(crate) role: &'static str,
    pub(crate) content: String,
}

/// Reads the messages of a chat.
///
/// # Errors
/// A 400 that names the message: its role or its content is not one that a text model has.
pub(crate) fn read(messages: &Value) -> Result<Vec<Line>, Refusal> {
    match messages {
        Value::Array(messages) if !messages.is_empty() => messages
            .iter()
            .enumerate()
            .map(|(index, message)| read_one(index, message))
            .collect(),
        _ => Err(Refusal::invalid(
            "messages",
            "'messages' must be a list of at least one message",
        )),
    }
}

fn read_one(index: usize, message: &Value) -> Result<Line, Refusal> {
    let place = format!("messages[{index}]");
    let Value::Object(fields) = message else {
        return Err(Refusal::invalid(
            "messages",
            format!("'{place}' must be an object"),
        ));
    };
    let role = match fields.get("role").and_then(Value::as_str) {
        Some("user") => "user",
        Some("assistant") => "assistant",
        // OpenAI's newer name; chat templates know the older one.
        Some("system" | "developer") => "system",
        Some(role) => {
            return Err(Refusal::unsupported(
                "messages",
                &format!("the role '{role}' of '{place}'"),
            ));
        }
        None => {
            return Err(Refusal::invalid(
                "messages",
                format!("'{place}.role' must be a text"),
            ));
        }
    };
    refuse_other_fields(&place, fields)?;
    let content = fields.get("content").unwrap_or(&Value::Null);
    Ok(Line {
        role,
        content: read_content(&place, content)?,
    })
}

/// A field such as `tool_calls` is part of what was said, so it can't be passed over. A `name` can: templates that
/// have no use for it do so too.
fn refuse_other_fields(place: &str, fields: &Map<String, Value>) -> Result<(), Refusal> {
    let read = ["role", "content", "name"];
    let other = fields
        .iter()
        .find(|(name, value)| !read.contains(&name.as_str()) && !value.is_null());
    match other {
        Some((name, _)) => Err(Refusal::unsupported("messages", &format!("'{place}.{name}'"))),
        None => Ok(()),
    }
}

fn read_content(place: &str, content: &Value) -> Result<String, Refusal> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .map(|(index, part)| read_part(place, index, part))
            .collect(),
        _ => Err(Refusal::invalid(
            "messages",
            format!("'{place}.content' must be a text or a list of text parts"),
        )),
    }
}

fn read_part<'a>(place: &str, index: usize, part: &'a Value) -> Result<&'a str, Refusal> {
    let place = format!("{place}.content[{index}]");
    match part.get("type").and_then(Value::as_str) {
        Some("text") => part
            .get("text")
            .and_then(Value::as_str)
            .ok_or_else(|| Refusal::invalid("messages", format!("'{place}.text' must be a text"))),
        Some(kind) => Err(Refusal::unsupported(
            "messages",
            &format!("the part '{kind}' of '{place}'"),
        )),
        None => Err(Refusal::invalid(
            "messages",
            format!("'{place}.type' must be a text"),
        )),
    }
}

#[cfg(test)]
mod tests;
