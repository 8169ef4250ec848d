use std::collections::HashMap;

use llama_cpp_2::token::LlamaToken;
use toktrie::SimpleVob;

use super::settings::Settings;

/// What a request adds to the model's logits, token by token.
#[derive(Debug)]
pub(super) struct Change {
    presence: f32,
    frequency: f32,
    repetition: f32,
    bias: Vec<(LlamaToken, f32)>,
    /// How often each token was generated; those of the prompt are there with 0 if repetitions are penalised.
    counts: HashMap<usize, f32>,
}

impl Change {
    /// `None` if the request asks for none.
    pub(super) fn new(settings: &Settings, prompt: &[LlamaToken]) -> Option<Self> {
        let Settings {
            presence_penalty: presence,
            frequency_penalty: frequency,
            repetition_penalty: repetition,
            ..
        } = *settings;
        let bias = settings.bias.clone();
        if presence == 0.0 && frequency == 0.0 && repetition == 1.0 && bias.is_empty() {
            return None;
        }
        let repeated = if repetition == 1.0 { &[] } else { prompt };
        let counts = repeated
            .iter()
            .filter_map(|token| Some((usize::try_from(token.0).ok()?, 0.0)))
            .collect();
        Some(Self {
            presence,
            frequency,
            repetition,
            bias,
            counts,
        })
    }

    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (&token, &count) in &self.counts {
            let Some(logit) = logits.get_mut(token) else {
                continue;
            };
            *logit = if *logit > 0.0 {
                *logit / self.repetition
            } else {
                *logit * self.repetition
            };
            if count > 0.0 {
                *logit -= self.presence + self.frequency * count;
            }
        }
        for (token, bias) in &self.bias {
            if let Some(logit) = usize::try_from(token.0)
                .ok()
                .and_then(|token| logits.get_mut(token))
            {
                *logit += bias;
            }
        }
    }

    pub(super) fn note(&mut self, token: usize) {
        *self.counts.entry(token).or_insert(0.0) += 1.0;
    }
}

/// Makes impossible what the mask does not allow.
pub(super) fn forbid(logits: &mut [f32], mask: &SimpleVob) {
    let words = mask.as_slice();
    for (index, chunk) in logits.chunks_mut(32).enumerate() {
        match words.get(index).copied().unwrap_or_default() {
            0 => chunk.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in chunk.iter_mut().enumerate() {
                    if word & (1 << bit) == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}
