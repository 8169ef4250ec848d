/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Requests admitted.
    Requests,
    /// Tokens of the prompt.
    InputTokens,
    /// Tokens generated.
    OutputTokens,
    /// Both kinds of tokens.
    Tokens,
    /// Money, counted in nano-dollars: 10^9 are one US dollar.
    Usd,
}

impl Unit {
    /// How much of this unit the cost holds.
    #[must_use]
    pub fn of(self, cost: Cost) -> u64 {
        Amounts::from(cost).of(self)
    }

    /// The name that configuration files and headers use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Tokens => "tokens",
            Self::Usd => "usd",
        }
    }

    /// So many of it in words: `1 request`, `3 output tokens`, `$0.25`.
    #[must_use]
    pub fn amount(self, count: u64) -> String {
        if self == Self::Usd {
            return dollars(count);
        }
        let words = self.name().replace('_', " ");
        let words = if count == 1 {
            words.trim_end_matches('s')
        } else {
            &words
        };
        format!("{count} {words}")
    }
}

/// Nano-dollars as dollars, with at least the cents.
fn dollars(nano: u64) -> String {
    const PER_DOLLAR: u64 = 1_000_000_000;
    let fraction = format!("{:09}", nano % PER_DOLLAR);
    let cents_and_more = fraction.trim_end_matches('0').len().max(2);
    format!("${}.{}", nano / PER_DOLLAR, &fraction[..cents_and_more])
}

/// An amount of each unit: the upper bound that a request asks for, or what it has really used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// 1 for a request that was sent to a model, 0 for one that was not.
    pub requests: u64,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens generated, or the most that may be.
    pub output_tokens: u64,
    /// The price in nano-dollars.
    pub nano_usd: u64,
}

impl Cost {
    /// The usage of a request on which no model has worked.
    pub const NOTHING: Self = Self {
        requests: 0,
        input_tokens: 0,
        output_tokens: 0,
        nano_usd: 0,
    };

    /// Whether it is not above the other in any unit.
    pub(crate) fn is_within(self, other: Self) -> bool {
        self.requests <= other.requests
            && self.input_tokens <= other.input_tokens
            && self.output_tokens <= other.output_tokens
            && self.nano_usd <= other.nano_usd
    }
}

/// A cost by unit, so that a quota finds its amount without asking which unit it counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amounts([u64; 5]);

impl Amounts {
    #[inline]
    pub(crate) fn of(&self, unit: Unit) -> u64 {
        self.0[unit as usize]
    }

    #[inline]
    pub(crate) fn cost(&self) -> Cost {
        let [requests, input_tokens, output_tokens, _, nano_usd] = self.0;
        Cost {
            requests,
            input_tokens,
            output_tokens,
            nano_usd,
        }
    }
}

impl From<Cost> for Amounts {
    /// In the order of the units.
    #[inline]
    fn from(cost: Cost) -> Self {
        Self([
            cost.requests,
            cost.input_tokens,
            cost.output_tokens,
            cost.input_tokens.saturating_add(cost.output_tokens),
            cost.nano_usd,
        ])
    }
}
