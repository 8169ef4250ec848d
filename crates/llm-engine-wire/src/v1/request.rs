use serde::Serialize;
use serde_json::{Map, Value};

use crate::validation::{
    Body, Bound, Field, Fields, Form, Loc, Problem, body_schema, boolean, dictionary, integer, number,
    string, strings,
};

/// A request of either v1 route, checked. Its JSON is the body, to which the model does not belong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompletionRequest {
    /// The query parameter `model_endpoint_name`.
    #[serde(skip)]
    pub model: String,
    /// The text to go on from, or to answer.
    pub prompt: String,
    /// The most tokens to generate, at least 1.
    pub max_new_tokens: u64,
    /// 0 (always the likeliest token) to 1.
    pub temperature: f64,
    /// Text at which the answer ends.
    pub stop_sequences: Vec<String>,
    /// Whether each token and its log-probability are wanted.
    pub return_token_log_probs: bool,
    /// 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Only the k likeliest tokens, at least 1; -1 is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Nucleus sampling: above 0, up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Whether the text of the stop sequence belongs to the answer.
    pub include_stop_str_in_output: bool,
    /// What the answer must look like.
    #[serde(flatten)]
    pub guided: Option<Guided>,
    /// Whether special tokens are left out of the answer.
    pub skip_special_tokens: bool,
}

/// A form that the answer must have. Obeyed or refused, never ignored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Guided {
    /// A JSON schema.
    #[serde(rename = "guided_json")]
    Json(Map<String, Value>),
    /// A regular expression.
    #[serde(rename = "guided_regex")]
    Regex(String),
    /// One of these texts.
    #[serde(rename = "guided_choice")]
    Choice(Vec<String>),
    /// A context-free grammar.
    #[serde(rename = "guided_grammar")]
    Grammar(String),
}

/// Why a request can't be served as it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Answered with 422 and all problems.
    #[error("the request has {} problems", .0.len())]
    Invalid(Vec<Problem>),
    /// Answered with 400 and this sentence.
    #[error("{0}")]
    Refused(&'static str),
}

const FROM_0_TO_1: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(1.0)];
const FROM_0_TO_2: &[Bound] = &[Bound::AtLeast(0.0), Bound::AtMost(2.0)];
const ABOVE_0_TO_1: &[Bound] = &[Bound::Above(0.0), Bound::AtMost(1.0)];
const FROM_MINUS_1: &[Bound] = &[Bound::AtLeast(-1.0)];
const FROM_1: &[Bound] = &[Bound::AtLeast(1.0)];

/// What a body may hold, for its schema; [`CompletionRequest::read`] reads the same, as a test shows.
const FIELDS: &[Field] = &[
    Field::required("prompt", Form::Text),
    Field::required("max_new_tokens", Form::Integer(FROM_1)),
    Field::required("temperature", Form::Number(FROM_0_TO_1)),
    Field::optional("stop_sequences", Form::Texts),
    Field::optional("return_token_log_probs", Form::Boolean),
    Field::optional("presence_penalty", Form::Number(FROM_0_TO_2)),
    Field::optional("frequency_penalty", Form::Number(FROM_0_TO_2)),
    Field::optional("top_k", Form::Integer(FROM_MINUS_1)),
    Field::optional("top_p", Form::Number(ABOVE_0_TO_1)),
    Field::optional("include_stop_str_in_output", Form::Boolean),
    Field::optional("guided_json", Form::Dictionary),
    Field::optional("guided_regex", Form::Text),
    Field::optional("guided_choice", Form::Texts),
    Field::optional("guided_grammar", Form::Text),
    Field::optional("skip_special_tokens", Form::Boolean),
];

impl CompletionRequest {
    /// A request with nothing but what every one must have.
    #[must_use]
    pub fn new(
        model: impl Into<String>,
        prompt: impl Into<String>,
        max_new_tokens: u64,
        temperature: f64,
    ) -> Self {
        Self {
            model: model.into(),
            prompt: prompt.into(),
            max_new_tokens,
            temperature,
            stop_sequences: Vec::new(),
            return_token_log_probs: false,
            presence_penalty: None,
            frequency_penalty: None,
            top_k: None,
            top_p: None,
            include_stop_str_in_output: false,
            guided: None,
            skip_special_tokens: true,
        }
    }

