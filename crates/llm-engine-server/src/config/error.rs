use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", .path.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConfigError {
    path: PathBuf,
    /// From 1.
    line: Option<usize>,
    message: String,
}

impl ConfigError {
    pub(super) fn whole_file(path: &Path, message: String) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            message,
        }
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

    pub(super) fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        ConfigError {
            path: self.path.to_owned(),
            line: Some(line),
            message: message.into(),
        }
    }

    pub(super) fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().trim().replace('\n', ", ");
        match error.span() {
            Some(span) => self.error(span, message),
            None => ConfigError::whole_file(self.path, message),
        }
    }
}
