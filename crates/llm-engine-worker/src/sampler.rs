//! Which token comes next: penalties, then top-k, top-p, temperature, and a draw.
//!
//! Ours rather than llama.cpp's samplers, for speed: with a vocabulary of 49,152 tokens theirs takes 0.8 ms for a plain
//! draw and up to 5 ms for top-p (a sort of the vocabulary), several times per decode step of a few milliseconds. Here
//! a draw is two passes that the compiler vectorises, and only tokens that can survive top-k or top-p are sorted.

mod draw;
mod random;

use std::collections::HashMap;

use llama_cpp_2::token::LlamaToken;
use llm_engine_wire::openai::Sampling;

use draw::{
    Candidate, collect_likeliest, draw_candidate, draw_index, largest, likelier_first, total_weight, weight,
};
use random::Random;

/// Below this temperature the likeliest token is taken: dividing by less overflows, and the draw would find it anyway.
const GREEDY_BELOW: f32 = 1e-4;

/// Picks the tokens of one request.
#[derive(Debug)]
pub(crate) struct Sampler {
    penalties: Option<Penalties>,
    draw: Option<Draw>,
}

/// How to draw; without it the likeliest token is taken.
#[derive(Debug)]
struct Draw {
    /// Only so many of the likeliest tokens.
    top_k: Option<usize>,
    /// Only the likeliest tokens that have this share of the probability together; before temperature.
    top_p: Option<f32>,
    temperature: f32,
    random: Random,
}

/// Lowers what was generated before.
#[derive(Debug)]
struct Penalties {
    presence: f32,
    frequency: f32,
    /// How often each token was generated.
    counts: HashMap<usize, f32>,
}

/// Buffers of the size of the vocabulary, shared by the samplers of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    lowered: Vec<f32>,
    candidates: Vec<Candidate>,
    block_weights: Vec<f64>,
}

impl Sampler {
    /// The sampler of a request whose fields have been checked. OpenAI's defaults: temperature 1, everything else off.
    pub(crate) fn new(sampling: &Sampling) -> Self {
        let presence = sampling.presence_penalty.unwrap_or(0.0);
        let frequency = sampling.frequency_penalty.unwrap_or(0.0);
        let penalties = (presence != 0.0 || frequency != 0.0).then(|| Penalties {
            presence,
            frequency,
            counts: HashMap::new(),
        });
        let temperature = sampling.temperature.unwrap_or(1.0);
        let draw = (temperature >= GREEDY_BELOW).then(|| Draw {
            top_k: sampling.top_k.and_then(|k| usize::try_from(k).ok()),
            top_p: sampling.top_p.filter(|&p| p < 1.0),
            temperature,
            random: sampling.seed.map_or_else(Random::unpredictable, Random::seeded),
        });
        Self { penalties, draw }
    }

    /// The next token; `None` if the model gave nothing that can be compared.
    pub(crate) fn pick(&mut self, logits: &[f32], scratch: &mut Scratch) -> Option<LlamaToken> {
        let Scratch {
            lowered,
            candidates,
            block_weights,
        } = scratch;
        let logits = match &self.penalties {
            None => logits,
            Some(penalties) => {
                penalties.lower(logits, lowered);
                lowered
            }
        };
        let index = match &mut self.draw {
            None => {
                let largest = largest(logits)?;
                logits.iter().position(|&logit| logit >= largest)?
            }
            Some(draw) => draw.pick(logits, candidates, block_weights)?,
        };
        if let Some(penalties) = &mut self.penalties {
            *penalties.counts.entry(index).or_insert(0.0) += 1.0;
        }
        i32::try_from(index).ok().map(LlamaToken::new)
    }
}

impl Draw {
    fn pick(
        &mut self,
        logits: &[f32],
        candidates: &mut Vec<Candidate>,
        block_weights: &mut Vec<f64>,
    ) -> Option<usize> {
        let largest = largest(logits)?;
        let fraction = self.random.fraction();
        if self.top_k.is_none() && self.top_p.is_none() {
            return draw_index(logits, largest, self.temperature, fraction, block_weights);
        }
        if let Some(k) = self.top_k {
            collect_likeliest(logits, largest, candidates, |found| found.len() >= k);
            if candidates.len() > k {
                candidates.select_nth_unstable_by(k, likelier_first);
                candidates.truncate(k);
            }
            candidates.sort_unstable_by(likelier_first);
        }
        if let Some(p) = self.top_p {
            let total = if self.top_k.is_some() {
                sum(candidates, largest)
            } else {
                total_weight(logits, largest, 1.0, block_weights)
            };
            let wanted = total * f64::from(p);
            if self.top_k.is_none() {
                collect_likeliest(logits, largest, candidates, |found| sum(found, largest) >= wanted);
                candidates.sort_unstable_by(likelier_first);
            }
            candidates.truncate(nucleus(candidates, largest, wanted));
        }
        draw_candidate(candidates, largest, self.temperature, fraction)
    }
}

impl Penalties {
    fn lower(&self, logits: &[f32], lowered: &mut Vec<f32>) {
        lowered.clear();
        lowered.extend_from_slice(logits);
        for (&token, &count) in &self.counts {
            lowered[token] -= self.presence + self.frequency * count;
        }
    }
}

fn sum(candidates: &[Candidate], largest: f32) -> f64 {
    candidates
        .iter()
        .map(|candidate| f64::from(weight(candidate.logit - largest)))
        .sum()
}

/// How many of the candidates, in their order, have the wanted weight together.
fn nucleus(candidates: &[Candidate], largest: f32, wanted: f64) -> usize {
    let mut sum = 0.0;
    let reaches = |candidate: &Candidate| {
        sum += f64::from(weight(candidate.logit - largest));
        sum >= wanted
    };
    candidates
        .iter()
        .position(reaches)
        .map_or(candidates.len(), |index| index + 1)
}

#[cfg(test)]
mod tests;