    /// The JSON schema of the body.
    #[must_use]
    pub fn schema() -> Value {
        body_schema(FIELDS.iter().copied())
    }

    /// Checks the query parameter and the body.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] holds every problem that can be found at once.
    pub fn read(model: Option<&str>, body: &Body) -> Result<Self, RequestError> {
        let mut problems = Vec::new();
        if model.is_none() {
            let loc = vec![Loc::Name("query"), Loc::Name("model_endpoint_name")];
            problems.push(Problem::missing(loc, Value::Null));
        }
        let fields = match body.fields() {
            Ok(fields) => fields,
            Err(problem) => {
                problems.push(*problem);
                return Err(RequestError::Invalid(problems));
            }
        };
        let request = Self::read_fields(model.unwrap_or_default(), fields, &mut problems);
        match request {
            Some(request) if problems.is_empty() => request.check(fields),
            _ => Err(RequestError::Invalid(problems)),
        }
    }

    /// `None` means that problems were noted.
    fn read_fields(model: &str, fields: &Map<String, Value>, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut fields = Fields::new(fields);
        let prompt = fields.required("prompt", string);
        let max_new_tokens = fields.required("max_new_tokens", integer(&[]));
        let temperature = fields.required("temperature", number(FROM_0_TO_1));
        let stop_sequences = fields.optional("stop_sequences", strings).unwrap_or_default();
        let return_token_log_probs = fields
            .optional("return_token_log_probs", boolean)
            .unwrap_or(false);
        let presence_penalty = fields.optional("presence_penalty", number(FROM_0_TO_2));
        let frequency_penalty = fields.optional("frequency_penalty", number(FROM_0_TO_2));
        let top_k = fields.optional("top_k", integer(FROM_MINUS_1));
        let top_p = fields.optional("top_p", number(ABOVE_0_TO_1));
        let include_stop_str_in_output = fields
            .optional("include_stop_str_in_output", boolean)
            .unwrap_or(false);
        let guided_json = fields.optional("guided_json", dictionary).map(Guided::Json);
        let guided_regex = fields.optional("guided_regex", string).map(Guided::Regex);
        let guided_choice = fields.optional("guided_choice", strings).map(Guided::Choice);
        let guided_grammar = fields.optional("guided_grammar", string).map(Guided::Grammar);
        let skip_special_tokens = fields.optional("skip_special_tokens", boolean).unwrap_or(true);
        problems.extend(fields.into_problems());
        Some(Self {
            model: model.to_owned(),
            prompt: prompt?,
            // 0 stands for everything below 1 and is refused by `check`.
            max_new_tokens: u64::try_from(max_new_tokens?).unwrap_or(0),
            temperature: temperature?,
            stop_sequences,
            return_token_log_probs,
            presence_penalty,
            frequency_penalty,
            top_k,
            top_p,
            include_stop_str_in_output,
            guided: guided_json.or(guided_regex).or(guided_choice).or(guided_grammar),
            skip_special_tokens,
        })
    }

    /// What the public servers check after the types, with their words.
    fn check(self, fields: &Map<String, Value>) -> Result<Self, RequestError> {
        let guided = ["guided_json", "guided_regex", "guided_choice", "guided_grammar"];
        let given = guided
            .iter()
            .filter(|name| fields.get(**name).is_some_and(|value| !value.is_null()));
        if given.count() > 1 {
            return Err(RequestError::Refused(
                "Only one of guided_json, guided_choice, guided_regex, guided_grammar can be enabled.",
            ));
        }
        let all_tokens = self.top_k.is_none_or(|top_k| top_k == -1);
        if self.max_new_tokens == 0 {
            return Err(RequestError::Refused("max_new_tokens must be at least 1."));
        }
        if self.temperature == 0.0 && !(all_tokens && self.top_p.is_none_or(|top_p| top_p == 1.0)) {
            return Err(RequestError::Refused(
                "top_k and top_p can't be enabled when temperature is 0.",
            ));
        }
        if self.top_k == Some(0) {
            return Err(RequestError::Refused(
                "top_k needs to be strictly positive, or set it to be -1 / None to disable top_k.",
            ));
        }
        Ok(self)
    }
}
