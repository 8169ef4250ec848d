use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use llm_engine_limit::{
    Budget, Match, Mode, Name, Policy, QuotaError, Refusal, Refused, Subject, Time, Unit,
};

use crate::arrival::{route_number, user_number};
use crate::calendars::calendar;
use crate::names::{Names, team_name};
use crate::{BudgetSetup, CallerSetup, ModelSetup, PolicySetup};

/// The policies as the limiter knows them, and what only the gateway needs of them.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) setups: Arc<[PolicySetup]>,
    pub(crate) limits: Arc<[Policy]>,
    /// Whether there are any that only observe.
    pub(crate) some_observe: bool,
    by_name: HashMap<Name, usize>,
}

/// Who comes at its time is not later than that, whatever the network does; nor need anyone wait longer for it.
const A_MOMENT: Duration = Duration::from_millis(300);

impl Policies {
    /// Turns names into numbers, and time zones into turns on the limiter's clock, which shows `now` when the wall shows
    /// `wall`.
    pub(crate) fn new(
        setups: Vec<PolicySetup>,
        names: &mut Names,
        now: Time,
        wall: Timestamp,
    ) -> Result<Self, QuotaError> {
        let limits: Arc<[Policy]> = setups
            .iter()
            .map(|setup| policy(setup, names, now, wall))
            .collect::<Result<_, _>>()?;
        let by_name = (0..)
            .zip(limits.iter())
            .map(|(index, policy)| (policy.name, index));
        Ok(Self {
            some_observe: setups.iter().any(|setup| setup.mode == Mode::Observe),
            setups: setups.into(),
            by_name: by_name.collect(),
            limits,
        })
    }

    /// Whether any quota counts the tokens of prompts, so that it is worth asking for their number.
    pub(crate) fn count_input(&self) -> bool {
        let quotas = self
            .limits
            .iter()
            .flat_map(|policy| &policy.quotas)
            .map(|(unit, _)| *unit);
        let budgets = self
            .limits
            .iter()
            .flat_map(|policy| &policy.budgets)
            .map(|(unit, _)| *unit);
        quotas
            .chain(budgets)
            .any(|unit| matches!(unit, Unit::InputTokens | Unit::Tokens | Unit::Usd))
    }

    /// Whether one of those that apply reserves only what answers usually need.
    pub(crate) fn learn_output(&self, subject: Subject) -> bool {
        let mut policies = self.setups.iter().zip(self.limits.iter());
        policies.any(|(setup, policy)| setup.learned_output && policy.applies_to(subject))
    }

    /// Whether the policy of this name only observes.
    pub(crate) fn observes(&self, name: Name) -> bool {
        let index = self.by_name.get(&name);
        index.is_some_and(|index| self.setups[*index].mode == Mode::Observe)
    }

    /// How long a request may be held that is refused: as long as each of the policies that refuse allows. But who came at
    /// its time and is the next has done all that it was told to: it waits here for a moment at least.
    pub(crate) fn hold(&self, refusal: &Refusal) -> Duration {
        let hold = |refused: &Refused| {
            let index = self.by_name.get(&refused.policy);
            index.map_or(Duration::ZERO, |index| self.setups[*index].hold)
        };
        let hold = refusal.refused().iter().map(hold).min().unwrap_or_default();
        if refusal.is_next() {
            hold.max(A_MOMENT)
        } else {
            hold
        }
    }

    /// The calendars of all budgets, anew from what the clock on the wall shows.
    pub(crate) fn calendars(&self, now: Time, wall: Timestamp) -> Vec<llm_engine_limit::Calendar> {
        let budgets = self.setups.iter().flat_map(|setup| &setup.budgets);
        budgets
            .map(|budget| calendar(budget.period, &budget.zone, now, wall))
            .collect()
    }
}

fn policy(setup: &PolicySetup, names: &mut Names, now: Time, wall: Timestamp) -> Result<Policy, QuotaError> {
    let matches = &setup.matches;
    let budget = |budget: &BudgetSetup| {
        let calendar = calendar(budget.period, &budget.zone, now, wall);
        Ok((budget.unit, Budget::new(budget.limit, calendar)?))
    };
    Ok(Policy {
        name: setup.name.as_str().into(),
        matches: Match {
            caller: matches.caller.as_deref().map(|name| names.callers.number(name)),
            team: matches
                .team
                .as_deref()
                .map(|team| names.teams.number(&team_name("", Some(team)))),
            user: matches.user.as_deref().map(user_number),
            model: matches.model.as_deref().map(|name| names.model(name)),
            route: matches
                .route
                .as_deref()
                .map(|route| route_number(route).unwrap_or(u32::MAX)),
        },
        per: setup.per,
        mode: setup.mode,
        quotas: setup.quotas.clone(),
        budgets: setup.budgets.iter().map(budget).collect::<Result<_, _>>()?,
        concurrency: setup.concurrency,
    })
}

/// Gives every caller, team and model its number.
pub(crate) fn name_all(names: &mut Names, models: &[ModelSetup], callers: &[CallerSetup]) {
    for model in models {
        names.name_model(&model.name, &model.aliases);
    }
    for caller in callers {
        names.callers.number(&caller.name);
        names
            .teams
            .number(&team_name(&caller.name, caller.team.as_deref()));
    }
}
