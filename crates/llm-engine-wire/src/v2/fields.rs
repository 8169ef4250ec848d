//! The fields of either route, in the order in which the public servers look at them and list their problems.

use crate::openai::Kind;
use crate::validation::{Bound, Field, Form};

const FROM_MINUS_1: &[Bound] = &[Bound::AtLeast(-1.0)];
const FROM_0: &[Bound] = &[Bound::AtLeast(0.0)];
const FROM_0_TO_1: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(1.0)];
const FROM_0_TO_2: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(2.0)];
const FROM_0_TO_5: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(5.0)];
const FROM_0_TO_20: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(20.0)];
const FROM_1_TO_128: &[Bound] = &[Bound::AtLeast(1.0), Bound::AtMost(128.0)];
const PENALTY: &[Bound] = &[Bound::AtLeast(-2.0), Bound::AtMost(2.0)];

/// What a request of that route may hold, besides fields that pass through unread.
pub(super) fn of(kind: Kind) -> impl Iterator<Item = &'static Field> + Clone {
    let groups: &[&[Field]] = match kind {
        Kind::Chat => &[BEST_OF_CHAT, SAMPLING, TEMPLATE, GUIDED, CHAT],
        Kind::Completion => &[BEST_OF_COMPLETION, SAMPLING, GUIDED, COMPLETION],
        // There is no such route here.
        Kind::Embedding => &[],
    };
    groups.iter().copied().flatten()
}

const BEST_OF_CHAT: &[Field] = &[Field::optional("best_of", Form::Integer(&[]))];
const BEST_OF_COMPLETION: &[Field] = &[Field::optional("best_of", Form::Integer(FROM_0_TO_20))];

/// What vLLM has beyond OpenAI's fields.
const SAMPLING: &[Field] = &[
    Field::optional("top_k", Form::Integer(FROM_MINUS_1)),
    Field::optional("min_p", Form::Number(&[])),
    Field::optional("use_beam_search", Form::Boolean),
    Field::optional("length_penalty", Form::Number(&[])),
    Field::optional("repetition_penalty", Form::Number(&[])),
    Field::optional("include_stop_str_in_output", Form::Boolean),
    Field::optional("ignore_eos", Form::Boolean),
    Field::optional("min_tokens", Form::Integer(&[])),
    Field::optional("skip_special_tokens", Form::Boolean),
    Field::optional("spaces_between_special_tokens", Form::Boolean),
    Field::optional("add_special_tokens", Form::Boolean),
];

/// How vLLM turns messages into a prompt.
const TEMPLATE: &[Field] = &[
    Field::optional("echo", Form::Boolean),
    Field::optional("add_generation_prompt", Form::Boolean),
    Field::optional("continue_final_message", Form::Boolean),
    Field::optional("chat_template", Form::Text),
    Field::optional("chat_template_kwargs", Form::Dictionary),
];

const GUIDED: &[Field] = &[
    Field::optional("guided_json", Form::Dictionary),
    Field::optional("guided_regex", Form::Text),
    Field::optional("guided_choice", Form::Texts),
    Field::optional("guided_grammar", Form::Text),
    Field::optional("guided_decoding_backend", Form::Text),
    Field::optional("guided_whitespace_pattern", Form::Text),
];

const CHAT: &[Field] = &[
    Field::optional("temperature", Form::Number(FROM_0_TO_2)),
    Field::optional("top_p", Form::Number(FROM_0_TO_1)),
    Field::optional("user", Form::Text),
    Field::required("messages", Form::Messages),
    Field::required("model", Form::Text),
    Field::optional("max_completion_tokens", Form::Integer(&[])),
    Field::optional("frequency_penalty", Form::Number(PENALTY)),
    Field::optional("presence_penalty", Form::Number(PENALTY)),
    Field::optional("top_logprobs", Form::Integer(FROM_0_TO_20)),
    Field::optional("stream", Form::Boolean),
    Field::optional("stop", Form::Stop),
    Field::optional("logit_bias", Form::Dictionary),
    Field::optional("logprobs", Form::Boolean),
    Field::optional("max_tokens", Form::Integer(&[])),
    Field::optional("n", Form::Integer(FROM_1_TO_128)),
    Field::optional("seed", Form::Integer(&[])),
    Field::optional("stream_options", Form::StreamOptions),
];

const COMPLETION: &[Field] = &[
    Field::required("model", Form::Text),
    Field::required("prompt", Form::Prompt),
    Field::optional("echo", Form::Boolean),
    Field::optional("frequency_penalty", Form::Number(PENALTY)),
    Field::optional("logit_bias", Form::Dictionary),
    Field::optional("logprobs", Form::Integer(FROM_0_TO_5)),
    Field::optional("max_tokens", Form::Integer(FROM_0)),
    Field::optional("n", Form::Integer(FROM_1_TO_128)),
    Field::optional("presence_penalty", Form::Number(PENALTY)),
    Field::optional("seed", Form::Integer(&[])),
    Field::optional("stop", Form::Stop),
    Field::optional("stream", Form::Boolean),
    Field::optional("stream_options", Form::StreamOptions),
    Field::optional("suffix", Form::Text),
    Field::optional("temperature", Form::Number(FROM_0_TO_2)),
    Field::optional("top_p", Form::Number(FROM_0_TO_1)),
    Field::optional("user", Form::Text),
];
