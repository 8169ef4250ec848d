use std::num::NonZeroU32;
use std::ops::Range;

use llm_engine_gateway::{CallerSetup, MOST_POLICIES, MatchSetup, Per, PolicySetup, PriceSetup, ROUTES};
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{Mistake, Mistakes, Source};
use super::model::ModelConfig;
use super::nano_usd::NanoUsd;
use super::nearest::nearest;
use super::quota::{LIMITS, RawLimits, RawMode, RawOutputReservation, RawQuota};
use super::spanned::Spanned;

/// A named set of limits, and what they are counted per.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub(super) struct RawPolicy {
    /// By which answers, the log and the metrics know it.
    name: Spanned<String>,
    /// Which requests it applies to; all of it must be so.
    #[serde(default, rename = "match")]
    matches: RawMatch,
    /// What has an amount of its own; nothing: all requests together have one.
    #[serde(default)]
    per: Vec<RawPer>,
    /// How many requests.
    requests: Option<Spanned<RawQuota>>,
    /// How many tokens of prompts.
    input_tokens: Option<Spanned<RawQuota>>,
    /// How many generated tokens.
    output_tokens: Option<Spanned<RawQuota>>,
    /// How many tokens of either kind.
    tokens: Option<Spanned<RawQuota>>,
    /// How many dollars, at the models' prices.
    usd: Option<Spanned<RawQuota<NanoUsd>>>,
    /// How many requests at the same time.
    concurrency: Option<NonZeroU32>,
    /// Whether it refuses, or only shows what it would refuse.
    mode: Option<RawMode>,
    /// How long a request waits in the server instead of being refused, at most 60s.
    hold: Option<Spanned<String>>,
    /// How many output tokens a request reserves that names no maximum.
    output_reservation: Option<RawOutputReservation>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Match")]
struct RawMatch {
    /// Of this caller.
    caller: Option<Spanned<String>>,
    /// Of callers of this team.
    team: Option<Spanned<String>>,
    /// For this end user.
    user: Option<String>,
    /// For this model.
    model: Option<Spanned<String>>,
    /// By this route, such as `/v1/chat/completions`.
    route: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Per")]
enum RawPer {
    /// Each caller.
    Key,
    /// Each end user, as trusted callers name them.
    User,
    /// Each team.
    Team,
    /// Each model.
    Model,
    /// Each HTTP route.
    Route,
    /// Each address; of IPv6 each network of 64 bits.
    Address,
}

/// What a deployment may be asked for, as its provider has set it.
#[derive(Debug)]
pub(super) struct DeploymentLimits {
    /// Its model, by its first name.
    pub(super) model: String,
    /// Where they are written.
    pub(super) span: Range<usize>,
    pub(super) limits: RawLimits,
}

/// What policies can speak of.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) models: &'a [ModelConfig],
    pub(super) callers: &'a [CallerSetup],
}

/// The policies, and one more for each deployment that is limited.
pub(super) fn check_all(
    policies: Vec<RawPolicy>,
    deployments: Vec<DeploymentLimits>,
    names: Names<'_>,
    source: &Source<'_>,
    mistakes: &mut Mistakes,
) -> Vec<PolicySetup> {
    let mut checked: Vec<PolicySetup> = Vec::with_capacity(policies.len() + deployments.len());
    let all_spans = policies.iter().map(|policy| policy.name.span());
    let mut all_spans = all_spans.chain(deployments.iter().map(|deployment| deployment.span.clone()));
    if let Some(span) = all_spans.nth(MOST_POLICIES) {
        let message =
            format!("there are more than {MOST_POLICIES} policies, those of deployments among them");
        mistakes.keep::<()>(Err(source.error(span, message)));
    }
    for policy in policies {
        let policy = check_name(&policy.name, &checked, source).and_then(|()| check(policy, names, source));
        checked.extend(mistakes.keep(policy));
    }
    for DeploymentLimits { model, limits, .. } in deployments {
        let name = free_name(&model, &checked);
        let matches = MatchSetup {
            model: Some(model),
            ..MatchSetup::default()
        };
        let policy = check_limits(limits, matches, names, source);
        let policy = policy.map(|policy| PolicySetup { name, ..policy });
        checked.extend(mistakes.keep(policy));
    }
    checked
}

