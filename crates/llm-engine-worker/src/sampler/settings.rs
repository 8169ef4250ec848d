use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::{Request, Sampling};
use serde_json::Value;

use crate::model::Model;
use crate::refusal::Refusal;

/// How tokens are picked, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Below a small bound the likeliest token is taken.
    pub(crate) temperature: f32,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f32>,
    /// Only tokens that are at least this many times as likely as the likeliest one (vLLM's extension).
    pub(crate) min_p: Option<f32>,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    /// What the logits of tokens in the prompt and in the answer are divided by (vLLM's extension); 1 is off.
    pub(crate) repetition_penalty: f32,
    /// What is added to the logits of tokens.
    pub(crate) bias: Vec<(LlamaToken, f32)>,
    pub(crate) seed: Option<i64>,
}

impl Settings {
    /// Reads what a request says.
    ///
    /// # Errors
    /// A 400 that names the field that is wrong.
    pub(crate) fn read(model: &Model, request: &Request) -> Result<Self, Refusal> {
        let bias = match request.field("logit_bias") {
            None => Vec::new(),
            Some(Value::Object(fields)) => {
                let read = |(token, bias): (&String, &Value)| read_bias(model, token, bias);
                fields.iter().map(read).collect::<Result<_, _>>()?
            }
            Some(_) => {
                let message = "'logit_bias' must be an object of token numbers and numbers";
                return Err(Refusal::invalid("logit_bias", message));
            }
        };
        Ok(Self {
            min_p: number(request, "min_p", |p| (0.0..=1.0).contains(&p), "from 0 to 1")?,
            repetition_penalty: number(
                request,
                "repetition_penalty",
                |x| x > 0.0 && x <= 10.0,
                "above 0 and up to 10",
            )?
            .unwrap_or(1.0),
            bias,
            ..Self::from(&request.sampling)
        })
    }
}

/// OpenAI's defaults: temperature 1, everything else off.
impl From<&Sampling> for Settings {
    fn from(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature.unwrap_or(1.0),
            top_k: sampling.top_k.and_then(|k| usize::try_from(k).ok()),
            top_p: sampling.top_p.filter(|&p| p < 1.0),
            min_p: None,
            presence_penalty: sampling.presence_penalty.unwrap_or(0.0),
            frequency_penalty: sampling.frequency_penalty.unwrap_or(0.0),
            repetition_penalty: 1.0,
            bias: Vec::new(),
            seed: sampling.seed,
        }
    }
}

fn read_bias(model: &Model, token: &str, bias: &Value) -> Result<(LlamaToken, f32), Refusal> {
    let refuse = |message: String| Refusal::invalid("logit_bias", message);
    let known = token.parse().ok().and_then(|number| model.token(number));
    let known = known.ok_or_else(|| {
        refuse(format!(
            "'logit_bias' has '{token}', which is no token of this model"
        ))
    })?;
    match bias.as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "it is from -100 to 100")]
        Some(bias) if (-100.0..=100.0).contains(&bias) => Ok((known, bias as f32)),
        _ => Err(refuse(format!(
            "'logit_bias' of '{token}' is {bias}; it must be a number from -100 to 100"
        ))),
    }
}

fn number(
    request: &Request,
    name: &str,
    is_right: impl Fn(f32) -> bool,
    wanted: &str,
) -> Result<Option<f32>, Refusal> {
    let Some(value) = request.field(name) else {
        return Ok(None);
    };
    #[expect(clippy::cast_possible_truncation, reason = "what becomes infinite is refused")]
    let number = value
        .as_f64()
        .map(|number| number as f32)
        .filter(|&number| is_right(number));
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::invalid(
            name,
            format!("'{name}' is {value}; it must be a number {wanted}"),
        )),
    }
}
