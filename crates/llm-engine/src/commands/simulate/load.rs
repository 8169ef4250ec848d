use std::time::Duration;

use jiff::Timestamp;
use llm_engine_gateway::{Fingerprint, ROUTES, Retry, Tokens};
use llm_engine_server::config::ModelConfig;

use super::Request;
use super::settings::{COUNT, DURATION, RATE, Settings, SettingsError, above_zero, count, duration, rate};

/// Requests that are made up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Load {
    callers: Callers,
    arrivals: Arrivals,
    after: Duration,
    model: String,
    route: &'static str,
    /// Means.
    tokens: Tokens,
    max_output: u64,
    /// Output tokens per second.
    speed: f64,
    retry: Retry,
    attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Callers {
    One(String),
    Many(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Arrivals {
    /// Of all callers together.
    Poisson {
        per_second: f64,
        lasting: Duration,
    },
    AtOnce(u64),
}

const NAMES: &str = "callers, caller, rate, for, requests, after, model, route, input, output, max_output, speed, retry and attempts";

impl Load {
    /// Reads words such as `rate=10/s`.
    pub(super) fn parse(text: &str, models: &[ModelConfig]) -> Result<Self, SettingsError> {
        let mut settings = Settings::split(text, NAMES)?;

        settings.exclude("callers", "caller")?;
        let callers = match settings.take("caller") {
            Some(name) => Callers::One(name),
            None => Callers::Many(settings.read("callers", COUNT, count)?.unwrap_or(1)),
        };
        settings.exclude("requests", "rate")?;
        settings.exclude("requests", "for")?;
        let arrivals = match settings.read("requests", COUNT, count)? {
            Some(requests) => Arrivals::AtOnce(requests),
            None => Arrivals::Poisson {
                per_second: settings.read("rate", RATE, rate)?.unwrap_or(10.0),
                lasting: settings
                    .read("for", DURATION, duration)?
                    .unwrap_or(Duration::from_secs(60)),
            },
        };
        let names = models
            .iter()
            .flat_map(|model| std::iter::once(&model.name).chain(&model.aliases));
        let names: Vec<&str> = names.map(String::as_str).collect();
        let known_model = |name: &str| names.contains(&name).then(|| name.to_owned());
        let model = settings.read("model", &format!("one of {}", names.join(", ")), known_model)?;
        let known_route = |route: &str| ROUTES.iter().find(|known| **known == route).copied();
        let route = settings.read("route", &format!("one of {}", ROUTES.join(", ")), known_route)?;
        let retry = |text: &str| match text {
            "told" => Some(Retry::Told),
            "tenacity" => Some(Retry::Tenacity),
            "none" => Some(Retry::Never),
            _ => None,
        };
        Ok(Self {
            callers,
            arrivals,
            after: settings.read("after", DURATION, duration)?.unwrap_or_default(),
            model: model.unwrap_or_else(|| names.first().copied().unwrap_or_default().to_owned()),
            route: route.unwrap_or("/v1/chat/completions"),
            tokens: Tokens {
                input: settings.read("input", COUNT, count)?.unwrap_or(500),
                output: settings.read("output", COUNT, count)?.unwrap_or(250),
            },
            max_output: settings.read("max_output", COUNT, count)?.unwrap_or(512),
            speed: settings
                .read("speed", "a number above 0", above_zero)?
                .unwrap_or(50.0),
            retry: settings
                .read("retry", "told, tenacity or none", retry)?
                .unwrap_or(Retry::Told),
            attempts: settings
                .read("attempts", COUNT, |text| count(text)?.try_into().ok())?
                .unwrap_or(6),
        })
    }
}

/// The requests of a load, one after the other.
#[derive(Debug)]
pub(super) struct LoadRequests<'a> {
    load: &'a Load,
    random: fastrand::Rng,
    start: Timestamp,
    /// Since the start.
    at: Duration,
    made: u64,
    /// What no other load's fingerprints begin with.
    number: u64,
}

impl<'a> LoadRequests<'a> {
    /// `number`: among the loads of one simulation.
    pub(super) fn new(load: &'a Load, number: u64, start: Timestamp, seed: u64) -> Self {
        // Each load has randomness of its own, so that another one beside it changes nothing of its requests.
        let random = fastrand::Rng::with_seed(seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        Self {
            load,
            random,
            start,
            at: load.after,
            made: 0,
            number,
        }
    }

    /// Exponential with this mean.
    fn exponential(&mut self, mean: f64) -> f64 {
        // Between 0, excluded, and 1.
        -(1.0 - self.random.f64()).ln() * mean
    }

    fn tokens(&mut self, mean: u64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a random amount above 0, which no digit is missed of"
        )]
        let tokens = self.exponential(mean as f64).round() as u64;
        tokens.max(1)
    }
}