/// Names stand in headers, in strings where nothing has to be escaped.
fn is_printable(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn check_name(name: &Spanned<String>, others: &[PolicySetup], source: &Source<'_>) -> Result<(), Mistake> {
    let text = name.get_ref();
    if text.is_empty() || !text.chars().all(is_printable) {
        let message = format!("policy '{text}': a name has letters, digits, '-', '_' and '.' only");
        return Err(source.error(name.span(), message));
    }
    if others.iter().any(|other| other.name == *text) {
        return Err(source.error(name.span(), format!("two policies have the name '{text}'")));
    }
    Ok(())
}

/// The name of a deployment's policy: its model's, as far as it can be printed, and unlike all others.
fn free_name(model: &str, others: &[PolicySetup]) -> String {
    let printable: String = model
        .chars()
        .map(|c| if is_printable(c) { c } else { '-' })
        .collect();
    let mut name = format!("{printable}.deployment");
    let mut number = 1;
    while others.iter().any(|other| other.name == name) {
        number += 1;
        name = format!("{printable}.deployment-{number}");
    }
    name
}

fn check(raw: RawPolicy, names: Names<'_>, source: &Source<'_>) -> Result<PolicySetup, Mistake> {
    let RawPolicy {
        name,
        matches,
        per,
        requests,
        input_tokens,
        output_tokens,
        tokens,
        usd,
        concurrency,
        mode,
        hold,
        output_reservation,
    } = raw;
    let limits = RawLimits {
        requests,
        input_tokens,
        output_tokens,
        tokens,
        usd,
        concurrency,
        mode,
        hold,
        output_reservation,
    };
    if !limits.limit_something() {
        let message = format!("policy '{}' limits nothing; give it {LIMITS}", name.get_ref());
        return Err(source.error(name.span(), message));
    }
    let needs_users = matches.user.is_some() || per.contains(&RawPer::User);
    if needs_users && !names.callers.iter().any(|caller| caller.names_users) {
        let message = format!(
            "policy '{}' speaks of users, but no caller is believed for whom it asks; give one trusted_users = true",
            name.get_ref()
        );
        return Err(source.error(name.span(), message));
    }
    let matches = check_match(matches, names, source)?;
    Ok(PolicySetup {
        name: name.into_inner(),
        per: Per {
            caller: per.contains(&RawPer::Key),
            team: per.contains(&RawPer::Team),
            user: per.contains(&RawPer::User),
            model: per.contains(&RawPer::Model),
            route: per.contains(&RawPer::Route),
            address: per.contains(&RawPer::Address),
        },
        ..check_limits(limits, matches, names, source)?
    })
}

/// The policy that these limits make for these requests. Money can be counted only where something has a price.
fn check_limits(
    limits: RawLimits,
    matches: MatchSetup,
    names: Names<'_>,
    source: &Source<'_>,
) -> Result<PolicySetup, Mistake> {
    let is_meant = |model: &&ModelConfig| matches.model.as_deref().is_none_or(|name| model.has_name(name));
    let is_priced = |model: &ModelConfig| model.price != PriceSetup::default();
    if let Some(usd) = &limits.usd
        && !names.models.iter().filter(is_meant).any(is_priced)
    {
        let message = "usd: no model that this applies to has a price, so nothing would be counted; give one its \
                       price = { input_usd_per_million = 0.15, output_usd_per_million = 0.60 }";
        return Err(source.error(usd.span(), message));
    }
    Ok(PolicySetup {
        matches,
        ..limits.check(source)?
    })
}

/// Every name must be that of something, except those of users, which are the callers' own.
fn check_match(raw: RawMatch, names: Names<'_>, source: &Source<'_>) -> Result<MatchSetup, Mistake> {
    let RawMatch {
        caller,
        team,
        user,
        model,
        route,
    } = raw;
    let callers = || names.callers.iter().map(|caller| caller.name.as_str());
    let teams = || names.callers.iter().filter_map(|caller| caller.team.as_deref());
    let models = || names.models.iter().flat_map(ModelConfig::names);
    if let Some(route) = &route
        && !ROUTES.contains(&route.get_ref().as_str())
    {
        let message = format!(
            "route is '{}'; it must be one of {}",
            route.get_ref(),
            ROUTES.join(", ")
        );
        return Err(source.error(route.span(), message));
    }
    Ok(MatchSetup {
        caller: known(caller, "caller", callers(), source)?,
        team: known(team, "team", teams(), source)?,
        user,
        model: known(model, "model", models(), source)?,
        route: route.map(Spanned::into_inner),
    })
}

/// A name that something has, if one is given.
fn known<'a>(
    name: Option<Spanned<String>>,
    what: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    source: &Source<'_>,
) -> Result<Option<String>, Mistake> {
    name.map(|name| check_known(name, what, names, source))
        .transpose()
}

/// A name that something has.
pub(super) fn check_known<'a>(
    name: Spanned<String>,
    what: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    source: &Source<'_>,
) -> Result<String, Mistake> {
    let text = name.get_ref();
    if names.clone().any(|known| known == text) {
        return Ok(name.into_inner());
    }
    let meant = match nearest(text, names) {
        Some(near) => format!("; did you mean '{near}'?"),
        None => String::new(),
    };
    Err(source.error(name.span(), format!("there is no {what} '{text}'{meant}")))
}
