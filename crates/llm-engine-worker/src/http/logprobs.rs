//! Likelihoods in the form of either route.

use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::Kind;
use serde_json::{Map, Value, json};

use crate::engine::Likelihood;
use crate::model::Model;

/// The `logprobs` of a chunk with one token; `offset` is where in the answer its text begins, in characters, and is moved
/// behind it.
pub(super) fn logprobs(model: &Model, kind: Kind, likelihood: &Likelihood, offset: &mut usize) -> Value {
    match kind {
        Kind::Chat => {
            let mut content = entry(model, likelihood.token, likelihood.logprob);
            let top = likelihood.top.iter();
            let top: Vec<Value> = top
                .map(|&(token, logprob)| entry(model, token, logprob).into())
                .collect();
            content.insert("top_logprobs".to_owned(), top.into());
            json!({"content": [content], "refusal": null})
        }
        Kind::Completion | Kind::Embedding => {
            let text = text(&model.piece(likelihood.token));
            // OpenAI's maps have the token itself even if it is not among the likeliest.
            let own = (likelihood.token, likelihood.logprob);
            let mut top = Map::new();
            for &(token, logprob) in likelihood.top.iter().chain([&own]) {
                top.entry(self::text(&model.piece(token)))
                    .or_insert_with(|| number(logprob));
            }
            let begins = *offset;
            *offset += text.chars().count();
            json!({
                "tokens": [text], "token_logprobs": [number(likelihood.logprob)], "top_logprobs": [top],
                "text_offset": [begins],
            })
        }
    }
}

fn entry(model: &Model, token: LlamaToken, logprob: f32) -> Map<String, Value> {
    let bytes = model.piece(token);
    let fields = [
        ("token", text(&bytes).into()),
        ("logprob", number(logprob)),
        ("bytes", bytes.into()),
    ];
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A token may be a part of a character, which only its bytes can tell.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// JSON has no infinity; this is what OpenAI and vLLM say for "never".
fn number(logprob: f32) -> Value {
    f64::from(logprob.max(-9999.0)).into()
}

#[cfg(test)]
mod tests;
