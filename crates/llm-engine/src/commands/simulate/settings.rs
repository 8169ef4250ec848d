use std::time::Duration;

/// The settings as written, each taken once.
pub(super) struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// Reads words such as `rate=10/s`, of which the names are among some.
    pub(super) fn split(text: &str, names: &'static str) -> Result<Self, SettingsError> {
        let mut settings: Vec<(&'static str, String)> = Vec::new();
        for word in text.split_whitespace() {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| SettingsError::NotASetting(word.to_owned()))?;
            let mut known = names
                .split([',', ' '])
                .filter(|name| !matches!(*name, "" | "and"));
            let name = known
                .find(|known| *known == name)
                .ok_or_else(|| SettingsError::UnknownSetting {
                    name: name.to_owned(),
                    names,
                })?;
            if settings.iter().any(|(known, _)| *known == name) {
                return Err(SettingsError::Twice(name));
            }
            settings.push((name, value.to_owned()));
        }
        Ok(Self(settings))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    pub(super) fn exclude(&self, one: &'static str, other: &'static str) -> Result<(), SettingsError> {
        if self.has(one) && self.has(other) {
            return Err(SettingsError::Exclusive(one, other));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let position = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(position).1)
    }

    /// The value, if the setting is there. `must`: what it has to be.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        must: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(SettingsError::Value {
                name,
                value,
                must: must.to_owned(),
            }),
        }
    }
}

/// Why settings can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("'{0}' is not of the form name=value")]
    NotASetting(String),
    #[error("there is no setting '{name}'; there are {names}")]
    UnknownSetting { name: String, names: &'static str },
    #[error("{0} is set twice")]
    Twice(&'static str),
    #[error("{name}={value}: it must be {must}")]
    Value {
        name: &'static str,
        value: String,
        must: String,
    },
    #[error("{0} and {1} exclude each other")]
    Exclusive(&'static str, &'static str),
}

pub(super) const COUNT: &str = "a whole number, at least 1";

pub(super) fn count(text: &str) -> Option<u64> {
    text.parse().ok().filter(|count: &u64| *count > 0)
}

pub(super) fn above_zero(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number > 0.0 && number.is_finite()).then_some(number)
}

pub(super) const DURATION: &str = "a duration, such as 90s, 10m or 1h";

pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

pub(super) const RATE: &str = "a number per time, such as 10/s, 600/m or 2.5/h";

/// Per second.
pub(super) fn rate(text: &str) -> Option<f64> {
    let (count, per) = text.split_once('/')?;
    let seconds = match per {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let count: f64 = count.parse().ok()?;
    (count > 0.0 && count.is_finite()).then_some(count / seconds)
}
