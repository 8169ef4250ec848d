use llm_engine_wire::openai::Request;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// The longest form, in bytes. Compiling the worst that fits takes about a second.
const MAX_BYTES: usize = 64 * 1024;

/// A form that the answer must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    /// The field of the request that asks for it.
    pub(crate) param: &'static str,
    pub(crate) rule: Rule,
}

/// What the form is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// One of these texts; there is at least one.
    Choice(Vec<String>),
    /// All of the answer matches this regular expression.
    Regex(String),
    /// JSON after this schema, which is JSON itself.
    Json(String),
    /// A text of this grammar, written for Lark or for GBNF.
    Grammar(String),
}

impl Rule {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Choice(texts) => texts.iter().map(String::len).sum(),
            Self::Regex(text) | Self::Json(text) | Self::Grammar(text) => text.len(),
        }
    }
}

impl Form {
    /// The form that a request asks for, under the names of LLM Engine and vLLM (`guided_…`, `structured_outputs`) or
    /// OpenAI (`response_format`).
    ///
    /// # Errors
    /// A 400: more than one, or one that is not written as it must be.
    pub(crate) fn read(request: &Request) -> Result<Option<Self>, Refusal> {
        let mut forms = Vec::new();
        for param in ["guided_choice", "guided_regex", "guided_json", "guided_grammar"] {
            if let Some(value) = request.field(param) {
                let name = param.trim_start_matches("guided_");
                forms.push(rule(param, param, name, value)?);
            }
        }
        if let Some(value) = request.field("structured_outputs") {
            forms.extend(structured_outputs(value)?);
        }
        if let Some(value) = request.field("response_format") {
            forms.extend(response_format(value)?);
        }
        match forms.as_slice() {
            [_, second, ..] => Err(Refusal::invalid(
                second.param,
                "the answer can have one form only: give one of 'guided_choice', 'guided_regex', 'guided_json', \
                 'guided_grammar', 'structured_outputs' and 'response_format'",
            )),
            _ => Ok(forms.pop()),
        }
    }
}

/// `field` is how the place is called in messages, `name` which kind of rule it has.
fn rule(param: &'static str, field: &str, name: &str, value: &Value) -> Result<Form, Refusal> {
    let wrong = |wanted: &str| Err(Refusal::invalid(param, format!("'{field}' must be {wanted}")));
    let rule = match (name, value) {
        ("choice", Value::Array(texts)) if !texts.is_empty() => {
            let texts: Option<Vec<String>> = texts
                .iter()
                .map(|text| text.as_str().map(str::to_owned))
                .collect();
            match texts {
                Some(texts) => Rule::Choice(texts),
                None => return wrong("a list of texts"),
            }
        }
        ("choice", _) => return wrong("a list of at least one text"),
        ("regex", Value::String(regex)) => Rule::Regex(regex.clone()),
        ("regex", _) => return wrong("a regular expression"),
        ("grammar", Value::String(grammar)) => Rule::Grammar(grammar.clone()),
        ("grammar", _) => return wrong("a grammar, for Lark or for GBNF"),
        // vLLM takes a schema as text as well.
        (_, Value::String(schema)) => Rule::Json(schema.clone()),
        (_, Value::Object(_) | Value::Bool(_)) => Rule::Json(value.to_string()),
        _ => return wrong("a JSON schema"),
    };
    if rule.bytes() > MAX_BYTES {
        let message = format!(
            "'{field}' has {} bytes; it may have up to {MAX_BYTES}",
            rule.bytes()
        );
        return Err(Refusal::invalid(param, message));
    }
    Ok(Form { param, rule })
}

/// vLLM's newer name for all of it.
fn structured_outputs(value: &Value) -> Result<Vec<Form>, Refusal> {
    const PARAM: &str = "structured_outputs";
    let fields = object(PARAM, PARAM, value)?;
    let mut forms = Vec::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let field = format!("{PARAM}.{name}");
        match (name.as_str(), value) {
            ("choice" | "regex" | "json" | "grammar", _) => forms.push(rule(PARAM, &field, name, value)?),
            ("json_object", Value::Bool(true)) => forms.push(any_object(PARAM)),
            (_, Value::Bool(false)) => {}
            _ => return Err(Refusal::unsupported(PARAM, &format!("'{field}'"))),
        }
    }
    Ok(forms)
}

fn response_format(value: &Value) -> Result<Option<Form>, Refusal> {
    const PARAM: &str = "response_format";
    let fields = object(PARAM, PARAM, value)?;
    match fields.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(any_object(PARAM))),
        Some("json_schema") => {
            let format = fields.get("json_schema").unwrap_or(&Value::Null);
            let format = object(PARAM, "response_format.json_schema", format)?;
            let schema = format.get("schema").unwrap_or(&Value::Null);
            rule(PARAM, "response_format.json_schema.schema", "json", schema).map(Some)
        }
        _ => Err(Refusal::invalid(
            PARAM,
            "'response_format.type' must be 'text', 'json_object' or 'json_schema'",
        )),
    }
}

fn any_object(param: &'static str) -> Form {
    let rule = Rule::Json(json!({"type": "object"}).to_string());
    Form { param, rule }
}

fn object<'a>(param: &'static str, field: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Refusal> {
    value
        .as_object()
        .ok_or_else(|| Refusal::invalid(param, format!("'{field}' must be an object")))
}
