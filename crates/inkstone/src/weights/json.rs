//! JSON from strangers: read up to a size, never deep, no key twice.

use std::fmt;
use std::io::Read;
use std::path::Path;

use inkstone_tensor::regular;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::JsonProblem;
use crate::{Error, Result};

/// Largest config; the largest real one has 5 KB.
pub(super) const CONFIG_LIMIT_BYTES: u64 = 1_000_000;
/// Most values in a config, so that many small ones cannot take many times the size of the file; real ones have
/// some hundred.
const VALUES_LIMIT: usize = 10_000;
/// What of a key is shown in an error.
const KEY_SHOWN_CHARS: usize = 80;

/// Reads a file up to its limit.
pub(super) fn read_file(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    let file = regular::open(path).map_err(failed)?;
    let size_bytes = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    if size_bytes <= limit_bytes {
        // The limit holds for a file that grows in the meantime, or does not know its size.
        file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    let size_bytes = size_bytes.max(bytes.len() as u64);
    if size_bytes > limit_bytes {
        let problem = JsonProblem::TooLarge { size_bytes, limit_bytes };
        return Err(Error::Json { path: path.to_owned(), problem });
    }
    Ok(bytes)
}

/// The value of a config file. The parser itself stops at a depth of 128.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Value> {
    let mut values_left = VALUES_LIMIT;
    parse_with(path, bytes, StrictSeed { values_left: &mut values_left })
}

/// What a seed makes of a JSON text.
pub(super) fn parse_with<'de, S: DeserializeSeed<'de>>(
    path: &Path,
    bytes: &'de [u8],
    seed: S,
) -> Result<S::Value> {
    let refused = |problem| Error::Json { path: path.to_owned(), problem };
    if bytes.starts_with(b"\xef\xbb\xbf") || bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")
    {
        return Err(refused(JsonProblem::ByteOrderMark));
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    value.map_err(|e| refused(JsonProblem::Invalid { reason: e.to_string() }))
}

/// The error for a key that comes a second time.
pub(super) fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("the key {:?} occurs twice", shown(key)))
}

/// The start of a text, for an error.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(KEY_SHOWN_CHARS).collect()
}

/// Like [`Value`], but a key that comes twice is an error and values are counted.
struct StrictSeed<'a> {
    values_left: &'a mut usize,
}

impl StrictSeed<'_> {
    fn again(&mut self) -> StrictSeed<'_> {
        StrictSeed { values_left: self.values_left }
    }
}

impl<'de> DeserializeSeed<'de> for StrictSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or_else(|| D::Error::custom(format_args!("more than {VALUES_LIMIT} values")))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(self.again())? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(twice(&key));
            }
            object.insert(key, map.next_value_seed(self.again())?);
        }
        Ok(Value::Object(object))
    }
}
