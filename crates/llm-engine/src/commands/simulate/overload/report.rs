use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use llm_engine_overload::{
    Estimate, Limit, Outcome, Second, best_fixed, equality, estimate, quantile, simulate_seeds,
};
use plotters::backend::SVGBackend;
use plotters::drawing::IntoDrawingArea as _;
use plotters::style::{RGBColor, WHITE};
use serde_json::{Value, json};

use super::super::plot::{Chart, Line, PlotError, SIZE, draw};
use super::{Limits, Overload};

/// What came of all loads and limits.
#[derive(Debug)]
pub(in super::super) struct Report {
    rows: Vec<Row>,
    seeds: u64,
}

/// What came of one load with one limit, with all seeds.
#[derive(Debug)]
struct Row {
    load: f64,
    limit: Limit,
    outcomes: Vec<Outcome>,
    /// What the best fixed limit comes to with the same seeds.
    best: Option<Vec<Outcome>>,
}

/// A number of an outcome, with its name for people and programs.
type Column = (&'static str, &'static str, fn(&Outcome) -> f64);

#[expect(clippy::cast_precision_loss, reason = "counts, shown to a few digits")]
const COLUMNS: &[Column] = &[
    ("good/s", "good_per_second", Outcome::goodput),
    (
        "tokens/s",
        "good_tokens_per_second",
        Outcome::good_tokens_per_second,
    ),
    ("refused", "refused_part_of_calls", |outcome| {
        part(outcome.refused, outcome.calls)
    }),
    ("lost", "lost_part_of_requests", |outcome| {
        part(outcome.lost, outcome.offered)
    }),
    ("first token p50", "first_token_seconds_p50", |outcome| {
        quantile(&outcome.first_tokens, 0.5)
    }),
    ("p99", "first_token_seconds_p99", |outcome| {
        quantile(&outcome.first_tokens, 0.99)
    }),
    ("booked kept", "booked_kept_part", |outcome| {
        part(outcome.kept, outcome.claimed)
    }),
    ("equality", "equality_of_callers", |outcome| {
        equality(outcome.callers.iter().map(|caller| caller.served as f64))
    }),
    ("limit", "mean_limit", mean_limit),
];

impl Report {
    pub(in super::super) fn of(overload: &Overload) -> Self {
        let rows = overload.loads.iter().flat_map(|load| rows(overload, *load));
        Self {
            rows: rows.collect(),
            seeds: overload.seeds,
        }
    }

    /// For people.
    pub(in super::super) fn table(&self) -> String {
        let mut names = vec!["load", "limit"];
        names.extend(COLUMNS.iter().map(|(name, ..)| *name));
        names.push("of the best fixed");
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(&names);
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let mut cells = vec![format!("{}x", row.load), row.limit_name()];
            cells.extend(row.estimates().map(|(_, estimate)| shown(estimate)));
            cells.push(row.of_best().map(shown).unwrap_or_default());
            table.add_row(cells);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(
            text,
            "\nmeans of {} seeds, ± half of their 95 % interval",
            self.seeds
        );
        text
    }

    pub(in super::super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut value = json!({"load": row.load, "limit": row.limit_name()});
            for (name, Estimate { mean, within }) in row.estimates() {
                value[name] = json!({"mean": mean, "within": within});
            }
            if let Some(Estimate { mean, within }) = row.of_best() {
                value["of_best_fixed"] = json!({"mean": mean, "within": within});
            }
            value
        });
        json!({"seeds": self.seeds, "rows": rows.collect::<Vec<_>>()})
    }

    /// The last row's first seed over time.
    pub(in super::super) fn svg(&self) -> Result<String, PlotError> {
        let mut text = String::new();
        let seconds = self.rows.last().and_then(|row| row.outcomes.first());
        let seconds = seconds.map_or(&[][..], |outcome| &outcome.seconds);
        {
            let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            area.fill(&WHITE)?;
            let (upper, lower) = area.split_vertically(SIZE.1 / 2);
            let label = |seconds: f64, _end| format!("{seconds:.0} s");
            let chart = |title| Chart {
                title,
                seconds: 1.0,
                label: &label,
                top: None,
            };
            draw(&upper, &chart("Requests"), &standing(seconds))?;
            draw(&lower, &chart("Per second"), &flow(seconds))?;
            area.present()?;
        }
        Ok(text)
    }
}

