//! Which token comes next: penalties, then top-k, top-p, temperature, and a draw.

use std::collections::HashMap;

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use llm_engine_wire::openai::Sampling;

/// Below this temperature the likeliest token is taken: dividing by less overflows, and the draw would find it anyway.
const GREEDY_BELOW: f32 = 1e-4;

/// To llama.cpp this seed means "draw one yourself".
const RANDOM_SEED: u32 = u32::MAX;

/// Picks the tokens of one request.
#[derive(Debug)]
pub(crate) struct Sampler {
    penalties: Option<Penalties>,
    /// top-k, top-p, temperature and the draw; `None` takes the likeliest token.
    draw: Option<LlamaSampler>,
}

/// Lowers what was generated before.
///
/// Ours, not llama.cpp's: that one looks every token of the vocabulary up in a hash map (and with a window of -1, which
/// reads like "all", it is off). Only the tokens that were generated can change.
#[derive(Debug)]
struct Penalties {
    presence: f32,
    frequency: f32,
    /// How often each token was generated.
    counts: HashMap<usize, f32>,
}

/// Buffers of the size of the vocabulary, shared by the samplers of one thread.
#[derive(Debug)]
pub(crate) struct Scratch {
    logits: Vec<f32>,
    candidates: LlamaTokenDataArray,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { logits: Vec::new(), candidates: LlamaTokenDataArray::new(Vec::new(), false) }
    }
}

impl Sampler {
    /// The sampler of a request whose fields have been checked. OpenAI's defaults: temperature 1, everything else off.
    pub(crate) fn new(sampling: &Sampling) -> Self {
        let presence = sampling.presence_penalty.unwrap_or(0.0);
        let frequency = sampling.frequency_penalty.unwrap_or(0.0);
        let penalties = (presence != 0.0 || frequency != 0.0)
            .then(|| Penalties { presence, frequency, counts: HashMap::new() });
        let temperature = sampling.temperature.unwrap_or(1.0);
        let draw = (temperature >= GREEDY_BELOW).then(|| {
            let mut steps = Vec::with_capacity(4);
            // Without top-k and top-p the vocabulary is never sorted.
            steps.extend(sampling.top_k.filter(|&k| k > 0).map(LlamaSampler::top_k));
            steps.extend(sampling.top_p.filter(|&p| p < 1.0).map(|p| LlamaSampler::top_p(p, 1)));
            steps.extend((temperature.to_bits() != 1.0_f32.to_bits()).then(|| LlamaSampler::temp(temperature)));
            steps.push(LlamaSampler::dist(sampling.seed.map_or(RANDOM_SEED, fold_seed)));
            LlamaSampler::chain(steps, true)
        });
        Self { penalties, draw }
    }

    /// The next token; `None` if the model gave nothing that can be compared.
    pub(crate) fn pick(&mut self, logits: &[f32], scratch: &mut Scratch) -> Option<LlamaToken> {
        let index = match &mut self.penalties {
            None => choose(self.draw.as_mut(), logits, &mut scratch.candidates)?,
            Some(penalties) => {
                penalties.lower(logits, &mut scratch.logits);
                let index = choose(self.draw.as_mut(), &scratch.logits, &mut scratch.candidates)?;
                *penalties.counts.entry(index).or_insert(0.0) += 1.0;
                index
            }
        };
        i32::try_from(index).ok().map(LlamaToken::new)
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

fn choose(draw: Option<&mut LlamaSampler>, logits: &[f32], candidates: &mut LlamaTokenDataArray) -> Option<usize> {
    let Some(draw) = draw else {
        return likeliest(logits);
    };
    candidates.data.clear();
    let candidate = |(id, &logit)| LlamaTokenData::new(LlamaToken::new(id), logit, 0.0);
    candidates.data.extend((0_i32..).zip(logits).map(candidate));
    candidates.sorted = false;
    candidates.selected = None;
    candidates.apply_sampler(draw);
    usize::try_from(candidates.selected_token()?.0).ok()
}

/// The first index of the largest value. Two passes without branches are several times faster than one that remembers
/// the index.
fn likeliest(logits: &[f32]) -> Option<usize> {
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (largest, &logit) in largest.iter_mut().zip(chunk) {
            *largest = if logit > *largest { logit } else { *largest };
        }
    }
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
    logits.iter().position(|&logit| logit >= largest)
}

/// The dialect's 64 bits in llama.cpp's 32; equal seeds stay equal, and none becomes [`RANDOM_SEED`].
fn fold_seed(seed: i64) -> u32 {
    let [a, b, c, d, e, f, g, h] = seed.to_le_bytes();
    let folded = u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h]).rotate_left(16);
    if folded == RANDOM_SEED { 0 } else { folded }
}

#[cfg(test)]
mod tests;
