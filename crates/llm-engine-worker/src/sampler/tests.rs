use llm_engine_wire::openai::Sampling;

use super::{RANDOM_SEED, Sampler, Scratch, fold_seed, likeliest};

/// A vocabulary whose likeliest token is 7, closely followed by its neighbours.
fn logits() -> Vec<f32> {
    (0..100_u8).map(|token| 4.0 - 0.1 * (f32::from(token) - 7.0).abs()).collect()
}

fn picks(sampling: &Sampling, count: usize) -> Vec<i32> {
    let (mut sampler, mut scratch) = (Sampler::new(sampling), Scratch::new());
    (0..count).map(|_| sampler.pick(&logits(), &mut scratch).unwrap().0).collect()
}

#[test]
fn temperature_zero_takes_the_likeliest() {
    let sampling = Sampling { temperature: Some(0.0), ..Sampling::default() };
    assert_eq!(picks(&sampling, 3), [7, 7, 7]);
}

#[test]
fn the_first_of_equals_is_the_likeliest() {
    for length in [1, 15, 16, 17, 40] {
        let mut logits = vec![-1.0; length];
        assert_eq!(likeliest(&logits), Some(0));
        logits[length - 1] = 2.0;
        assert_eq!(likeliest(&logits), Some(length - 1));
    }
    assert_eq!(likeliest(&[]), None);
    assert_eq!(likeliest(&[f32::NAN; 20]), None);
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let seeded = |seed| Sampling { seed: Some(seed), ..Sampling::default() };
    assert_eq!(picks(&seeded(5), 50), picks(&seeded(5), 50));
    assert_ne!(picks(&seeded(5), 50), picks(&seeded(6), 50));
}

#[test]
fn without_a_seed_draws_differ() {
    assert_ne!(picks(&Sampling::default(), 50), picks(&Sampling::default(), 50));
}

#[test]
fn top_k_and_top_p_keep_the_likeliest() {
    let top_k = Sampling { top_k: Some(3), ..Sampling::default() };
    assert!(picks(&top_k, 200).iter().all(|token| (6..=8).contains(token)));
    let top_p = Sampling { top_p: Some(0.01), ..Sampling::default() };
    assert!(picks(&top_p, 50).iter().all(|&token| token == 7));
    let all = Sampling { top_k: Some(-1), seed: Some(1), ..Sampling::default() };
    assert_eq!(picks(&all, 50), picks(&Sampling { seed: Some(1), ..Sampling::default() }, 50));
}

#[test]
fn penalties_lower_what_was_generated() {
    let presence =
        Sampling { temperature: Some(0.0), presence_penalty: Some(2.0), ..Sampling::default() };
    let picked = picks(&presence, 10);
    let mut distinct = picked.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), picked.len());
    let frequency =
        Sampling { temperature: Some(0.0), frequency_penalty: Some(0.15), ..Sampling::default() };
    assert_eq!(picks(&frequency, 4), [7, 6, 8, 7]);
}

#[test]
fn a_seed_is_never_the_random_one() {
    assert_ne!(fold_seed(i64::from(RANDOM_SEED)), RANDOM_SEED);
    assert_ne!(fold_seed(1), fold_seed(1 << 32));
    assert_ne!(fold_seed(-1), RANDOM_SEED);
}