fn rows(overload: &Overload, load: f64) -> Vec<Row> {
    let mut scenario = overload.scenario.clone();
    for caller in &mut scenario.callers {
        caller.rate *= load;
    }
    let first = scenario.seed;
    let seeds = first..first + overload.seeds;
    let limit = match overload.limit {
        Limits::One(limit) => limit,
        Limits::Sweep { most } => Limit::Adaptive { most },
    };
    scenario.admission.limit = limit;
    let mut row = Row {
        load,
        limit,
        outcomes: simulate_seeds(&scenario, seeds.clone()),
        best: None,
    };
    if overload.limit == Limits::One(limit) {
        return vec![row];
    }
    // Steps of about a tenth, from a few to thousands.
    let limits: Vec<u32> = std::iter::successors(Some(4_u32), |limit| Some(limit + limit.div_ceil(11)))
        .take_while(|limit| *limit < 1_000)
        .collect();
    let others = seeds.end..seeds.end + overload.seeds;
    let Some(best) = best_fixed(&scenario, &limits, others) else {
        return vec![row];
    };
    scenario.admission.limit = best;
    let outcomes = simulate_seeds(&scenario, seeds);
    row.best = Some(outcomes.clone());
    let fixed = Row {
        load,
        limit: best,
        outcomes,
        best: None,
    };
    vec![fixed, row]
}

impl Row {
    fn limit_name(&self) -> String {
        match self.limit {
            Limit::Fixed(limit) => limit.to_string(),
            Limit::Adaptive { .. } => "adaptive".to_owned(),
        }
    }

    fn estimates(&self) -> impl Iterator<Item = (&'static str, Estimate)> {
        COLUMNS
            .iter()
            .map(|(_, name, of)| (*name, estimate(self.outcomes.iter().map(of))))
    }

    /// Its goodput as a part of the best fixed limit's, seed by seed.
    fn of_best(&self) -> Option<Estimate> {
        let pairs = self.outcomes.iter().zip(self.best.as_ref()?);
        Some(estimate(pairs.map(|(own, best)| own.goodput() / best.goodput())))
    }
}

fn standing(seconds: &[Second]) -> Vec<Line> {
    vec![
        line(seconds, "limit", RGBColor(120, 120, 120), |second| second.limit),
        line(seconds, "in flight", RGBColor(0, 130, 70), |second| {
            second.in_flight
        }),
        line(seconds, "first token late", RGBColor(200, 40, 40), |second| {
            second.waiting
        }),
        line(seconds, "queued", RGBColor(40, 90, 200), |second| second.queued),
    ]
}

fn flow(seconds: &[Second]) -> Vec<Line> {
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    vec![
        line(seconds, "requests", RGBColor(120, 120, 120), move |second| {
            count(second.offered)
        }),
        line(seconds, "refused calls", RGBColor(200, 40, 40), move |second| {
            count(second.refused)
        }),
        line(seconds, "100 good tokens", RGBColor(0, 130, 70), move |second| {
            count(second.good_tokens / 100)
        }),
    ]
}

fn line(seconds: &[Second], name: &str, color: RGBColor, of: impl Fn(&Second) -> usize) -> Line {
    #[expect(clippy::cast_precision_loss, reason = "drawn on a few hundred dots")]
    let values = seconds.iter().map(|second| of(second) as f64);
    Line {
        name: name.to_owned(),
        color,
        values: values.collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn mean_limit(outcome: &Outcome) -> f64 {
    let limits: usize = outcome.seconds.iter().map(|second| second.limit).sum();
    limits as f64 / outcome.seconds.len().max(1) as f64
}

fn shown(Estimate { mean, within }: Estimate) -> String {
    let digits = if mean.abs() >= 100.0 {
        0
    } else if mean.abs() >= 10.0 {
        1
    } else {
        3
    };
    format!("{mean:.digits$} ±{within:.digits$}")
}
