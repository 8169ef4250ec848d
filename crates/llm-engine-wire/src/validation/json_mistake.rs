//! Where a text stops being JSON, in the place and the words of Python's `json` module, which is what callers of the public
//! servers see.

/// What is wrong first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Counted in characters.
    pub(super) position: usize,
    /// One of Python's sentences.
    pub(super) words: &'static str,
}

/// Deeper texts are not followed, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 256;

const VALUE: &str = "Expecting value";
const NAME: &str = "Expecting property name enclosed in double quotes";
const COLON: &str = "Expecting ':' delimiter";
const COMMA: &str = "Expecting ',' delimiter";

/// The first mistake of a text that is not JSON. Where Python would find none, such as in `NaN`, it is that a value is
/// expected at the beginning.
pub(super) fn first_mistake(text: &[char]) -> Mistake {
    let scan = Scan { text };
    let whole = scan.value(scan.spaces(0), 0).map(|end| scan.spaces(end));
    match whole {
        Err(mistake) => mistake,
        Ok(end) if end < text.len() => Mistake {
            position: end,
            words: "Extra data",
        },
        Ok(_) => Mistake {
            position: 0,
            words: VALUE,
        },
    }
}

/// Each function takes where to begin and returns where it has ended.
struct Scan<'a> {
    text: &'a [char],
}

type End = Result<usize, Mistake>;

fn mistake(position: usize, words: &'static str) -> End {
    Err(Mistake { position, words })
}

impl Scan<'_> {
    fn at(&self, position: usize) -> Option<char> {
        self.text.get(position).copied()
    }

    fn spaces(&self, position: usize) -> usize {
        self.skip(position, |c| matches!(c, ' ' | '\t' | '\n' | '\r'))
    }

    fn skip(&self, position: usize, skipped: impl Fn(char) -> bool) -> usize {
        let rest = self.text.get(position..).unwrap_or_default();
        position + rest.iter().take_while(|&&c| skipped(c)).count()
    }

    fn value(&self, begin: usize, depth: usize) -> End {
        match self.at(begin) {
            Some('"') => self.string(begin),
            Some('{') if depth < MAX_DEPTH => self.object(begin, depth),
            Some('[') if depth < MAX_DEPTH => self.array(begin, depth),
            Some('-' | '0'..='9') => self.number(begin),
            _ => {
                let rest = &self.text[begin.min(self.text.len())..];
                let word = ["true", "false", "null"]
                    .into_iter()
                    .find(|word| word.chars().eq(rest.iter().copied().take(word.len())));
                word.map_or(mistake(begin, VALUE), |word| Ok(begin + word.len()))
            }
        }
    }

    fn object(&self, begin: usize, depth: usize) -> End {
        let mut at = self.spaces(begin + 1);
        if self.at(at) == Some('}') {
            return Ok(at + 1);
        }
        loop {
            if self.at(at) != Some('"') {
                return mistake(at, NAME);
            }
            at = self.spaces(self.string(at)?);
            if self.at(at) != Some(':') {
                return mistake(at, COLON);
            }
            at = self.spaces(self.value(self.spaces(at + 1), depth + 1)?);
            match self.at(at) {
                Some('}') => return Ok(at + 1),
                Some(',') => at = self.spaces(at + 1),
                _ => return mistake(at, COMMA),
            }
        }
    }

    fn array(&self, begin: usize, depth: usize) -> End {
        let mut at = self.spaces(begin + 1);
        if self.at(at) == Some(']') {
            return Ok(at + 1);
        }
        loop {
            at = self.spaces(self.value(at, depth + 1)?);
            match self.at(at) {
                Some(']') => return Ok(at + 1),
                Some(',') => at = self.spaces(at + 1),
                _ => return mistake(at, COMMA),
            }
        }
    }

    fn string(&self, begin: usize) -> End {
        let mut at = begin + 1;
        loop {
            match (self.at(at), self.at(at + 1)) {
                (None, _) | (Some('\\'), None) => return mistake(begin, "Unterminated string starting at"),
                (Some('"'), _) => return Ok(at + 1),
                (Some('\0'..='\x1f'), _) => return mistake(at, "Invalid control character at"),
                (Some('\\'), Some('u')) => {
                    let digits = self.text.get(at + 2..at + 6).unwrap_or_default();
                    if digits.len() < 4 || !digits.iter().all(char::is_ascii_hexdigit) {
                        return mistake(at + 1, "Invalid \\uXXXX escape");
                    }
                    at += 6;
                }
                (Some('\\'), Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => at += 2,
                (Some('\\'), Some(_)) => return mistake(at, "Invalid \\escape"),
                (Some(_), _) => at += 1,
            }
        }
    }

    /// As much of it as is a number; Python finds the rest to be wrong where it stands.
    fn number(&self, begin: usize) -> End {
        let digits = |position: usize| self.skip(position, |c| c.is_ascii_digit());
        let first = begin + usize::from(self.at(begin) == Some('-'));
        let mut at = match self.at(first) {
            Some('0') => first + 1,
            Some('1'..='9') => digits(first),
            _ => return mistake(begin, VALUE),
        };
        if self.at(at) == Some('.') && digits(at + 1) > at + 1 {
            at = digits(at + 1);
        }
        if matches!(self.at(at), Some('e' | 'E')) {
            let exponent = at + 1 + usize::from(matches!(self.at(at + 1), Some('+' | '-')));
            if digits(exponent) > exponent {
                at = digits(exponent);
            }
        }
        Ok(at)
    }
}
