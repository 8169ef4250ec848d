use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::nearest::meant;

/// What is wrong with a configuration: at least one mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    mistakes: Vec<Mistake>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// What it is, and what was meant or is possible.
    pub message: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1; `None` is the whole file.
    pub position: Option<(usize, usize)>,
}

impl ConfigError {
    /// All of it, in the order of the file.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigError {
    /// One line for each mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let new_line = if index == 0 { "" } else { "\n" };
            write!(f, "{new_line}{mistake}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl fmt::Display for Place {
    /// In the form that editors and terminals lead to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match self.position {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self {
            mistakes: vec![mistake],
        }
    }
}

/// The mistakes that were found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// What was read, or nothing, and one mistake more.
    pub(super) fn keep<T>(&mut self, read: Result<T, Mistake>) -> Option<T> {
        read.map_err(|mistake| self.0.push(mistake)).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An error if there are any.
    pub(super) fn check(self) -> Result<(), ConfigError> {
        let Self(mut mistakes) = self;
        if mistakes.is_empty() {
            return Ok(());
        }
        mistakes.sort_by_key(|mistake| mistake.place.position);
        Err(ConfigError { mistakes })
    }
}

/// The text of a configuration, to say where in it something is wrong.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

impl Source<'_> {
    /// Where relative paths start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let begun = before.rsplit('\n').next().unwrap_or_default();
        Place {
            path: self.path.to_owned(),
            position: Some((line, begun.chars().count() + 1)),
        }
    }

    pub(super) fn error(&self, span: Range<usize>, message: impl Into<String>) -> Mistake {
        Mistake {
            place: self.place(&span),
            message: message.into(),
        }
    }

    pub(super) fn whole_file(&self, message: String) -> Mistake {
        let place = Place {
            path: self.path.to_owned(),
            position: None,
        };
        Mistake { place, message }
    }

    pub(super) fn toml_error(&self, error: &toml::de::Error) -> Mistake {
        let message = meant(&error.message().trim().replace('\n', ", "));
        match error.span() {
            Some(span) => self.error(span, message),
            None => self.whole_file(message),
        }
    }
}
