//! A policy in words: for whoever starts the server, and for the page that its callers read.

mod explained;

use llm_engine_gateway::{BudgetSetup, Counted, MatchSetup, Mode, Per, PolicySetup, Quota, Unit};

pub use explained::{Explained, Limit, explained};

/// All of it in one line: `per-key, each key and model: 60 requests per minute (at most 20 at once)`.
#[must_use]
pub fn line(policy: &PolicySetup) -> String {
    let PolicySetup {
        name, matches, per, ..
    } = policy;
    let applies_to = match applies_to(matches) {
        all if all.is_empty() => String::new(),
        some => format!(" for {}", some.join(" and ")),
    };
    let terms = match terms(policy) {
        none if none.is_empty() => String::new(),
        some => format!(" ({})", some.join(", ")),
    };
    format!(
        "{name}{applies_to}, {}: {}{terms}",
        counted_for(*per),
        limits(policy).join(", ")
    )
}

/// Which requests it applies to, all of it at the same time: `team research`, `model big`. Empty: to all requests.
#[must_use]
pub fn applies_to(matches: &MatchSetup) -> Vec<String> {
    let MatchSetup {
        caller,
        team,
        user,
        model,
        route,
    } = matches;
    [
        ("caller", caller),
        ("team", team),
        ("user", user),
        ("model", model),
        ("route", route),
    ]
    .into_iter()
    .filter_map(|(kind, name)| Some(format!("{kind} {}", name.as_deref()?)))
    .collect()
}

/// What has an amount of its own: `each key and model`, or `all together`.
#[must_use]
pub fn counted_for(per: Per) -> String {
    let Per {
        caller,
        team,
        user,
        model,
        route,
        address,
    } = per;
    let kinds = [
        (caller, "key"),
        (team, "team"),
        (user, "user"),
        (model, "model"),
        (route, "route"),
        (address, "address"),
    ];
    let kinds: Vec<&str> = kinds
        .into_iter()
        .filter_map(|(is_counted, kind)| is_counted.then_some(kind))
        .collect();
    if kinds.is_empty() {
        "all together".to_owned()
    } else {
        format!("each {}", kinds.join(" and "))
    }
}

/// What it limits: `60 requests per minute (at most 20 at once)`, `$20.00 per calendar month (Europe/Berlin)`.
#[must_use]
pub fn limits(policy: &PolicySetup) -> Vec<String> {
    let quotas = policy
        .quotas
        .iter()
        .map(|(unit, quota)| quota_words(*unit, quota));
    let budgets = policy.budgets.iter().map(budget_words);
    let concurrency = policy.concurrency.iter();
    let concurrency = concurrency.map(|most| Counted::Concurrency.amount(most.get().into()));
    quotas.chain(budgets).chain(concurrency).collect()
}

/// What else there is to know of it: `observed only`, `held up to 30 s`. Mostly empty.
#[must_use]
pub fn terms(policy: &PolicySetup) -> Vec<String> {
    let observed = (policy.mode == Mode::Observe).then(|| "observed only".to_owned());
    let held = (!policy.hold.is_zero()).then(|| format!("held up to {} s", policy.hold.as_secs_f64()));
    let learned = "a request that names no maximum reserves what answers usually need".to_owned();
    let learned = policy.learned_output.then_some(learned);
    observed.into_iter().chain(held).chain(learned).collect()
}

fn quota_words(unit: Unit, quota: &Quota) -> String {
    let window = quota.window();
    let counted = Counted::PerWindow { unit, window };
    let strict = if quota.is_strict() { ", in any window" } else { "" };
    let burst = match (quota.burst(), unit) {
        (burst, _) if burst == quota.limit() => String::new(),
        (burst, Unit::Usd) => format!(" (at most {} at once{strict})", unit.amount(burst)),
        (burst, _) => format!(" (at most {burst} at once{strict})"),
    };
    format!("{}{burst}", counted.amount(quota.limit()))
}

fn budget_words(budget: &BudgetSetup) -> String {
    let BudgetSetup {
        unit,
        limit,
        period,
        zone,
    } = budget;
    let counted = Counted::PerPeriod {
        unit: *unit,
        period: *period,
    };
    let zone = zone.iana_name().map(|name| format!(" ({name})"));
    format!("{}{}", counted.amount(*limit), zone.unwrap_or_default())
}
