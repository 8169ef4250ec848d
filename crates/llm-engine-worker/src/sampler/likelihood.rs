use llama_cpp_2::token::LlamaToken;

use super::Scratch;
use super::draw::{collect_likeliest, largest, likelier_first, total_weight};
use crate::engine::Likelihood;

/// How likely a token is by the model's logits alone, and the `top` likeliest tokens; `None` if nothing can be compared.
pub(crate) fn likelihood(
    logits: &[f32],
    token: LlamaToken,
    top: usize,
    scratch: &mut Scratch,
) -> Option<Likelihood> {
    let Scratch {
        candidates,
        block_weights,
        ..
    } = scratch;
    let largest = largest(logits)?;
    let total = total_weight(logits, largest, 1.0, block_weights).ln();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a difference of single-precision numbers"
    )]
    let logprob = |logit: f32| (f64::from(logit - largest) - total) as f32;
    let own = *logits.get(usize::try_from(token.0).ok()?)?;
    let mut likeliest = Vec::with_capacity(top);
    if top > 0 {
        collect_likeliest(logits, largest, candidates, |found| found.len() >= top);
        candidates.sort_unstable_by(likelier_first);
        for candidate in candidates.iter().take(top) {
            likeliest.push((
                LlamaToken::new(i32::try_from(candidate.index).ok()?),
                logprob(candidate.logit),
            ));
        }
    }
    Some(Likelihood {
        token,
        logprob: logprob(own),
        top: likeliest,
    })
}
