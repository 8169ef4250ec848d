use std::time::Duration;

use llm_engine_gateway::{Moment, SimulationReport, unit_name};
use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _};
use plotters::element::PathElement;
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color as _, Palette as _, Palette99, RGBColor, WHITE};

pub(super) type PlotError = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(super) const SIZE: (u32, u32) = (1_000, 700);
const FONT: (&str, i32) = ("sans-serif", 14);
const TITLE: (&str, i32) = ("sans-serif", 18);

/// A line of a chart: its name, its colour, its value in each moment.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: RGBColor,
    pub(super) values: Vec<f64>,
}

/// What was admitted, held and refused over time, and below how full each quota was.
pub(super) fn svg(report: &SimulationReport) -> Result<String, PlotError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (upper, lower) = area.split_vertically(SIZE.1 / 2);
        let time = |seconds, end| time(report, seconds, end);
        let chart = |title, top| Chart {
            title,
            seconds: report.timeline.width().as_secs_f64(),
            label: &time,
            top,
        };
        draw(&upper, &chart("Requests per second", None), &counts(report))?;
        let title = "How full each quota was, in percent: of any key, the fullest";
        draw(&lower, &chart(title, Some(100.0)), &uses(report))?;
        area.present()?;
    }
    Ok(text)
}

fn counts(report: &SimulationReport) -> Vec<Line> {
    let seconds = report.timeline.width().as_secs_f64();
    let line = |name: &str, color, of: fn(&Moment) -> u64| {
        #[expect(clippy::cast_precision_loss, reason = "drawn on a few hundred dots")]
        let values = report
            .timeline
            .moments()
            .iter()
            .map(|moment| of(moment) as f64 / seconds);
        Line {
            name: name.to_owned(),
            color,
            values: values.collect(),
        }
    };
    vec![
        line("admitted", RGBColor(0, 130, 70), |moment| moment.admitted),
        line("held", RGBColor(40, 90, 200), |moment| moment.held),
        line("refused", RGBColor(200, 40, 40), |moment| moment.refused),
    ]
}

fn uses(report: &SimulationReport) -> Vec<Line> {
    let quotas = report.policies.iter().flat_map(|policy| {
        let names = policy.quotas.iter().map(|quota| unit_name(quota.counted));
        names.map(|unit| format!("{} {unit}", policy.name))
    });
    let line = |(index, name): (usize, String)| {
        let (red, green, blue) = Palette99::pick(index).rgb();
        let values = report
            .timeline
            .moments()
            .iter()
            .map(|moment| moment.used[index] * 100.0);
        Line {
            name,
            color: RGBColor(red, green, blue),
            values: values.collect(),
        }
    };
    quotas.enumerate().map(line).collect()
}

/// What is drawn around some lines.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// How long each moment is.
    pub(super) seconds: f64,
    /// Says a time, of all that is shown.
    pub(super) label: &'a dyn Fn(f64, f64) -> String,
    /// The most that there can be.
    pub(super) top: Option<f64>,
}

pub(super) fn draw(area: &Area<'_>, chart: &Chart<'_>, lines: &[Line]) -> Result<(), PlotError> {
    let Chart {
        title,
        seconds: width,
        label,
        top,
    } = *chart;
    let moments = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let moments = u32::try_from(moments).unwrap_or(u32::MAX);
    let end = width * f64::from(moments.max(1));
    // To the right of the lines there is room for their names.
    let right = end * 1.25;
    let highest = lines
        .iter()
        .flat_map(|line| &line.values)
        .copied()
        .fold(0.0, f64::max);
    let top = top.unwrap_or(if highest > 0.0 { highest } else { 1.0 }) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .label_style(FONT)
        .x_label_formatter(&|seconds| label(*seconds, end))
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        let color = line.color;
        let series = LineSeries::new(steps(&line.values, width), color.stroke_width(2));
        chart
            .draw_series(series)?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    if lines.is_empty() {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .label_font(FONT)
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// A moment's value stands for all of it.
fn steps(values: &[f64], width: f64) -> impl Iterator<Item = (f64, f64)> {
    (0_u32..).zip(values).flat_map(move |(index, value)| {
        let begin = width * f64::from(index);
        [(begin, *value), (begin + width, *value)]
    })
}

/// The time in UTC, with the day where there are several.
fn time(report: &SimulationReport, seconds: f64, end: f64) -> String {
    let format = if end > 86_400.0 { "%m-%d %H:%M" } else { "%H:%M:%S" };
    let time = report
        .start
        .checked_add(Duration::from_secs_f64(seconds.max(0.0)));
    time.map(|time| time.strftime(format).to_string())
        .unwrap_or_default()
}
