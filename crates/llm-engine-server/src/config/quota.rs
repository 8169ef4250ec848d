use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use jiff::tz::TimeZone;
use llm_engine_gateway::{Budget, BudgetSetup, Mode, Period, PolicySetup, Quota, QuotaError, Unit};
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{Mistake, Source};
use super::model::duration;
use super::nano_usd::NanoUsd;
use super::spanned::Spanned;

/// What a policy and a deployment can say alike, as written: how much, and what happens beyond it.
#[derive(Debug)]
pub(super) struct RawLimits {
    pub(super) requests: Option<Spanned<RawQuota>>,
    pub(super) input_tokens: Option<Spanned<RawQuota>>,
    pub(super) output_tokens: Option<Spanned<RawQuota>>,
    pub(super) tokens: Option<Spanned<RawQuota>>,
    pub(super) usd: Option<Spanned<RawQuota<NanoUsd>>>,
    pub(super) concurrency: Option<NonZeroU32>,
    pub(super) mode: Option<RawMode>,
    pub(super) hold: Option<Spanned<String>>,
    pub(super) output_reservation: Option<RawOutputReservation>,
}

/// The settings of [`RawLimits`] that limit something, for messages.
pub(super) const LIMITS: &str = "requests, input_tokens, output_tokens, tokens, usd or concurrency";

/// An amount per window.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Quota")]
pub(super) struct RawQuota<Amount = u64> {
    /// How much in each window.
    limit: Amount,
    /// A duration such as `1m`, or `calendar-day`, `calendar-week`, `calendar-month`.
    window: Spanned<String>,
    /// By whose clocks a calendar window begins, such as `Europe/Berlin`; by default UTC.
    time_zone: Option<Spanned<String>>,
    /// How much at once; by default all of it.
    burst: Option<Amount>,
    /// Whether no window, wherever it begins, may see more than the limit; needs a burst below it.
    #[serde(default)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Mode")]
pub(super) enum RawMode {
    /// Requests are refused.
    Enforce,
    /// It is only said what would be refused.
    Observe,
}

/// How many output tokens a request reserves that names no maximum.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "OutputReservation")]
pub(super) enum RawOutputReservation {
    /// The model's default maximum.
    Maximum,
    /// What all but a few answers of the model stay below.
    Learned,
}

/// Times are booked so far ahead.
const MAX_HOLD: Duration = Duration::from_secs(60);

impl RawLimits {
    pub(super) fn limit_something(&self) -> bool {
        let tokens = [
            &self.requests,
            &self.input_tokens,
            &self.output_tokens,
            &self.tokens,
        ];
        tokens.into_iter().any(Option::is_some) || self.usd.is_some() || self.concurrency.is_some()
    }

