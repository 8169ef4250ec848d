use std::num::NonZeroU32;
use std::ops::Range;

use llm_engine_gateway::{CallerSetup, MOST_POLICIES, MatchSetup, Per, PolicySetup, PriceSetup, ROUTES};
use serde::Deserialize;
use toml::Spanned;

use super::error::{ConfigError, Source};
use super::model::ModelConfig;
use super::nano_usd::NanoUsd;
use super::quota::{LIMITS, RawLimits, RawMode, RawOutputReservation, RawQuota};

/// One of `[[policies]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    name: Spanned<String>,
    #[serde(default, rename = "match")]
    matches: RawMatch,
    #[serde(default)]
    per: Vec<RawPer>,
    requests: Option<Spanned<RawQuota>>,
    input_tokens: Option<Spanned<RawQuota>>,
    output_tokens: Option<Spanned<RawQuota>>,
    tokens: Option<Spanned<RawQuota>>,
    usd: Option<Spanned<RawQuota<NanoUsd>>>,
    concurrency: Option<NonZeroU32>,
    mode: Option<RawMode>,
    hold: Option<Spanned<String>>,
    output_reservation: Option<RawOutputReservation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    caller: Option<Spanned<String>>,
    team: Option<Spanned<String>>,
    user: Option<String>,
    model: Option<Spanned<String>>,
    route: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawPer {
    Key,
    User,
    Team,
    Model,
    Route,
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
) -> Result<Vec<PolicySetup>, ConfigError> {
    let mut checked: Vec<PolicySetup> = Vec::with_capacity(policies.len() + deployments.len());
    let all_spans = policies.iter().map(|policy| policy.name.span());
    let mut all_spans = all_spans.chain(deployments.iter().map(|deployment| deployment.span.clone()));
    if let Some(span) = all_spans.nth(MOST_POLICIES) {
        let message =
            format!("there are more than {MOST_POLICIES} policies, those of deployments among them");
        return Err(source.error(span, message));
    }
    for policy in policies {
        check_name(&policy.name, &checked, source)?;
        checked.push(check(policy, names, source)?);
    }
    for DeploymentLimits { model, limits, .. } in deployments {
        let name = free_name(&model, &checked);
        let matches = MatchSetup {
            model: Some(model),
            ..MatchSetup::default()
        };
        checked.push(PolicySetup {
            name,
            ..check_limits(limits, matches, names, source)?
        });
    }
    Ok(checked)
}

/// Names stand in headers, in strings where nothing has to be escaped.
fn is_printable(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn check_name(
    name: &Spanned<String>,
    others: &[PolicySetup],
    source: &Source<'_>,
) -> Result<(), ConfigError> {
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

fn check(raw: RawPolicy, names: Names<'_>, source: &Source<'_>) -> Result<PolicySetup, ConfigError> {
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
) -> Result<PolicySetup, ConfigError> {
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
fn check_match(raw: RawMatch, names: Names<'_>, source: &Source<'_>) -> Result<MatchSetup, ConfigError> {
    let RawMatch {
        caller,
        team,
        user,
        model,
        route,
    } = raw;
    let known = |name: Option<Spanned<String>>, what: &str, is_known: &dyn Fn(&str) -> bool| match name {
        Some(name) if !is_known(name.get_ref()) => {
            Err(source.error(name.span(), format!("there is no {what} '{}'", name.get_ref())))
        }
        name => Ok(name.map(Spanned::into_inner)),
    };
    let is_caller = |name: &str| names.callers.iter().any(|caller| caller.name == name);
    let is_team = |name: &str| {
        let mut teams = names.callers.iter().filter_map(|caller| caller.team.as_deref());
        teams.any(|team| team == name)
    };
    let is_model = |name: &str| names.models.iter().any(|model| model.has_name(name));
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
        caller: known(caller, "caller", &is_caller)?,
        team: known(team, "team", &is_team)?,
        user,
        model: known(model, "model", &is_model)?,
        route: route.map(Spanned::into_inner),
    })
}
