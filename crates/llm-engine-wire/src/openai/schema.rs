use serde_json::Value;

use super::Kind;
use crate::validation::{Bound, Field, Form, body_schema};

const FROM_1: &[Bound] = &[Bound::AtLeast(1.0)];
const FROM_MINUS_1: &[Bound] = &[Bound::AtLeast(-1.0)];
const FROM_0_TO_2: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(2.0)];
const ABOVE_0_TO_1: &[Bound] = &[Bound::Above(0.0), Bound::AtMost(1.0)];
const FROM_1_TO_128: &[Bound] = &[Bound::AtLeast(1.0), Bound::AtMost(128.0)];
const PENALTY: &[Bound] = &[Bound::AtLeast(-2.0), Bound::AtMost(2.0)];

const MODEL: Field = Field::required("model", Form::Text);

const CHAT: &[Field] = &[
    MODEL,
    Field::required("messages", Form::Messages),
    Field::optional("max_completion_tokens", Form::Integer(FROM_1)),
];

const COMPLETION: &[Field] = &[MODEL, Field::required("prompt", Form::Prompt)];

const EMBEDDING: &[Field] = &[MODEL, Field::required("input", Form::Prompt)];

const GENERATING: &[Field] = &[
    Field::optional("max_tokens", Form::Integer(FROM_1)),
    Field::optional("temperature", Form::Number(FROM_0_TO_2)),
    Field::optional("top_p", Form::Number(ABOVE_0_TO_1)),
    Field::optional("top_k", Form::Integer(FROM_MINUS_1)),
    Field::optional("presence_penalty", Form::Number(PENALTY)),
    Field::optional("frequency_penalty", Form::Number(PENALTY)),
    Field::optional("seed", Form::Integer(&[])),
    Field::optional("stop", Form::Stop),
    Field::optional("include_stop_str_in_output", Form::Boolean),
    Field::optional("n", Form::Integer(FROM_1_TO_128)),
    Field::optional("stream", Form::Boolean),
    Field::optional("stream_options", Form::StreamOptions),
];

/// The JSON schema of a request of that route: the fields that [`super::Request::parse`] reads. Every other field goes to the
/// deployment unread.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    let groups: &[&[Field]] = match kind {
        Kind::Chat => &[CHAT, GENERATING],
        Kind::Completion => &[COMPLETION, GENERATING],
        Kind::Embedding => &[EMBEDDING],
    };
    let mut schema = body_schema(groups.iter().copied().flatten().copied());
    schema["properties"][MODEL.name]["minLength"] = 1.into();
    schema
}
