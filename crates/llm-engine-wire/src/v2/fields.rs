//! The fields of either route, in the order in which the public servers look at them and list their problems.

use super::field::{Field, Form};
use crate::openai::Kind;
use crate::validation::Bound;

const FROM_MINUS_1: &[Bound] = &[Bound::AtLeast(-1.0)];
const FROM_0: &[Bound] = &[Bound::AtLeast(0.0)];
const FROM_0_TO_1: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(1.0)];
const FROM_0_TO_2: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(2.0)];
const FROM_0_TO_5: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(5.0)];
const FROM_0_TO_20: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(20.0)];
const FROM_1_TO_128: &[Bound] = &[Bound::AtLeast(1.0), Bound::AtMost(128.0)];
const PENALTY: &[Bound] = &[Bound::AtLeast(-2.0), Bound::AtMost(2.0)];

/// What a request of that route may hold, besides fields that pass through unread.
pub(super) fn of(kind: Kind) -> impl Iterator<Item = &'static Field> {
    let groups: &[&[Field]] = match kind {
        Kind::Chat => &[BEST_OF_CHAT, SAMPLING, TEMPLATE, GUIDED, CHAT],
        Kind::Completion => &[BEST_OF_COMPLETION, SAMPLING, GUIDED, COMPLETION],
        // There is no such route here.
        Kind::Embedding => &[],
    };
    groups.iter().copied().flatten()
}

const fn optional(name: &'static str, form: Form) -> Field {
    Field {
        name,
        is_required: false,
        form,
    }
}

const fn required(name: &'static str, form: Form) -> Field {
    Field {
        name,
        is_required: true,
        form,
    }
}

const BEST_OF_CHAT: &[Field] = &[optional("best_of", Form::Integer(&[]))];
const BEST_OF_COMPLETION: &[Field] = &[optional("best_of", Form::Integer(FROM_0_TO_20))];

/// What vLLM has beyond OpenAI's fields.
const SAMPLING: &[Field] = &[
    optional("top_k", Form::Integer(FROM_MINUS_1)),
    optional("min_p", Form::Number(&[])),
    optional("use_beam_search", Form::Boolean),
    optional("length_penalty", Form::Number(&[])),
    optional("repetition_penalty", Form::Number(&[])),
    optional("include_stop_str_in_output", Form::Boolean),
    optional("ignore_eos", Form::Boolean),
    optional("min_tokens", Form::Integer(&[])),
    optional("skip_special_tokens", Form::Boolean),
    optional("spaces_between_special_tokens", Form::Boolean),
    optional("add_special_tokens", Form::Boolean),
];

/// How vLLM turns messages into a prompt.
const TEMPLATE: &[Field] = &[
    optional("echo", Form::Boolean),
    optional("add_generation_prompt", Form::Boolean),
    optional("continue_final_message", Form::Boolean),
    optional("chat_template", Form::Text),
    optional("chat_template_kwargs", Form::Dictionary),
];

const GUIDED: &[Field] = &[
    optional("guided_json", Form::Dictionary),
    optional("guided_regex", Form::Text),
    optional("guided_choice", Form::Texts),
    optional("guided_grammar", Form::Text),
    optional("guided_decoding_backend", Form::Text),
    optional("guided_whitespace_pattern", Form::Text),
];

const CHAT: &[Field] = &[
    optional("temperature", Form::Number(FROM_0_TO_2)),
    optional("top_p", Form::Number(FROM_0_TO_1)),
    optional("user", Form::Text),
    required("messages", Form::Messages),
    required("model", Form::Text),
    optional("max_completion_tokens", Form::Integer(&[])),
    optional("frequency_penalty", Form::Number(PENALTY)),
    optional("presence_penalty", Form::Number(PENALTY)),
    optional("top_logprobs", Form::Integer(FROM_0_TO_20)),
    optional("stream", Form::Boolean),
    optional("stop", Form::Stop),
    optional("logit_bias", Form::Dictionary),
    optional("logprobs", Form::Boolean),
    optional("max_tokens", Form::Integer(&[])),
    optional("n", Form::Integer(FROM_1_TO_128)),
    optional("seed", Form::Integer(&[])),
    optional("stream_options", Form::StreamOptions),
];

const COMPLETION: &[Field] = &[
    required("model", Form::Text),
    required("prompt", Form::Prompt),
    optional("echo", Form::Boolean),
    optional("frequency_penalty", Form::Number(PENALTY)),
    optional("logit_bias", Form::Dictionary),
    optional("logprobs", Form::Integer(FROM_0_TO_5)),
    optional("max_tokens", Form::Integer(FROM_0)),
    optional("n", Form::Integer(FROM_1_TO_128)),
    optional("presence_penalty", Form::Number(PENALTY)),
    optional("seed", Form::Integer(&[])),
    optional("stop", Form::Stop),
    optional("stream", Form::Boolean),
    optional("stream_options", Form::StreamOptions),
    optional("suffix", Form::Text),
    optional("temperature", Form::Number(FROM_0_TO_2)),
    optional("top_p", Form::Number(FROM_0_TO_1)),
    optional("user", Form::Text),
];
