use std::time::{Duration, UNIX_EPOCH};

use sfv::{BareItem, Item, List, ListEntry, Parser};

/// When to come back, as whoever refused said it.
///
/// ```
/// use std::time::Duration;
/// use llm_engine_retry::Hint;
///
/// let hint = Hint { after: Duration::from_millis(1430), is_booked: true };
/// assert!(hint.is_booked);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// The wait, from when it was said.
    pub after: Duration,
    /// Whether the time is kept for this caller alone, so that it is best to come exactly then.
    pub is_booked: bool,
}

impl Hint {
    /// What the headers of an answer say about when to come back. `header` gives a header's value by its name in lower case;
    /// the time of day, as the time since the Unix epoch, is needed where a date is named.
    ///
    /// Understood are, the first that is there:
    ///
    /// | header | value |
    /// |---|---|
    /// | `retry-after-ms`, `x-ms-retry-after-ms` | milliseconds |
    /// | `retry-after` | seconds, whole or not, or an HTTP date in any of its three forms (RFC 9110) |
    /// | `ratelimit` | `r=0;t=…` of the IETF draft, the longest `t` of what is used up |
    /// | `x-ratelimit-reset-requests`, `-tokens` (OpenAI, Azure) | `1m30.5s`, `20ms`, or seconds, where `x-ratelimit-remaining-…` is 0 |
    /// | `anthropic-ratelimit-…-reset` | an RFC 3339 time, where `anthropic-ratelimit-…-remaining` is 0 |
    /// | `x-ratelimit-reset`, `ratelimit-reset` | seconds, or a time in seconds since the Unix epoch |
    ///
    /// What can't be understood is as if it were not there; a date in the past means now. Nobody can say by headers that a time
    /// is booked.
    ///
    /// ```
    /// use std::time::Duration;
    /// use llm_engine_retry::Hint;
    ///
    /// let after = |name: &'static str, value: &'static str| {
    ///     let header = |asked: &str| (asked == name).then_some(value);
    ///     Hint::from_headers(header, Duration::from_secs(784_111_770)).map(|hint| hint.after)
    /// };
    /// assert_eq!(after("retry-after-ms", "1430"), Some(Duration::from_millis(1430)));
    /// assert_eq!(after("retry-after", "2"), Some(Duration::from_secs(2)));
    /// assert_eq!(after("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
    /// assert_eq!(after("retry-after", "soon"), None);
    /// ```
    #[must_use]
    pub fn from_headers<'a>(
        header: impl Fn(&str) -> Option<&'a str>,
        since_unix_epoch: Duration,
    ) -> Option<Self> {
        let number = |name, unit: fn(f64) -> Option<Duration>| unit(header(name)?.trim().parse().ok()?);
        let after = number("retry-after-ms", milliseconds)
            .or_else(|| number("x-ms-retry-after-ms", milliseconds))
            .or_else(|| retry_after(header("retry-after")?.trim(), since_unix_epoch))
            .or_else(|| used_up(header("ratelimit")?))
            .or_else(|| openai_reset(&header))
            .or_else(|| anthropic_reset(&header, since_unix_epoch))
            .or_else(|| {
                let reset =
                    number("x-ratelimit-reset", seconds).or_else(|| number("ratelimit-reset", seconds))?;
                Some(if reset > A_TIME_OF_DAY {
                    reset.saturating_sub(since_unix_epoch)
                } else {
                    reset
                })
            })?;
        Some(Self {
            after,
            is_booked: false,
        })
    }
}

/// More than thirty years is no wait but a time since the Unix epoch.
const A_TIME_OF_DAY: Duration = Duration::from_secs(1_000_000_000);

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

fn milliseconds(milliseconds: f64) -> Option<Duration> {
    seconds(milliseconds / 1000.0)
}

fn retry_after(value: &str, since_unix_epoch: Duration) -> Option<Duration> {
    if let Ok(number) = value.parse() {
        return seconds(number);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(since_unix_epoch))
}

/// `"policy";r=0;t=7, "other";r=3;t=60`: the longest wait for a quota of which nothing is left.
fn used_up(value: &str) -> Option<Duration> {
    let items = items(value)?;
    let empty = items.iter().filter(|item| integer(item, "r") == Some(0));
    let waits = empty.filter_map(|item| u64::try_from(integer(item, "t")?).ok());
    waits.max().map(Duration::from_secs)
}

fn openai_reset<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let resets = ["requests", "tokens"].into_iter().filter_map(|unit| {
        let remaining = header(&format!("x-ratelimit-remaining-{unit}"))?;
        let reset = header(&format!("x-ratelimit-reset-{unit}"))?.trim();
        is_nothing(remaining).then(|| duration(reset))?
    });
    resets.max()
}

fn anthropic_reset<'a>(
    header: &impl Fn(&str) -> Option<&'a str>,
    since_unix_epoch: Duration,
) -> Option<Duration> {
    let units = ["requests", "tokens", "input-tokens", "output-tokens"];
    let resets = units.into_iter().filter_map(|unit| {
        let remaining = header(&format!("anthropic-ratelimit-{unit}-remaining"))?;
        let reset = header(&format!("anthropic-ratelimit-{unit}-reset"))?.trim();
        let reset = humantime::parse_rfc3339(reset)
            .ok()?
            .duration_since(UNIX_EPOCH)
            .ok()?;
        is_nothing(remaining).then(|| reset.saturating_sub(since_unix_epoch))
    });
    resets.max()
}

fn is_nothing(remaining: &str) -> bool {
    remaining
        .trim()
        .parse()
        .is_ok_and(|remaining: f64| remaining <= 0.0)
}

/// As OpenAI writes it: `1h2m3.5s`, `850ms`; or seconds alone.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let letters = unit
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at(letters);
        let in_seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(seconds(number * in_seconds)?)?;
        rest = after;
    }
    Some(sum)
}

/// The items of a structured list (RFC 9651).
pub(crate) fn items(value: &str) -> Option<Vec<Item>> {
    let list: List = Parser::new(value).parse().ok()?;
    let items = list.into_iter().filter_map(|entry| match entry {
        ListEntry::Item(item) => Some(item),
        ListEntry::InnerList(_) => None,
    });
    Some(items.collect())
}

pub(crate) fn integer(item: &Item, parameter: &str) -> Option<i64> {
    match item.params.get(parameter)? {
        BareItem::Integer(value) => Some((*value).into()),
        _ => None,
    }
}

/// The text of an item, or of one of its parameters.
pub(crate) fn text(item: &BareItem) -> Option<&str> {
    match item {
        BareItem::String(text) => Some(text.as_str()),
        BareItem::Token(text) => Some(text.as_str()),
        _ => None,
    }
}
