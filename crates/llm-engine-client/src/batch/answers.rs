use llm_engine_batch::{Answer, Consequence, Failed, Form, RowError, Usage};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// What is read of an answer, in either dialect.
#[derive(Deserialize)]
struct Read {
    output: Option<Output>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

/// LLM Engine's.
#[derive(Deserialize)]
struct Output {
    text: String,
    num_prompt_tokens: Option<u64>,
    #[serde(default)]
    num_completion_tokens: u64,
}

/// OpenAI's.
#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Message>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

pub(super) fn read(answer: &crate::Answer, form: Form) -> Result<Answer, Failed> {
    let read: Read = serde_json::from_slice(&answer.body).map_err(|error| unexpected(&error))?;
    let header = |name: &str| answer.headers.get(name)?.to_str().ok();
    let (text, finish_reason, usage) = match (read.output, read.choices.into_iter().next()) {
        (Some(output), _) => {
            let usage = Usage {
                input_tokens: output.num_prompt_tokens.unwrap_or_default(),
                output_tokens: output.num_completion_tokens,
                nano_usd: 0,
            };
            (Some(output.text), None, usage)
        }
        (None, choice) => {
            let tokens = read
                .usage
                .map_or((0, 0), |usage| (usage.prompt_tokens, usage.completion_tokens));
            let usage = Usage {
                input_tokens: tokens.0,
                output_tokens: tokens.1,
                nano_usd: 0,
            };
            let finish_reason = choice.as_ref().and_then(|choice| choice.finish_reason.clone());
            (choice.and_then(text), finish_reason, usage)
        }
    };
    // What has no text, such as the call of a tool, is kept whole.
    let response = match form {
        Form::OpenAi => Some(whole(&answer.body)?),
        Form::Jsonl if text.is_none() => Some(whole(&answer.body)?),
        Form::Jsonl | Form::Csv => None,
    };
    Ok(Answer {
        text,
        finish_reason,
        response,
        request_id: (form == Form::OpenAi).then(|| answer.request_id().unwrap_or_default().to_owned()),
        usage,
        was_replayed: header("x-llm-engine-replayed").is_some(),
    })
}

fn text(choice: Choice) -> Option<String> {
    let content = choice.message.and_then(|message| message.content);
    match content {
        Some(Value::String(text)) => Some(text),
        _ => choice.text,
    }
}

/// The body, on one line.
fn whole(body: &[u8]) -> Result<Box<RawValue>, Failed> {
    if body.contains(&b'\n') || body.contains(&b'\r') {
        let value: Value = serde_json::from_slice(body).map_err(|error| unexpected(&error))?;
        return to_raw_value(&value).map_err(|error| unexpected(&error));
    }
    serde_json::from_slice(body).map_err(|error| unexpected(&error))
}

fn unexpected(error: &serde_json::Error) -> Failed {
    Failed {
        error: RowError::new(
            "unexpected_answer",
            format!("the answer is no completion: {error}"),
        ),
        consequence: Consequence::TryAgain,
        may_be_done: false,
    }
}