impl Iterator for LoadRequests<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let load = self.load;
        match load.arrivals {
            Arrivals::AtOnce(requests) if self.made >= requests => return None,
            Arrivals::AtOnce(_) => {}
            Arrivals::Poisson { per_second, lasting } => {
                let pause =
                    Duration::try_from_secs_f64(self.exponential(1.0 / per_second)).unwrap_or(Duration::MAX);
                self.at = self.at.saturating_add(pause);
                if self.at >= load.after.saturating_add(lasting) {
                    return None;
                }
            }
        }
        self.made += 1;
        let caller = match &load.callers {
            Callers::One(name) => name.clone(),
            // At once, each caller has its share; over time it is by chance.
            Callers::Many(callers) => match load.arrivals {
                Arrivals::AtOnce(_) => format!("load-{}", 1 + (self.made - 1) % callers),
                Arrivals::Poisson { .. } => format!("load-{}", self.random.u64(1..=*callers)),
            },
        };
        let input = self.tokens(load.tokens.input);
        let output = self.tokens(load.tokens.output).min(load.max_output);
        #[expect(clippy::cast_precision_loss, reason = "nobody counts the nanoseconds")]
        let seconds = output as f64 / load.speed;
        Some(Request {
            at: self.start.checked_add(self.at).ok()?,
            caller,
            model: load.model.clone(),
            route: load.route.to_owned(),
            asked: Tokens {
                input,
                output: load.max_output,
            },
            used: Some(Tokens { input, output }),
            lasts: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
            fingerprint: Fingerprint {
                digest: self.number << 48 | self.made,
                // Our clients send an idempotency key with every call; the published example sends none.
                is_unique: load.retry != Retry::Tenacity,
            },
            retry: load.retry,
            attempts: load.attempts,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use llm_engine_server::config::Config;

    use super::*;

    fn models() -> Vec<ModelConfig> {
        let text = "[models.m]\naliases = ['n']\ngguf = 'm.gguf'\n[models.z]\ngguf = 'z.gguf'\n";
        Config::parse(text, Path::new("x")).unwrap().models
    }

    fn parse(text: &str) -> Load {
        Load::parse(text, &models()).unwrap()
    }

    fn requests(text: &str, seed: u64) -> Vec<Request> {
        LoadRequests::new(&parse(text), 0, Timestamp::UNIX_EPOCH, seed).collect()
    }

    #[test]
    fn every_setting_has_a_default() {
        let expected = "callers=1 rate=10/s for=1m after=0s model=m route=/v1/chat/completions input=500 output=250 \
                        max_output=512 speed=50 retry=told attempts=6";
        assert_eq!(parse(""), parse(expected));
        assert_eq!(parse("rate=600/m"), parse("rate=10/s"));
        assert_eq!(parse("caller=alice").callers, Callers::One("alice".to_owned()));
        assert_eq!(parse("requests=3").arrivals, Arrivals::AtOnce(3));
        assert_eq!(parse("model=n").model, "n");
    }

    #[test]
    fn each_mistake_in_a_load_is_told() {
        for (text, expected) in [
            ("rate", "'rate' is not of the form name=value"),
            (
                "rat=1/s",
                "there is no setting 'rat'; there are callers, caller, rate,",
            ),
            ("rate=1/s rate=2/s", "rate is set twice"),
            ("rate=10", "rate=10: it must be a number per time, such as 10/s"),
            ("rate=0/s", "rate=0/s: it must be"),
            ("rate=NaN/s", "rate=NaN/s: it must be"),
            ("for=ten", "for=ten: it must be a duration, such as 90s"),
            ("callers=0", "callers=0: it must be a whole number, at least 1"),
            ("callers=2 caller=a", "callers and caller exclude each other"),
            ("requests=2 for=1m", "requests and for exclude each other"),
            ("model=x", "model=x: it must be one of m, n, z"),
            ("route=/x", "route=/x: it must be one of /v1/llm/completions-sync"),
            (
                "retry=backoff",
                "retry=backoff: it must be told, tenacity or none",
            ),
            ("speed=-1", "speed=-1: it must be a number above 0"),
            (
                "attempts=4294967296",
                "attempts=4294967296: it must be a whole number",
            ),
        ] {
            let message = Load::parse(text, &models()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }

    #[test]
    fn arrivals_and_tokens_are_random_around_their_means_and_the_same_for_one_seed() {
        let text = "callers=10 rate=100/s for=100s input=200 output=100 max_output=10000";
        let made = requests(text, 1);
        assert!(made.len().abs_diff(10_000) < 500, "{}", made.len());
        assert!(made.is_sorted_by_key(|request| request.at));
        let mean = |tokens: fn(Tokens) -> u64| {
            let sum: u64 = made.iter().map(|request| tokens(request.used.unwrap())).sum();
            sum as f64 / made.len() as f64
        };
        assert!((mean(|tokens| tokens.input) - 200.0).abs() < 10.0);
        assert!((mean(|tokens| tokens.output) - 100.0).abs() < 5.0);
        let first = |made: &[Request]| format!("{:?}", &made[..100]);
        assert_eq!(first(&made), first(&requests(text, 1)));
        assert_ne!(first(&made), first(&requests(text, 2)));
    }

    #[test]
    fn requests_at_once_are_shared_out_among_the_callers() {
        let made = requests("callers=3 requests=7 after=5s max_output=20", 1);
        let callers: Vec<&str> = made.iter().map(|request| request.caller.as_str()).collect();
        assert_eq!(
            callers,
            [
                "load-1", "load-2", "load-3", "load-1", "load-2", "load-3", "load-1"
            ]
        );
        for request in &made {
            assert_eq!(request.at, Timestamp::UNIX_EPOCH + Duration::from_secs(5));
            assert!(request.used.unwrap().output <= 20 && request.asked.output == 20);
        }
    }
}
