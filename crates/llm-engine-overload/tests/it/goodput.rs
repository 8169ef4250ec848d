use llm_engine_overload::{
    CallerLoad, Estimate, Limit, Outcome, Scenario, best_fixed, estimate, simulate_seeds,
};

use crate::{SEEDS, adaptive, fixed, mean, paired, print, row, usual};

/// Prompts of 4,000 tokens, on average, before an engine with the memory for them.
fn long(limit: Limit, load: f64) -> Scenario {
    let mut scenario = Scenario::new(limit, vec![CallerLoad::long(4.5 * load / 2.0); 2]);
    scenario.engine.kv_tokens = 300_000;
    scenario
}

type Prompts = fn(Limit, f64) -> Scenario;

/// The base, and the fixed limits that are best at 1, 2 and 10 times the capacity: over seeds 201 to 220, of a sweep in steps of a
/// fourteenth.
type Best = (f64, [u32; 3]);

const USUAL: [Best; 4] = [
    (0.1, [68, 72, 72]),
    (0.7, [72, 72, 72]),
    (2.0, [82, 82, 87]),
    (5.0, [110, 103, 110]),
];
const LONG: [Best; 4] = [
    (0.1, [60, 64, 82]),
    (0.7, [60, 64, 87]),
    (2.0, [68, 68, 93]),
    (5.0, [85, 85, 85]),
];
const LOADS: [f64; 3] = [1.0, 2.0, 10.0];

/// All cases: the prompts, the base, the load, and the fixed limit that is best.
fn cells() -> impl Iterator<Item = (&'static str, Prompts, f64, f64, u32)> {
    let prompts: [(_, Prompts, _); 2] = [("500", usual, USUAL), ("4,000", long, LONG)];
    prompts.into_iter().flat_map(|(name, prompts, best)| {
        best.into_iter().flat_map(move |(base, best)| {
            let loads = LOADS.into_iter().zip(best);
            loads.map(move |(load, best)| (name, prompts, base, load, best))
        })
    })
}

/// Goodput as a part of that of the best fixed limit.
fn part_of_best(
    prompts: Prompts,
    base: f64,
    load: f64,
    best: Limit,
    seeds: impl IntoIterator<Item = u64> + Clone,
) -> Estimate {
    let outcomes = |limit| {
        let mut scenario = prompts(limit, load);
        scenario.engine.base_seconds = base;
        simulate_seeds(&scenario, seeds.clone())
    };
    paired(&outcomes(adaptive()), &outcomes(best), Outcome::goodput)
}

/// The independent model in Python of the same engine says for two seeds: at twice its capacity 8.9 and 8.3 good answers a second with
/// 60 in flight and none with 160; with long prompts 4.4 with 60.
#[test]
fn the_engine_is_the_one_that_was_modelled_before() {
    let goodput = |scenario: &Scenario| mean(&simulate_seeds(scenario, 1..=4), Outcome::goodput);
    let good = goodput(&usual(fixed(60), 2.0));
    assert!((8.0..9.2).contains(&good), "{good}");
    let overrun = goodput(&usual(fixed(160), 2.0));
    assert!(overrun < 0.2, "{overrun}");
    let long = goodput(&long(fixed(60), 12.0 / 4.5));
    assert!((3.9..4.9).contains(&long), "{long}");
}

#[test]
fn goodput_is_that_of_the_best_fixed_limit_whatever_the_load_the_base_and_the_prompts() {
    let mut parts = Vec::new();
    for (prompts, scenario, base, load, best) in cells() {
        let part = part_of_best(scenario, base, load, fixed(best), 1..=6).mean;
        assert!(
            part > 0.92,
            "prompts {prompts}, base {base} s, load {load}: {part}"
        );
        parts.push(part);
    }
    let all = estimate(parts).mean;
    assert!(all > 0.99, "{all}");
}

/// The best fixed limits are looked for anew, on as many other seeds.
#[test]
#[ignore = "takes a minute"]
fn table_of_goodput() {
    print("| prompts, base, load | best fixed limit | adaptive, of its goodput |\n|---|---|---|");
    let mut missed = Vec::new();
    for (prompts, scenario, base, load, known) in cells() {
        let mut swept = scenario(adaptive(), load);
        swept.engine.base_seconds = base;
        let limits: Vec<u32> = std::iter::successors(Some(known * 3 / 5), |limit| Some(limit + limit / 14))
            .take_while(|limit| *limit < known * 3 / 2)
            .collect();
        let best = best_fixed(&swept, &limits, 221..=240).expect("some are tried");
        let part = part_of_best(scenario, base, load, best, SEEDS);
        let name = format!("{prompts} tokens, {base} s, {load}x | {best:?}");
        row(&name, part);
        if part.mean < 0.98 {
            missed.push((name, part));
        }
    }
    // Of 24 means that are each known to about 0.03 some are below by chance.
    let certain = |(_, part): &&(String, Estimate)| part.mean + part.within < 0.98;
    print(&format!("below 0.98: {missed:?}"));
    assert_eq!(missed.iter().find(certain), None);
}
