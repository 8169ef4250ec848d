use llm_engine_limit::Cost;
use llm_engine_wire::object::Object;
use llm_engine_wire::openai::{Kind, Request};
use serde_json::Value;

use crate::{PriceSetup, Route};

/// The upper bound of what a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) cost: Cost,
    /// The most output tokens of each answer, to be sent to the deployment so that the bound holds.
    pub(crate) max_output_tokens: u64,
    /// Whether the request itself says so.
    pub(crate) is_named: bool,
}

/// Prices a request. With `count_exactly` the deployment is asked how long the prompt is, if it can tell; else that is
/// estimated. A request that names no maximum gets the route's default, or what fits behind its prompt if that is less.
/// `learns`: whether what is usually enough is its maximum then.
pub(crate) async fn price(
    route: &Route,
    request: &Request,
    count_exactly: bool,
    learns: impl Fn() -> bool,
) -> Price {
    let named = request.max_output_tokens();
    let prompt = match named {
        Some(_) if !count_exactly => None,
        _ => match route.deployments.first() {
            Some(deployment) => deployment.measure_prompt(request).await,
            None => None,
        },
    };
    let default = || {
        let most = match prompt {
            Some(prompt) => route.default_output_tokens.min(prompt.left).max(1),
            None => route.default_output_tokens,
        };
        if learns() {
            route.answer_lengths.usual(most)
        } else {
            most
        }
    };
    let max_output_tokens = named.unwrap_or_else(default);
    let input_tokens = prompt.map_or_else(|| estimate_prompt_tokens(request), |prompt| prompt.tokens);
    let output_tokens = max_output_tokens.saturating_mul(request.answers());
    let cost = cost(route.price, input_tokens, output_tokens);
    Price {
        cost,
        max_output_tokens,
        is_named: named.is_some(),
    }
}

/// What a request costs that uses so many tokens.
pub(crate) fn cost(price: PriceSetup, input_tokens: u64, output_tokens: u64) -> Cost {
    let nano_usd = u128::from(input_tokens) * u128::from(price.input)
        + u128::from(output_tokens) * u128::from(price.output);
    Cost {
        requests: 1,
        input_tokens,
        output_tokens,
        // Rounded up: a fraction of a nano-dollar is never given away.
        nano_usd: u64::try_from(nano_usd.div_ceil(1_000_000)).unwrap_or(u64::MAX),
    }
}

/// English text has about four bytes a token; three leave some room. Chat templates add a few tokens to each message.
const BYTES_PER_TOKEN: usize = 3;
const TOKENS_PER_MESSAGE: usize = 8;

fn estimate_prompt_tokens(request: &Request) -> u64 {
    let (texts, messages) = match request.kind {
        Kind::Chat => (request.texts("messages"), request.messages + 1),
        Kind::Completion => (request.texts("prompt"), 0),
        Kind::Embedding => (request.texts("input"), 0),
    };
    // A number is the id of a token.
    let tokens = texts.bytes.div_ceil(BYTES_PER_TOKEN) + texts.numbers;
    (tokens + TOKENS_PER_MESSAGE * messages).max(1) as u64
}

/// The tokens of an answer that does not say how many it has.
pub(crate) fn estimate_output_tokens(answer: &Object) -> u64 {
    let choices = answer.value("choices").and_then(Value::as_array);
    let texts = choices.into_iter().flatten().flat_map(|choice| {
        [
            choice.get("text"),
            choice.pointer("/message/content"),
            choice.pointer("/message/tool_calls"),
        ]
    });
    texts
        .flatten()
        .map(text_bytes)
        .sum::<usize>()
        .div_ceil(BYTES_PER_TOKEN) as u64
}

/// Bytes of all texts in a value; a number is a token id.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(text_bytes).sum(),
        Value::Object(fields) => fields.values().map(text_bytes).sum(),
        Value::Number(_) => BYTES_PER_TOKEN,
        Value::Bool(_) | Value::Null => 0,
    }
}
