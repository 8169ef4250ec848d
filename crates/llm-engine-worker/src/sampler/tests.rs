use llm_engine_wire::openai::Sampling;

use super::draw::{largest, weight};
use super::{Sampler, Scratch, Settings};

/// A vocabulary whose likeliest token is 7, closely followed by its neighbours.
fn logits() -> Vec<f32> {
    (0..100_u8)
        .map(|token| 4.0 - 0.1 * (f32::from(token) - 7.0).abs())
        .collect()
}

fn picks_from(logits: &[f32], sampling: &Sampling, count: usize) -> Vec<i32> {
    picks_with(logits, &Settings::from(sampling), count)
}

fn picks_with(logits: &[f32], settings: &Settings, count: usize) -> Vec<i32> {
    let (mut sampler, mut scratch) = (Sampler::new(settings, &[], 0), Scratch::default());
    (0..count)
        .map(|_| sampler.pick(logits, None, &mut scratch).unwrap().0)
        .collect()
}

fn picks(sampling: &Sampling, count: usize) -> Vec<i32> {
    picks_from(&logits(), sampling, count)
}

fn greedy() -> Sampling {
    Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    }
}

#[test]
fn temperature_zero_takes_the_likeliest() {
    assert_eq!(picks(&greedy(), 3), [7, 7, 7]);
}

#[test]
fn the_first_of_equals_is_the_likeliest() {
    for length in [1_u8, 15, 16, 17, 40] {
        let mut logits = vec![-1.0; length.into()];
        assert_eq!(picks_from(&logits, &greedy(), 1), [0]);
        logits[usize::from(length) - 1] = 2.0;
        assert_eq!(picks_from(&logits, &greedy(), 1), [i32::from(length) - 1]);
    }
}

#[test]
fn nothing_comparable_gives_nothing() {
    assert_eq!(largest(&[]), None);
    for sampling in [greedy(), Sampling::default()] {
        let picked = Sampler::new(&Settings::from(&sampling), &[], 0).pick(
            &[f32::NAN; 20],
            None,
            &mut Scratch::default(),
        );
        assert_eq!(picked, None);
    }
}

#[test]
fn what_is_not_a_number_is_never_picked() {
    let mut logits = logits();
    logits[3] = f32::NAN;
    logits[8] = f32::NEG_INFINITY;
    for sampling in [
        Sampling::default(),
        Sampling {
            top_p: Some(0.9),
            ..Sampling::default()
        },
    ] {
        assert!(
            picks_from(&logits, &sampling, 500)
                .iter()
                .all(|&token| token != 3 && token != 8)
        );
    }
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let seeded = |seed| Sampling {
        seed: Some(seed),
        ..Sampling::default()
    };
    assert_eq!(picks(&seeded(5), 50), picks(&seeded(5), 50));
    assert_ne!(picks(&seeded(5), 50), picks(&seeded(6), 50));
    assert_ne!(picks(&seeded(5), 50), picks(&seeded(5 + (1 << 32)), 50));
    assert_ne!(picks(&seeded(-1), 50), picks(&Sampling::default(), 50));
}

#[test]
fn without_a_seed_draws_differ() {
    assert_ne!(picks(&Sampling::default(), 50), picks(&Sampling::default(), 50));
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    // More than one block, with the likely tokens in the second.
    let mut logits = vec![-50.0; 300];
    for (token, share) in [(260, 0.5_f32), (280, 0.3), (290, 0.2)] {
        logits[token] = share.ln() * 0.5;
    }
    let sampling = Sampling {
        temperature: Some(0.5),
        seed: Some(11),
        ..Sampling::default()
    };
    for sampling in [
        sampling.clone(),
        Sampling {
            top_k: Some(100),
            ..sampling.clone()
        },
    ] {
        let picked = picks_from(&logits, &sampling, 20_000);
        for (token, share) in [(260, 0.5), (280, 0.3), (290, 0.2)] {
            let seen = picked.iter().filter(|&&picked| picked == token).count() as f64 / 20_000.0;
            assert!((seen - share).abs() < 0.02, "{token}: {seen} instead of {share}");
        }
    }
}

#[test]
fn top_k_and_top_p_keep_the_likeliest() {
    let top_k = Sampling {
        top_k: Some(3),
        ..Sampling::default()
    };
    assert!(picks(&top_k, 200).iter().all(|token| (6..=8).contains(token)));
    let tiny_p = Sampling {
        top_p: Some(0.01),
        ..Sampling::default()
    };
    assert!(picks(&tiny_p, 50).iter().all(|&token| token == 7));
    // 5 has the weight of 9; the vocabulary's order decides.
    let both = Sampling {
        top_k: Some(4),
        top_p: Some(0.999),
        ..Sampling::default()
    };
    assert!(picks(&both, 200).iter().all(|token| (5..=8).contains(token)));
    let all = Sampling {
        top_k: Some(-1),
        seed: Some(1),
        ..Sampling::default()
    };
    assert_eq!(
        picks(&all, 50),
        picks(
            &Sampling {
                seed: Some(1),
                ..Sampling::default()
            },
            50
        )
    );
}

#[test]
fn top_p_keeps_just_enough() {
    // Shares of 50 %, 25 %, 12.5 %, … The first two have 75 % together.
    let logits: Vec<f32> = (0..40_u8)
        .map(|token| -std::f32::consts::LN_2 * f32::from(token))
        .collect();
    let kept = |p| {
        let sampling = Sampling {
            top_p: Some(p),
            temperature: Some(2.0),
            seed: Some(3),
            ..Sampling::default()
        };
        picks_from(&logits, &sampling, 3000).into_iter().max()
    };
    assert_eq!(kept(0.74), Some(1));
    assert_eq!(kept(0.76), Some(2));
    assert_eq!(kept(0.49), Some(0));
}

#[test]
fn penalties_lower_what_was_generated() {
    let picked = picks(
        &Sampling {
            presence_penalty: Some(2.0),
            ..greedy()
        },
        10,
    );
    let mut distinct = picked.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), picked.len());
    assert_eq!(
        picks(
            &Sampling {
                frequency_penalty: Some(0.15),
                ..greedy()
            },
            4
        ),
        [7, 6, 8, 7]
    );
}

#[test]
fn weights_are_exact_enough() {
    for step in 0..8600_u16 {
        let x = -f32::from(step) / 100.0;
        let exact = f64::from(x).exp();
        assert!((f64::from(weight(x)) - exact).abs() <= exact * 1e-5, "{x}");
    }
    assert_eq!(weight(0.0), 1.0);
    assert!(weight(f32::NEG_INFINITY) < 1e-37);
}
