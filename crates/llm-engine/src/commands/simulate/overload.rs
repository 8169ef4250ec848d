mod report;

use std::num::NonZeroU32;

use llm_engine_overload::{
    AdmissionSetup, Backoff, CallerLoad, Change, Clients, EngineSetup, Lengths, Limit, Scenario,
};

use super::settings::{COUNT, DURATION, RATE, Settings, SettingsError, above_zero, count, duration, rate};

pub(super) use report::Report;

/// What is done to models that are full.
#[derive(Debug, Clone)]
pub(super) struct Overload {
    /// With the load of 1.
    scenario: Scenario,
    /// Multiples of the rate.
    loads: Vec<f64>,
    limit: Limits,
    seeds: u64,
}

/// Which limits are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limits {
    One(Limit),
    /// The adaptive one beside the best fixed one.
    Sweep {
        most: NonZeroU32,
    },
}

const NAMES: &str = "load, rate, callers, first, input, output, kv, base, spread, slower, halved, retries, obedient, gateways, limit, most, wait, for, warm_up and seeds";

impl Overload {
    /// Reads words such as `load=1,2,10`.
    pub(super) fn parse(text: &str, seed: u64) -> Result<Self, SettingsError> {
        let mut settings = Settings::split(text, NAMES)?;
        let loads = settings.read("load", "numbers above 0, such as 1,2,10", numbers)?;
        let rate = settings.read("rate", RATE, rate)?.unwrap_or(8.8);
        let callers = settings.read("callers", COUNT, count)?.unwrap_or(2);
        let first = settings
            .read("first", "a number above 0", above_zero)?
            .unwrap_or(1.0);
        let input = settings.read("input", COUNT, count)?.unwrap_or(500);
        let output = settings.read("output", COUNT, count)?.unwrap_or(250);
        let lasts = settings.read("for", DURATION, seconds)?.unwrap_or(240.0);
        let warm_up = settings.read("warm_up", DURATION, seconds)?.unwrap_or(60.0);
        let most = settings.read("most", COUNT, number)?.unwrap_or(NonZeroU32::MAX);
        let limits = settings.read("limit", "adaptive, sweep or a whole number", |text| {
            limits(text, most)
        })?;
        let limit = limits.unwrap_or(Limits::One(Limit::Adaptive { most }));
        let caller = CallerLoad {
            input: lengths(input, 16.0, 8.0),
            output: lengths(output, 4.0, 8.0),
            ..CallerLoad::usual(0.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "a few callers")]
        let share = rate / (callers as f64 - 1.0 + first);
        let mut callers: Vec<CallerLoad> = (0..callers)
            .map(|_| CallerLoad {
                rate: share,
                ..caller
            })
            .collect();
        callers[0].rate *= first;
        let one = Limit::Adaptive { most };
        let usual = Scenario::new(one, callers);
        let wait = settings
            .read("wait", DURATION, duration)?
            .unwrap_or(usual.admission.wait);
        let scenario = Scenario {
            engine: engine(&mut settings)?,
            admission: AdmissionSetup {
                wait,
                booked_wait: wait.mul_f64(1.5),
                ..usual.admission
            },
            gateways: settings
                .read(
                    "gateways",
                    "the gateways' parts of the load, such as 7,2,1",
                    numbers,
                )?
                .unwrap_or(usual.gateways),
            callers: usual.callers,
            clients: clients(&mut settings)?,
            changes: changes(&mut settings, lasts)?,
            lasts,
            warm_up: warm_up.min(lasts / 2.0),
            seed,
        };
        Ok(Self {
            scenario,
            loads: loads.unwrap_or_else(|| vec![1.0, 2.0, 10.0]),
            limit,
            seeds: settings.read("seeds", COUNT, count)?.unwrap_or(5),
        })
    }
}

fn engine(settings: &mut Settings) -> Result<EngineSetup, SettingsError> {
    let usual = EngineSetup::default();
    Ok(EngineSetup {
        kv_tokens: settings.read("kv", COUNT, count)?.unwrap_or(usual.kv_tokens),
        base_seconds: settings
            .read("base", DURATION, seconds)?
            .unwrap_or(usual.base_seconds),
        base_spread: settings
            .read("spread", "a number above 0", above_zero)?
            .unwrap_or(usual.base_spread),
        ..usual
    })
}

fn clients(settings: &mut Settings) -> Result<Clients, SettingsError> {
    let part = |text: &str| text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    let retries = |text: &str| text.parse().ok();
    Ok(Clients {
        retries: settings.read("retries", "a whole number", retries)?.unwrap_or(0),
        backoff: Backoff::Exponential,
        obedient: settings
            .read("obedient", "a number from 0 to 1", part)?
            .unwrap_or(1.0),
        ..Clients::default()
    })
}

/// The engine is slower from a third of the time on for 20 s, or has half of its capacity in the middle third.
fn changes(settings: &mut Settings, lasts: f64) -> Result<Vec<(f64, Change)>, SettingsError> {
    settings.exclude("slower", "halved")?;
    let begin = lasts / 3.0;
    if let Some(times) = settings.read("slower", "a number above 0", above_zero)? {
        return Ok(vec![
            (begin, Change::Slower(times)),
            (begin + 20.0, Change::Slower(1.0)),
        ]);
    }
    let yes = |text: &str| text.parse().ok();
    Ok(match settings.read("halved", "true or false", yes)? {
        Some(true) => vec![
            (begin, Change::Capacity(0.5)),
            (2.0 * begin, Change::Capacity(1.0)),
        ],
        _ => Vec::new(),
    })
}

fn limits(text: &str, most: NonZeroU32) -> Option<Limits> {
    match text {
        "adaptive" => Some(Limits::One(Limit::Adaptive { most })),
        "sweep" => Some(Limits::Sweep { most }),
        fixed => Some(Limits::One(Limit::Fixed(number(fixed)?))),
    }
}

/// Distributed as widely as they are in practice: the longest is some times as long as the mean.
fn lengths(mean: u64, least: f64, longest: f64) -> Lengths {
    #[expect(clippy::cast_precision_loss, reason = "a length")]
    let mean = mean as f64;
    Lengths {
        mean,
        spread: 1.0,
        least: least.min(mean),
        most: mean * longest,
    }
}

fn numbers(text: &str) -> Option<Vec<f64>> {
    text.split(',').map(above_zero).collect()
}

fn number(text: &str) -> Option<NonZeroU32> {
    text.parse().ok()
}

fn seconds(text: &str) -> Option<f64> {
    duration(text).map(|duration| duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_default() {
        let usual = Overload::parse("", 1).unwrap();
        let said = "load=1,2,10 rate=8.8/s callers=2 first=1 input=500 output=250 kv=50000 base=0s retries=0 \
                    obedient=1 gateways=1 limit=adaptive wait=2s for=240s warm_up=60s seeds=5";
        assert_eq!(
            format!("{usual:?}"),
            format!("{:?}", Overload::parse(said, 1).unwrap())
        );
    }

    #[test]
    fn each_mistake_is_told() {
        for (text, expected) in [
            ("lode=1", "there is no setting 'lode'; there are load, rate,"),
            ("load=0", "load=0: it must be numbers above 0, such as 1,2,10"),
            ("base=5", "base=5: it must be a duration"),
            (
                "limit=none",
                "limit=none: it must be adaptive, sweep or a whole number",
            ),
            ("limit=0", "limit=0: it must be"),
            ("obedient=2", "obedient=2: it must be a number from 0 to 1"),
            ("slower=5 halved=true", "slower and halved exclude each other"),
        ] {
            let message = Overload::parse(text, 1).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}
