//! The tokens of a vocabulary and their numbers.
//!
//! A full vocabulary has 150,000 tokens of some bytes each. Their texts lie one behind the other and are found through a
//! table of places, so reading it takes a handful of allocations and letting it go takes none of the time.

mod index;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de};

pub(crate) use self::index::Index;
use crate::weights::json;

/// Most tokens, and most merges; Qwen2 has 151,643 and 151,387.
pub(crate) const TOKENS_LIMIT: usize = 300_000;

/// A list of texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// One behind the other.
    all: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Texts {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text at a place.
    #[inline]
    pub(crate) fn get(&self, place: usize) -> &str {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.all[start..self.ends[place] as usize]
    }

    /// Adds a text.
    pub(crate) fn push<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        let end = u32::try_from(self.all.len() + text.len())
            .map_err(|_| E::custom("its texts are longer than 4 GiB together"))?;
        self.all.push_str(text);
        self.ends.push(end);
        Ok(())
    }

    /// Takes the last text away again.
    fn pop(&mut self) {
        self.ends.pop();
        self.all.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }
}

/// Adds the text that comes to a list.
pub(crate) struct Push<'a>(pub(crate) &'a mut Texts);

impl<'de> DeserializeSeed<'de> for Push<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Push<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push(text)
    }
}

/// Tokens and their numbers, in the order of the file. Each token is there once; [`TOKENS_LIMIT`] and one more are kept, which
/// shows that there are too many.
#[derive(Clone, Debug)]
pub(crate) struct Vocabulary<Id> {
    tokens: Texts,
    ids: Vec<Id>,
    index: Index,
}

impl<Id: Copy> Vocabulary<Id> {
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token at a place.
    pub(crate) fn token(&self, place: usize) -> &str {
        self.tokens.get(place)
    }

    /// The number of the token at a place.
    pub(crate) fn id(&self, place: usize) -> Id {
        self.ids[place]
    }

    /// Whether a token is at a place.
    pub(crate) fn is_at(&self, place: usize, token: &str) -> bool {
        place < self.len() && self.token(place) == token
    }

    /// The place of a token.
    pub(crate) fn place(&self, token: &str) -> Option<usize> {
        let hash = self.index.hash(token.as_bytes());
        self.index.find(hash, |place| self.tokens.get(place) == token)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Id)> {
        (0..self.len()).map(|place| (self.token(place), self.id(place)))
    }
}

impl<'de, Id: Deserialize<'de> + Copy> Deserialize<'de> for Vocabulary<Id> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(VocabularyVisitor(PhantomData))
    }
}

struct VocabularyVisitor<Id>(PhantomData<Id>);

impl<'de, Id: Deserialize<'de> + Copy> Visitor<'de> for VocabularyVisitor<Id> {
    type Value = Vocabulary<Id>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number for each token")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary<Id>, A::Error> {
        let mut read = Vocabulary { tokens: Texts::default(), ids: Vec::new(), index: Index::default() };
        let Vocabulary { tokens, ids, index } = &mut read;
        while map.next_key_seed(Push(tokens))?.is_some() {
            let id = map.next_value()?;
            if ids.len() > TOKENS_LIMIT {
                tokens.pop();
                continue;
            }
            let place = ids.len();
            let token = tokens.get(place);
            let hash = index.hash(token.as_bytes());
            if index.find(hash, |other| tokens.get(other) == token).is_some() {
                return Err(json::twice(token));
            }
            index.insert(hash, place).map_err(A::Error::custom)?;
            ids.push(id);
        }
        Ok(read)
    }
}
