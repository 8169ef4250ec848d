use crate::Usage;

/// One thing that happened.
///
/// As text: a checksum (CRC-32 of what follows it), a space, a letter, and what there is to say. So it can be looked at with the
/// usual tools: `cut -d' ' -f8- answers.jsonl.journal` has the answers so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// What the run is of.
    Header(String),
    /// A row is about to be sent.
    Begun(Begun),
    /// A row has ended, with the outcome as JSON.
    Ended(Ended, String),
    /// All rows that ended with an error are open again.
    Reopened,
    /// The output has been written.
    Written,
}

/// A row is about to be sent. Once more under the same name, there is another line only if the server may have done the
/// work before: so as many as there are of a row, so often it may have been generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) row: u64,
    /// It goes up when the answer was of no use, and a new one is to be generated.
    pub(crate) round: u32,
    /// By which of several senders.
    pub(crate) sender: u32,
}

/// A row has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) row: u64,
    pub(crate) is_answered: bool,
    /// Whether it may have been generated more than once.
    pub(crate) may_be_double: bool,
    pub(crate) usage: Usage,
}

const CHECKSUM_LENGTH: usize = 8;

impl Line {
    pub(crate) fn write(&self) -> Vec<u8> {
        let said = match self {
            Self::Header(header) => format!("H {header}"),
            Self::Begun(Begun { row, round, sender }) => format!("B {row} {round} {sender}"),
            Self::Ended(ended, outcome) => {
                let Ended { row, usage, .. } = ended;
                let end = if ended.is_answered { "ok" } else { "error" };
                let double = u8::from(ended.may_be_double);
                let Usage {
                    input_tokens,
                    output_tokens,
                    nano_usd,
                } = usage;
                format!("E {row} {end} {double} {input_tokens} {output_tokens} {nano_usd} {outcome}")
            }
            Self::Reopened => "R".to_owned(),
            Self::Written => "W".to_owned(),
        };
        format!("{:08x} {said}\n", crc32fast::hash(said.as_bytes())).into_bytes()
    }

    /// `None` if it is not whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let line = bytes.strip_suffix(b"\n")?;
        let (checksum, rest) = line.split_at_checked(CHECKSUM_LENGTH)?;
        let said = rest.strip_prefix(b" ")?;
        let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
        if checksum != crc32fast::hash(said) {
            return None;
        }
        let said = std::str::from_utf8(said).ok()?;
        let (kind, rest) = said.split_once(' ').unwrap_or((said, ""));
        match kind {
            "H" => Some(Self::Header(rest.to_owned())),
            "B" => {
                let mut words = rest.split(' ');
                Some(Self::Begun(Begun {
                    row: words.next()?.parse().ok()?,
                    round: words.next()?.parse().ok()?,
                    sender: words.next()?.parse().ok()?,
                }))
            }
            "E" => ended(rest),
            "R" => Some(Self::Reopened),
            "W" => Some(Self::Written),
            _ => None,
        }
    }
}

fn ended(rest: &str) -> Option<Line> {
    let mut words = rest.splitn(7, ' ');
    let ended = Ended {
        row: words.next()?.parse().ok()?,
        is_answered: words.next()? == "ok",
        may_be_double: words.next()? == "1",
        usage: Usage {
            input_tokens: words.next()?.parse().ok()?,
            output_tokens: words.next()?.parse().ok()?,
            nano_usd: words.next()?.parse().ok()?,
        },
    };
    Some(Line::Ended(ended, words.next()?.to_owned()))
}

/// Whether a file that has no whole line may be what is left of a journal whose first line was being written.
pub(super) fn may_be_torn_header(bytes: &[u8]) -> bool {
    let is_checksum = bytes.iter().take(CHECKSUM_LENGTH).all(u8::is_ascii_hexdigit);
    let is_start = bytes.get(CHECKSUM_LENGTH..).is_none_or(|rest| {
        let start = b" H {";
        let length = rest.len().min(start.len());
        rest[..length] == start[..length]
    });
    // A power failure can leave zeros where the first line was to be.
    let is_unwritten = bytes.iter().all(|byte| *byte == 0);
    is_unwritten || (is_checksum && is_start && !bytes.ends_with(b"\n"))
}
