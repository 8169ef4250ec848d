//! GBNF, llama.cpp's notation of grammars, as one for Lark.
//!
//! Every name, character class and text has its counterpart, so this is a translation word by word. What llama.cpp
//! allows beyond it, tokens by their number or name, is refused.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::grammar::literal;

/// The deepest nesting of brackets.
const MAX_DEPTH: usize = 50;

/// The grammar for Lark.
///
/// # Errors
/// Where and why it is no GBNF, for the caller.
pub(super) fn to_lark(gbnf: &str) -> Result<String, String> {
    let mut reader = Reader {
        characters: gbnf.chars().collect(),
        at: 0,
        names: HashMap::new(),
        lark: String::with_capacity(gbnf.len() * 2),
    };
    reader.grammar()?;
    match reader.names.get("root") {
        Some(&number) => Ok(format!("start: r{number}\n{}", reader.lark)),
        None => Err("the grammar has no rule 'root'".to_owned()),
    }
}

struct Reader {
    characters: Vec<char>,
    at: usize,
    /// The rules that were met, by their numbers.
    names: HashMap<String, usize>,
    lark: String,
}

impl Reader {
    fn grammar(&mut self) -> Result<(), String> {
        self.skip(true);
        while self.peek().is_some() {
            let name = self.name()?;
            self.skip(false);
            if !self.take_all("::=") {
                return Err(self.wrong(&format!("expected '::=' after '{name}'")));
            }
            let number = self.number(name);
            // Writing to a `String` cannot fail.
            let _ = write!(self.lark, "r{number}:");
            self.skip(true);
            self.alternatives(0)?;
            self.lark.push('\n');
            self.skip(true);
        }
        Ok(())
    }

    /// Up to the end of the rule, or the closing bracket. Within brackets lines may end anywhere.
    fn alternatives(&mut self, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("brackets are nested too deeply"));
        }
        loop {
            self.sequence(depth)?;
            self.skip(depth > 0);
            if !self.take('|') {
                return Ok(());
            }
            self.lark.push_str(" |");
            self.skip(true);
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<(), String> {
        let before = self.lark.len();
        loop {
            self.skip(depth > 0);
            match self.peek() {
                Some('"') => self.text()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.at += 1;
                    self.lark.push_str(" /(?s:.)/");
                }
                Some('(') => {
                    self.at += 1;
                    self.lark.push_str(" (");
                    self.alternatives(depth + 1)?;
                    if !self.take(')') {
                        return Err(self.wrong("expected ')'"));
                    }
                    self.lark.push(')');
                }
                Some(character) if is_name(character) => {
                    // A name with '::=' behind it begins the next rule.
                    let start = self.at;
                    let name = self.name()?;
                    self.skip(false);
                    if self.characters[self.at..].starts_with(&[':', ':', '=']) {
                        self.at = start;
                        break;
                    }
                    let number = self.number(name);
                    let _ = write!(self.lark, " r{number}");
                }
                Some('<' | '!') => return Err(self.wrong("tokens are not supported in a grammar")),
                Some('|' | ')' | '\n' | '\r') | None => break,
                Some(other) => return Err(self.wrong(&format!("'{other}' is not expected"))),
            }
            self.repetition()?;
        }
        if self.lark.len() == before {
            self.lark.push_str(" \"\"");
        }
        Ok(())
    }

    fn repetition(&mut self) -> Result<(), String> {
        self.skip(false);
        match self.peek() {
            Some(sign @ ('*' | '+' | '?')) => {
                self.at += 1;
                self.lark.push(sign);
            }
            Some('{') => {
                let start = self.at;
                while self.peek().is_some_and(|character| character != '}') {
                    self.at += 1;
                }
                let bounds: String = self.characters[start + 1..self.at]
                    .iter()
                    .filter(|c| **c != ' ')
                    .collect();
                let is_bound =
                    |text: &str| text.len() <= 6 && text.chars().all(|digit| digit.is_ascii_digit());
                let (least, most) = bounds.split_once(',').unwrap_or((&bounds, &bounds));
                if !self.take('}') || !is_bound(least) || !is_bound(most) || least.is_empty() {
                    return Err(self.wrong("a repetition is '{m}', '{m,}' or '{m,n}'"));
                }
                let _ = write!(self.lark, "{{{bounds}}}");
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self) -> Result<(), String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => break,
                Some(_) => text.push(self.character()?),
                None => return Err(self.wrong("a text has no end")),
            }
        }
        self.at += 1;
        if text.is_empty() {
            self.lark.push_str(" \"\"");
        } else {
            let _ = write!(self.lark, " /{}/", literal(&text));
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), String> {
        self.at += 1;
        self.lark.push_str(" /[");
        if self.take('^') {
            self.lark.push('^');
        }
        let start = self.at;
        loop {
            match self.peek() {
                Some(']') if self.at > start => break,
                Some(_) => {
                    let first = self.character()?;
                    self.lark.push_str(&literal(first.encode_utf8(&mut [0; 4])));
                    let is_range = self.peek() == Some('-') && self.characters.get(self.at + 1) != Some(&']');
                    if is_range {
                        self.at += 1;
                        let last = self.character()?;
                        self.lark.push('-');
                        self.lark.push_str(&literal(last.encode_utf8(&mut [0; 4])));
                    }
                }
                None => return Err(self.wrong("a character class has no end")),
            }
        }
        self.at += 1;
        self.lark.push_str("]/");
        Ok(())
    }

    /// One character of a text or class, after its escapes.
    fn character(&mut self) -> Result<char, String> {
        let Some(character) = self.peek() else {
            return Err(self.wrong("the grammar ends too early"));
        };
        self.at += 1;
        if character != '\\' {
            return Ok(character);
        }
        let escape = self.peek();
        self.at += 1;
        let digits = match escape {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(plain @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/')) => return Ok(plain),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => {
                return Err(self.wrong(
                    "an escape is one of \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xNN \\uNNNN \\UNNNNNNNN",
                ));
            }
        };
        let end = (self.at + digits).min(self.characters.len());
        let digits: String = self.characters[self.at..end].iter().collect();
        self.at = end;
        let number = u32::from_str_radix(&digits, 16).ok();
        number
            .and_then(char::from_u32)
            .ok_or_else(|| self.wrong("an escape has no character's number"))
    }

    fn name(&mut self) -> Result<String, String> {
        let start = self.at;
        while self.peek().is_some_and(is_name) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.wrong("expected the name of a rule"));
        }
        Ok(self.characters[start..self.at].iter().collect())
    }

    fn number(&mut self, name: String) -> usize {
        let next = self.names.len();
        *self.names.entry(name).or_insert(next)
    }

    /// Skips spaces and comments, and with `lines` the ends of lines as well.
    fn skip(&mut self, lines: bool) {
        while let Some(character) = self.peek() {
            match character {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                '#' => {
                    while self.peek().is_some_and(|character| character != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn take(&mut self, character: char) -> bool {
        let is_there = self.peek() == Some(character);
        self.at += usize::from(is_there);
        is_there
    }

    fn take_all(&mut self, text: &str) -> bool {
        text.chars().all(|character| self.take(character))
    }

    fn wrong(&self, what: &str) -> String {
        let before = &self.characters[..self.at.min(self.characters.len())];
        let line = before.iter().filter(|&&character| character == '\n').count() + 1;
        format!("line {line}: {what}")
    }
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

#[cfg(test)]
mod tests;
