//! Reads a model's `config.json`, each number within a range, so that no size in a file can ask for absurd memory.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The fields of a JSON object in a model's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The component in messages, such as `transformer`.
    component: &'static str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of an object.
    ///
    /// # Errors
    /// [`Error::ModelConfig`] if it is something else.
    pub fn of(component: &'static str, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(object) => Ok(Self { component, object }),
            other => Err(config_error(component, "the file", excerpt(&other.to_string()), "an object")),
        }
    }

    /// The fields of an object inside, if it is there.
    ///
    /// # Errors
    /// [`Error::ModelConfig`] if it is something else.
    pub fn inner(&self, name: &str) -> Result<Option<Self>> {
        match self.present(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { component: self.component, object })),
            Some(other) => Err(self.error(name, other, "an object")),
        }
    }

    /// Whether the field is there and null, where that means something else than its absence.
    #[must_use]
    pub fn is_null(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(Value::is_null)
    }

    /// A whole number in a range; `default` where the field is absent, and an error where there is no default.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn integer(&self, name: &str, default: Option<usize>, range: RangeInclusive<usize>) -> Result<usize> {
        let allowed = || format!("{} to {}", range.start(), range.end());
        let Some(value) = self.present(name) else {
            return default.ok_or_else(|| self.missing(name, &allowed()));
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.filter(|n| range.contains(n)).ok_or_else(|| self.error(name, value, &allowed()))
    }

    /// A number in a range; `default` where the field is absent.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn number(&self, name: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        let Some(value) = self.present(name) else { return Ok(default) };
        let number = value.as_f64().filter(|n| range.contains(n));
        number.ok_or_else(|| self.error(name, value, &format!("{:e} to {:e}", range.start(), range.end())))
    }

    /// A list of `len` numbers in a range; an error where the field is absent.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn numbers(&self, name: &str, len: usize, range: RangeInclusive<f64>) -> Result<Vec<f32>> {
        let allowed = format!("{len} numbers from {:e} to {:e}", range.start(), range.end());
        let value = self.present(name).ok_or_else(|| self.missing(name, &allowed))?;
        let one = |v: &Value| v.as_f64().filter(|n| range.contains(n)).map(to_f32);
        let list = value.as_array().filter(|a| a.len() == len).and_then(|a| a.iter().map(one).collect());
        list.ok_or_else(|| self.error(name, value, &allowed))
    }

    /// A list of whole numbers in a range, its length in another; `default` where the field is absent.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn integers(
        &self,
        name: &str,
        default: &[usize],
        lengths: RangeInclusive<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<Vec<usize>> {
        let Some(value) = self.present(name) else { return Ok(default.to_vec()) };
        let one = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n));
        let list = value.as_array().filter(|a| lengths.contains(&a.len()));
        list.and_then(|a| a.iter().map(one).collect()).ok_or_else(|| {
            let (short, long) = (lengths.start(), lengths.end());
            let allowed = format!("{short} to {long} numbers from {} to {}", range.start(), range.end());
            self.error(name, value, &allowed)
        })
    }

    /// A switch; `default` where the field is absent.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn switch(&self, name: &str, default: bool) -> Result<bool> {
        let Some(value) = self.present(name) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.error(name, value, "true or false"))
    }

    /// A list of switches; `default` where the field is absent.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn switches(&self, name: &str, default: &[bool]) -> Result<Vec<bool>> {
        let Some(value) = self.present(name) else { return Ok(default.to_vec()) };
        let list = value.as_array().and_then(|a| a.iter().map(Value::as_bool).collect());
        list.ok_or_else(|| self.error(name, value, "a list of true and false"))
    }

    /// Refuses a field that is there with another word than these.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn one_of(&self, name: &str, supported: &[&str]) -> Result<()> {
        match self.present(name) {
            Some(value) if !supported.iter().any(|word| value == word) => {
                Err(self.error(name, value, &supported.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a field that is there with another value than the one this engine can run.
    ///
    /// # Errors
    /// [`Error::ModelConfig`].
    pub fn only(&self, name: &str, supported: &Value) -> Result<()> {
        match self.present(name) {
            Some(value) if value != supported => {
                Err(self.error(name, value, &format!("{supported}; nothing else is supported")))
            }
            _ => Ok(()),
        }
    }

    /// The error for a field whose value breaks a rule.
    #[must_use]
    pub fn refuse(&self, name: &str, got: impl ToString, allowed: &str) -> Error {
        config_error(self.component, name, got.to_string(), allowed)
    }

    /// The field, unless it is absent or null.
    fn present(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|v| !v.is_null())
    }

    fn error(&self, name: &str, got: &Value, allowed: &str) -> Error {
        config_error(self.component, name, excerpt(&got.to_string()), allowed)
    }

    fn missing(&self, name: &str, allowed: &str) -> Error {
        config_error(self.component, name, "missing".into(), allowed)
    }
}

/// The JSON of a component's `config.json`.
///
/// # Errors
/// [`Error::ModelConfig`] if it is not JSON.
pub fn parse(component: &'static str, json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|e| config_error(component, "the file", e.to_string(), "JSON"))
}

/// A file's value in a message: the first part of it is enough.
fn excerpt(text: &str) -> String {
    const EXCERPT_CHARS: usize = 60;
    let short: String = text.chars().take(EXCERPT_CHARS).collect();
    if short.len() < text.len() { short + "..." } else { short }
}

fn config_error(component: &'static str, field: &str, got: String, allowed: &str) -> Error {
    Error::ModelConfig { component, field: field.to_owned(), got, allowed: allowed.to_owned() }
}

#[allow(clippy::cast_possible_truncation)] // configuration values are f32 in the reference
fn to_f32(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests;
