use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use llm_engine_limit::{Calendar, Period, Time};

/// How far ahead windows are worked out; more than a month, and the gateway looks again every hour.
const WINDOWS: i32 = 100;

/// The calendar of a time zone on the limiter's clock, which shows `now` when the wall shows `wall`.
pub(crate) fn calendar(period: Period, zone: &TimeZone, now: Time, wall: Timestamp) -> Calendar {
    let today = zone.to_datetime(wall).date();
    let current = number(period, today);
    let turns = (1..=WINDOWS).filter_map(|ahead| {
        let begin = first_day(period, current + ahead)?
            .to_zoned_datetime(zone.clone())
            .ok()?
            .timestamp();
        Some(now + std::time::Duration::try_from(begin.duration_since(wall)).ok()?)
    });
    let turns = turns.collect();
    Calendar::new(
        period,
        zone.iana_name().unwrap_or("UTC"),
        u32::try_from(current).unwrap_or(0),
        turns,
    )
}

/// The first Monday of 1970 and the first day of January 1970 are the first of their kinds.
const EPOCH: Date = Date::constant(1970, 1, 1);
const FIRST_MONDAY: Date = Date::constant(1970, 1, 5);

/// The number of the window that a day is in.
fn number(period: Period, day: Date) -> i32 {
    let days_since = |first: Date| (day - first).get_days();
    match period {
        Period::Day => days_since(EPOCH),
        Period::Week => days_since(FIRST_MONDAY).div_euclid(7),
        Period::Month => (i32::from(day.year()) - 1970) * 12 + i32::from(day.month()) - 1,
    }
}

/// The first day of the window of this number; `None` at the end of time.
fn first_day(period: Period, number: i32) -> Option<Date> {
    match period {
        Period::Day => EPOCH.checked_add(number.days()).ok(),
        Period::Week => {
            let day = FIRST_MONDAY.checked_add(number.weeks()).ok();
            debug_assert!(day.is_none_or(|day| day.weekday() == Weekday::Monday));
            day
        }
        Period::Month => EPOCH.checked_add(number.months()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(period: Period, zone: &str, wall: &str) -> Vec<String> {
        let zone = TimeZone::get(zone).expect("a zone");
        let wall: Timestamp = wall.parse().expect("a timestamp");
        let mut now = Time::from_nanos(7);
        let calendar = calendar(period, &zone, now, wall);
        let mut turns = Vec::new();
        for _ in 0..3 {
            let turn = calendar.next_turn(now);
            let wait = turn.since(Time::from_nanos(7));
            turns.push(zone.to_datetime(wall + wait).strftime("%F %T %a").to_string());
            now = turn;
        }
        turns
    }

    #[test]
    fn days_begin_at_midnight_also_when_the_clocks_change() {
        let days = turns(Period::Day, "Europe/Berlin", "2026-10-24T12:00:00Z");
        assert_eq!(
            days,
            [
                "2026-10-25 00:00:00 Sun",
                "2026-10-26 00:00:00 Mon",
                "2026-10-27 00:00:00 Tue"
            ]
        );
    }

    #[test]
    fn a_day_without_a_midnight_begins_at_its_first_second() {
        // In Chile the clocks go forward at midnight.
        let days = turns(Period::Day, "America/Santiago", "2026-09-05T12:00:00Z");
        assert_eq!(days[0], "2026-09-06 01:00:00 Sun");
    }

    #[test]
    fn weeks_begin_on_mondays_and_months_on_their_first_days() {
        let weeks = turns(Period::Week, "UTC", "2026-11-24T07:00:00Z");
        assert_eq!(weeks[0], "2026-11-30 00:00:00 Mon");
        let months = turns(Period::Month, "Asia/Kolkata", "2026-11-30T19:00:00Z");
        assert_eq!(
            months[0], "2027-01-01 00:00:00 Fri",
            "in Kolkata it is December already"
        );
    }

    #[test]
    fn numbers_grow_by_one_from_window_to_window() {
        for period in [Period::Day, Period::Week, Period::Month] {
            for window in [0, 1, 700, 2_000] {
                let day = first_day(period, window).expect("a day");
                assert_eq!(number(period, day), window);
                assert_eq!(number(period, day.yesterday().expect("a day")), window - 1);
            }
        }
    }
}
