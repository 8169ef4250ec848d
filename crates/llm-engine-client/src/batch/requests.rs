use llm_engine_batch::Row;
use serde_json::{Map, Value, json};

use crate::Call;

/// How servers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As LLM Engine: prompts go to `/v1/llm/completions-sync`, messages to `/v1/chat/completions`.
    LlmEngine,
    /// As OpenAI, below a URL that ends with `/v1` or stands for it: prompts go to `/chat/completions` as a message of the user,
    /// which every such server understands.
    OpenAi {
        /// Whether paths begin with `/v1`, or the URL has that already.
        has_version: bool,
    },
}

impl Dialect {
    /// That of an OpenAI-compatible server, and the URL for its clients.
    #[must_use]
    pub fn openai(base_url: &str) -> (String, Self) {
        let base_url = base_url.trim_end_matches('/');
        match base_url.strip_suffix("/v1") {
            Some(host) => (host.to_owned(), Self::OpenAi { has_version: true }),
            None => (base_url.to_owned(), Self::OpenAi { has_version: false }),
        }
    }
}

const CHAT: &str = "/v1/chat/completions";
const SYNC: &str = "/v1/llm/completions-sync";

/// LLM Engine's names of fields, and OpenAI's.
const NAMES: [(&str, &str); 2] = [("max_new_tokens", "max_tokens"), ("stop_sequences", "stop")];

/// The call for a row, or what is wrong with it.
pub(super) fn call(dialect: Dialect, row: &Row, defaults: &Map<String, Value>) -> Result<Call, String> {
    let mut fields = row.fields.clone();
    for (name, value) in defaults {
        if !fields.contains_key(name) {
            fields.insert(name.clone(), value.clone());
        }
    }
    // The answer is one row: nobody would see its pieces.
    fields.remove("stream");
    fields.remove("stream_options");
    let Some(model) = fields.get("model").and_then(Value::as_str).map(str::to_owned) else {
        return Err("it names no model, and none is given for all rows".to_owned());
    };
    let is_of_llm_engine = dialect == Dialect::LlmEngine;
    let target = match &row.target {
        Some(target) if target.starts_with('/') => target.as_str(),
        Some(target) => return Err(format!("the url {target} is no path, such as {CHAT}")),
        None if is_of_llm_engine && fields.contains_key("prompt") => SYNC,
        None => CHAT,
    };
    if row.target.is_none() && target == CHAT {
        as_openai(&mut fields);
    }
    if target == SYNC {
        fields.remove("model");
    }
    let path = match dialect {
        Dialect::OpenAi { has_version: false } => target.strip_prefix("/v1").unwrap_or(target),
        _ => target,
    };
    let call = Call::post(path, Value::Object(fields).to_string()).model(&model);
    Ok(if target == SYNC {
        call.query("model_endpoint_name", model)
    } else {
        call
    })
}

/// A prompt as a message, and LLM Engine's names as OpenAI's.
fn as_openai(fields: &mut Map<String, Value>) {
    for (ours, theirs) in NAMES {
        if let Some(value) = fields.shift_remove(ours)
            && !fields.contains_key(theirs)
        {
            fields.insert(theirs.to_owned(), value);
        }
    }
    if let Some(prompt) = fields.shift_remove("prompt")
        && !fields.contains_key("messages")
    {
        let message = json!([{ "role": "user", "content": prompt }]);
        fields.insert("messages".to_owned(), message);
    }
}
