//! Which token comes next: penalties and bias, what a grammar allows, then top-k, top-p, min-p, temperature, and a draw.
//!
//! Ours rather than llama.cpp's samplers, for speed: with a vocabulary of 49,152 tokens theirs takes 0.8 ms for a plain
//! draw and up to 5 ms for top-p (a sort of the vocabulary), several times per decode step of a few milliseconds. Here
//! a draw is two passes that the compiler vectorises, and only tokens that can survive top-k or top-p are sorted.

mod change;
mod draw;
mod likelihood;
mod random;
mod settings;

use llama_cpp_2::token::LlamaToken;
use toktrie::SimpleVob;

use change::{Change, forbid};
use draw::{
    Candidate, collect_likeliest, collect_within, draw_candidate, draw_index, largest, likelier_first,
    total_weight, weight,
};
use random::Random;

pub(crate) use likelihood::likelihood;
pub(crate) use settings::Settings;

/// Below this temperature the likeliest token is taken: dividing by less overflows, and the draw would find it anyway.
const GREEDY_BELOW: f32 = 1e-4;

/// Picks the tokens of one answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    change: Option<Change>,
    draw: Option<Draw>,
}

/// How to draw; without it the likeliest token is taken.
#[derive(Debug)]
struct Draw {
    /// Only so many of the likeliest tokens.
    top_k: Option<usize>,
    /// Only the likeliest tokens that have this share of the probability together; before temperature.
    top_p: Option<f32>,
    /// Only tokens whose logits are at most so far below the largest; before temperature.
    reach: Option<f32>,
    temperature: f32,
    random: Random,
}

/// Buffers of the size of the vocabulary, shared by the samplers of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    changed: Vec<f32>,
    candidates: Vec<Candidate>,
    block_weights: Vec<f64>,
}

impl Sampler {
    /// The sampler of one answer to a prompt. With a seed, each of several answers is another one, always the same.
    pub(crate) fn new(settings: &Settings, prompt: &[LlamaToken], choice: usize) -> Self {
        let nth = i64::try_from(choice).unwrap_or_default();
        let draw = (settings.temperature >= GREEDY_BELOW).then(|| Draw {
            top_k: settings.top_k,
            top_p: settings.top_p,
            reach: settings.min_p.filter(|&p| p > 0.0).map(|p| -p.ln()),
            temperature: settings.temperature,
            random: settings.seed.map_or_else(Random::unpredictable, |seed| {
                Random::seeded(seed.wrapping_add(nth))
            }),
        });
        Self {
            change: Change::new(settings, prompt),
            draw,
        }
    }

    /// The next token, one that the mask allows; `None` if the model gave nothing that can be compared.
    pub(crate) fn pick(
        &mut self,
        logits: &[f32],
        mask: Option<&SimpleVob>,
        scratch: &mut Scratch,
    ) -> Option<LlamaToken> {
        let Scratch {
            changed,
            candidates,
            block_weights,
        } = scratch;
        let logits = if self.change.is_none() && mask.is_none() {
            logits
        } else {
            changed.clear();
            changed.extend_from_slice(logits);
            if let Some(change) = &self.change {
                change.apply(changed);
            }
            if let Some(mask) = mask {
                forbid(changed, mask);
            }
            changed
        };
        let likeliest = |logits: &[f32]| {
            let largest = largest(logits)?;
            logits.iter().position(|&logit| logit >= largest)
        };
        let index = match &mut self.draw {
            None => likeliest(logits)?,
            // What is impossible still has a weight of next to nothing, and rounding may leave the draw to it.
            Some(draw) => match draw.pick(logits, candidates, block_weights)? {
                index if logits[index] > f32::NEG_INFINITY => index,
                _ => likeliest(logits)?,
            },
        };
        if let Some(change) = &mut self.change {
            change.note(index);
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
        if self.top_k.is_none() && self.top_p.is_none() && self.reach.is_none() {
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
        if let Some(reach) = self.reach {
            let least = largest - reach;
            if self.top_k.is_none() && self.top_p.is_none() {
                collect_within(logits, least, candidates);
            } else {
                candidates.retain(|candidate| candidate.logit >= least);
            }
        }
        draw_candidate(candidates, largest, self.temperature, fraction)
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
