use crate::hint;

/// What a server says of the caller's quotas of requests: enough to keep its pace without being refused first.
///
/// ```
/// use llm_engine_retry::Limits;
///
/// let limits = Limits::from_headers(|name| match name {
///     "ratelimit-policy" => Some("\"per-key/requests\";q=600;w=60"),
///     "ratelimit" => Some("\"per-key/requests\";r=3;t=60"),
///     _ => None,
/// });
/// assert_eq!(limits, Some(Limits { remaining: 3, per_second: 10.0 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests that could be admitted now.
    pub remaining: u64,
    /// How many more there are each second.
    pub per_second: f64,
}

impl Limits {
    /// What the headers of an answer say, `header` as in [`Hint::from_headers`](crate::Hint::from_headers): `RateLimit` with
    /// `RateLimit-Policy` (IETF draft), else `x-ratelimit-{limit,remaining,reset}-requests` (OpenAI). Of several quotas the one with the
    /// least left, then the slowest. Quotas of tokens say nothing about the next request, whose size is its own.
    ///
    /// ```
    /// use llm_engine_retry::Limits;
    ///
    /// let openai = Limits::from_headers(|name| match name {
    ///     "x-ratelimit-limit-requests" => Some("100"),
    ///     "x-ratelimit-remaining-requests" => Some("40"),
    ///     "x-ratelimit-reset-requests" => Some("6s"),
    ///     _ => None,
    /// });
    /// assert_eq!(openai, Some(Limits { remaining: 40, per_second: 10.0 }));
    /// ```
    #[must_use]
    pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        draft(&header).or_else(|| openai(&header))
    }
}

fn draft<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Option<Limits> {
    let policies = hint::items(header("ratelimit-policy")?)?;
    let limits = hint::items(header("ratelimit")?)?;
    let quotas = policies.iter().filter_map(|policy| {
        let counts_requests = policy
            .params
            .get("qu")
            .is_none_or(|unit| hint::text(unit) == Some("requests"));
        if !counts_requests {
            return None;
        }
        let limit = limits.iter().find(|limit| limit.bare_item == policy.bare_item)?;
        let remaining = u64::try_from(hint::integer(limit, "r")?).ok()?;
        let quota = u32::try_from(hint::integer(policy, "q")?).ok()?;
        let window = u32::try_from(hint::integer(policy, "w")?).ok()?;
        paced(remaining, f64::from(quota) / f64::from(window))
    });
    quotas.min_by(|a, b| {
        let by_rate = || a.per_second.total_cmp(&b.per_second);
        a.remaining.cmp(&b.remaining).then_with(by_rate)
    })
}

fn openai<'a>(header: &impl Fn(&str) -> Option<&'a str>) -> Option<Limits> {
    let number = |name| header(name)?.trim().parse::<u32>().ok();
    let limit = number("x-ratelimit-limit-requests")?;
    let remaining = number("x-ratelimit-remaining-requests")?;
    let reset = hint::duration(header("x-ratelimit-reset-requests")?.trim())?;
    paced(
        remaining.into(),
        f64::from(limit.checked_sub(remaining)?) / reset.as_secs_f64(),
    )
}

fn paced(remaining: u64, per_second: f64) -> Option<Limits> {
    (per_second.is_finite() && per_second > 0.0).then_some(Limits {
        remaining,
        per_second,
    })
}