    /// The policy that they make, which has no name yet and applies to all requests together.
    pub(super) fn check(self, source: &Source<'_>) -> Result<PolicySetup, Mistake> {
        let Self {
            requests,
            input_tokens,
            output_tokens,
            tokens,
            usd,
            concurrency,
            mode,
            hold,
            output_reservation,
        } = self;
        let mut policy = PolicySetup {
            mode: match mode {
                None | Some(RawMode::Enforce) => Mode::Enforce,
                Some(RawMode::Observe) => Mode::Observe,
            },
            hold: hold.map_or(Ok(Duration::ZERO), |hold| check_hold(&hold, source))?,
            learned_output: matches!(output_reservation, Some(RawOutputReservation::Learned)),
            concurrency,
            ..PolicySetup::default()
        };
        let quotas = [
            (Unit::Requests, requests),
            (Unit::InputTokens, input_tokens),
            (Unit::OutputTokens, output_tokens),
            (Unit::Tokens, tokens),
        ];
        for (unit, quota) in quotas {
            if let Some(quota) = quota {
                add(&mut policy, unit, quota, source)?;
            }
        }
        if let Some(usd) = usd {
            add(&mut policy, Unit::Usd, usd, source)?;
        }
        Ok(policy)
    }
}

fn check_hold(hold: &Spanned<String>, source: &Source<'_>) -> Result<Duration, Mistake> {
    let longest = duration(hold, "hold", source)?;
    if longest > MAX_HOLD {
        let message = format!(
            "hold is '{}'; it can be at most {} s, because times are booked no further ahead",
            hold.get_ref(),
            MAX_HOLD.as_secs()
        );
        return Err(source.error(hold.span(), message));
    }
    Ok(longest)
}

/// A window as written.
enum Window {
    /// It is always the time that has just passed.
    Rolling(Duration),
    /// It begins by the calendar.
    Calendar(Period),
}

/// Adds an amount per window to those of the policy.
fn add<Amount: Into<u64>>(
    policy: &mut PolicySetup,
    unit: Unit,
    raw: Spanned<RawQuota<Amount>>,
    source: &Source<'_>,
) -> Result<(), Mistake> {
    let span = raw.span();
    let RawQuota {
        limit,
        window,
        time_zone,
        burst,
        strict,
    } = raw.into_inner();
    let (limit, burst) = (limit.into(), burst.map(Into::into));
    let fail = |message: &str| source.error(span.clone(), format!("{}: {message}", unit.name()));
    match check_window(&window, source)? {
        Window::Rolling(length) => {
            if let Some(zone) = time_zone {
                let message = "time_zone belongs to calendar-day, calendar-week and calendar-month";
                return Err(source.error(zone.span(), message));
            }
            let quota = match (strict, burst) {
                (true, Some(burst)) => Quota::strict(limit, length, burst),
                (true, None) => return Err(fail("strict = true needs a burst below the limit")),
                (false, Some(burst)) => Quota::with_burst(limit, length, burst),
                (false, None) => Quota::new(limit, length),
            };
            let quota = quota.map_err(|error| quota_error(unit, error, span.clone(), source))?;
            policy.quotas.push((unit, quota));
        }
        Window::Calendar(period) => {
            if strict || burst.is_some() {
                return Err(fail(
                    "burst and strict belong to windows that refill steadily, such as \"1m\"",
                ));
            }
            if limit == 0 {
                return Err(quota_error(unit, QuotaError::ZeroLimit, span.clone(), source));
            }
            if limit > Budget::MAX_LIMIT {
                return Err(fail(&format!(
                    "the limit is above {}, the most that a calendar window can have",
                    unit.amount(Budget::MAX_LIMIT)
                )));
            }
            policy.budgets.push(BudgetSetup {
                unit,
                limit,
                period,
                zone: time_zone.map_or(Ok(TimeZone::UTC), |zone| check_time_zone(&zone, source))?,
            });
        }
    }
    Ok(())
}

/// Its numbers are those that are counted, so for money another unit than what was written.
fn quota_error(unit: Unit, error: QuotaError, span: Range<usize>, source: &Source<'_>) -> Mistake {
    let counted_in = if unit == Unit::Usd {
        ", in nano-dollars"
    } else {
        ""
    };
    source.error(span, format!("{}{counted_in}: {error}", unit.name()))
}

fn check_window(window: &Spanned<String>, source: &Source<'_>) -> Result<Window, Mistake> {
    let text = window.get_ref();
    Ok(match text.as_str() {
        "calendar-day" => Window::Calendar(Period::Day),
        "calendar-week" => Window::Calendar(Period::Week),
        "calendar-month" => Window::Calendar(Period::Month),
        _ => Window::Rolling(humantime::parse_duration(text).map_err(|error| {
            let message = format!(
                "window is '{text}'; it must be a duration such as \"1m\", or one of calendar-day, calendar-week and \
                 calendar-month: {error}"
            );
            source.error(window.span(), message)
        })?),
    })
}

fn check_time_zone(name: &Spanned<String>, source: &Source<'_>) -> Result<TimeZone, Mistake> {
    let zone = TimeZone::get(name.get_ref()).ok();
    zone.filter(|zone| zone.iana_name().is_some()).ok_or_else(|| {
        let message = format!(
            "time_zone is '{}'; it must be the name of a time zone, such as Europe/Berlin",
            name.get_ref()
        );
        source.error(name.span(), message)
    })
}
