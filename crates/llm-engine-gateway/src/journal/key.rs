use std::time::Duration;

use llm_engine_limit::{Counted, Per, Period, Saved, Subject, Unit, User};
use serde::{Deserialize, Serialize};

use crate::ROUTES;
use crate::names::Names;

/// Which bucket, by names. As JSON: `{"policy":"daily","unit":"usd","over":{"period":"day"},"per":[{"caller":"web"}]}`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) policy: String,
    unit: String,
    over: Over,
    /// What the policy is counted per, in the order of [`Per`].
    per: Vec<Part>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Over {
    /// A rolling window.
    Nanos(u64),
    /// A calendar window.
    Period(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Caller(String),
    Team(String),
    /// What is known of the digest of its name, in hexadecimal.
    User(String),
    Model(String),
    /// Its path.
    Route(String),
    Address(u64),
}

impl Key {
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).expect("text and numbers")
    }

    /// `None` if something has no name, or is not counted in amounts.
    pub(super) fn of(saved: &Saved, per: Per, names: &Names) -> Option<Self> {
        let over = match saved.counted {
            Counted::PerWindow { window, .. } => Over::Nanos(u64::try_from(window.as_nanos()).ok()?),
            Counted::PerPeriod { period, .. } => Over::Period(period.word().to_owned()),
            Counted::Concurrency => return None,
        };
        let subject = saved.subject;
        let mut parts = Vec::new();
        if per.caller {
            parts.push(Part::Caller(names.callers.name(subject.caller)?.to_owned()));
        }
        if per.team {
            parts.push(Part::Team(names.teams.name(subject.team)?.to_owned()));
        }
        if per.user {
            let User([high, middle, low]) = subject.user;
            parts.push(Part::User(format!("{high:08x}{middle:08x}{low:08x}")));
        }
        if per.model {
            parts.push(Part::Model(names.models.name(subject.model)?.to_owned()));
        }
        if per.route {
            parts.push(Part::Route((*ROUTES.get(subject.route as usize)?).to_owned()));
        }
        if per.address {
            parts.push(Part::Address(subject.address));
        }
        Some(Self {
            policy: saved.policy.as_str().to_owned(),
            unit: saved.counted.unit()?.name().to_owned(),
            over,
            per: parts,
        })
    }

    /// `None` if there is no such unit or period.
    pub(super) fn counted(&self) -> Option<Counted> {
        const UNITS: [Unit; 5] = [
            Unit::Requests,
            Unit::InputTokens,
            Unit::OutputTokens,
            Unit::Tokens,
            Unit::Usd,
        ];
        const PERIODS: [Period; 3] = [Period::Day, Period::Week, Period::Month];

        let unit = UNITS.into_iter().find(|unit| unit.name() == self.unit)?;
        Some(match &self.over {
            Over::Nanos(nanos) => {
                let window = Duration::from_nanos(*nanos);
                Counted::PerWindow { unit, window }
            }
            Over::Period(word) => {
                let period = PERIODS.into_iter().find(|period| period.word() == word)?;
                Counted::PerPeriod { unit, period }
            }
        })
    }

    /// For whom. `None` if a name means nothing at present, or it was counted per something else.
    pub(super) fn subject(&self, now_per: Per, names: &Names) -> Option<Subject> {
        let (mut per, mut subject) = (Per::default(), Subject::default());
        for part in &self.per {
            match part {
                Part::Caller(name) => {
                    (per.caller, subject.caller) = (true, names.callers.find(name)?);
                }
                Part::Team(name) => (per.team, subject.team) = (true, names.teams.find(name)?),
                Part::User(digest) => {
                    let (high, rest) = digest.split_at_checked(8)?;
                    let (middle, low) = rest.split_at_checked(8)?;
                    let word = |hex| u32::from_str_radix(hex, 16).ok();
                    (per.user, subject.user) = (true, User([word(high)?, word(middle)?, word(low)?]));
                }
                Part::Model(name) => (per.model, subject.model) = (true, names.models.find(name)?),
                Part::Route(path) => {
                    let place = ROUTES.iter().position(|route| route == path)?;
                    (per.route, subject.route) = (true, u32::try_from(place).ok()?);
                }
                Part::Address(address) => (per.address, subject.address) = (true, *address),
            }
        }
        (per == now_per).then_some(subject)
    }
}
