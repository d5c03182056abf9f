//! Which tokens join, and in which order.

use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::text::vocabulary::{Index, Push, TOKENS_LIMIT, Texts, Vocabulary};

/// What two tokens make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    /// Its line: those of lower ones go first.
    pub(super) rank: u32,
    /// The place of what it makes in the vocabulary.
    pub(super) token: u32,
}

/// All merges of a vocabulary. Tokens are named by their places there.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    pairs: Vec<[u32; 2]>,
    made: Vec<Merge>,
    index: Index,
}

/// A merge that there cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadMerge {
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

impl Merges {
    pub(super) fn new(pairs: &Pairs, vocabulary: &Vocabulary<u32>) -> Result<Self, BadMerge> {
        let (count, mut joined, mut next) = (pairs.len(), String::new(), 0_u32);
        let mut merges = Self {
            pairs: Vec::with_capacity(count),
            made: Vec::with_capacity(count),
            index: Index::default(),
        };
        for line in 0..count {
            let bad = |problem| BadMerge { line: line + 1, problem };
            let place = |text: &str| vocabulary.place(text).and_then(|place| u32::try_from(place).ok());
            let (a, b) = pairs.get(line);
            joined.clear();
            joined.extend([a, b]);
            let pair = place(a).zip(place(b)).ok_or_else(|| bad("joins something that is no token"))?;
            // What lines in turn give mostly are tokens in turn, which need no search.
            let token = Some(next).filter(|next| vocabulary.is_at(*next as usize, &joined));
            let token =
                token.or_else(|| place(&joined)).ok_or_else(|| bad("gives something that is no token"))?;
            next = token.saturating_add(1);
            let rank = u32::try_from(line).map_err(|_| bad("is one too many"))?;
            merges.add(pair.into(), Merge { rank, token }).map_err(|_| bad("is one too many"))?;
        }
        Ok(merges)
    }

    /// The last line of a pair counts.
    fn add(&mut self, pair: [u32; 2], made: Merge) -> Result<(), std::num::TryFromIntError> {
        let hash = self.hash(pair);
        if let Some(place) = self.index.find(hash, |place| self.pairs[place] == pair) {
            self.made[place] = made;
            return Ok(());
        }
        self.index.insert(hash, self.pairs.len())?;
        self.pairs.push(pair);
        self.made.push(made);
        Ok(())
    }

    /// What two tokens make, if anything.
    pub(super) fn get(&self, pair: [u32; 2]) -> Option<Merge> {
        let place = self.index.find(self.hash(pair), |place| self.pairs[place] == pair)?;
        Some(self.made[place])
    }

    fn hash(&self, [a, b]: [u32; 2]) -> u32 {
        self.index.hash(&(u64::from(a) << 32 | u64::from(b)).to_le_bytes())
    }
}

/// The merges of a file: pairs of texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs(Texts);

impl Pairs {
    fn len(&self) -> usize {
        self.0.len() / 2
    }

    fn get(&self, line: usize) -> (&str, &str) {
        (self.0.get(2 * line), self.0.get(2 * line + 1))
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pairs of tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pairs, A::Error> {
                let mut pairs = Pairs::default();
                while seq.next_element_seed(PushPair(&mut pairs.0))?.is_some() {
                    if pairs.len() > TOKENS_LIMIT {
                        return Err(A::Error::custom(format_args!("more than {TOKENS_LIMIT} merges")));
                    }
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_seq(PairsVisitor)
    }
}

/// Adds a merge, written `["a", "b"]` or, in old files, `"a b"`.
struct PushPair<'a>(&'a mut Texts);

impl<'de> de::DeserializeSeed<'de> for PushPair<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PushPair<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of tokens")
    }

    fn visit_str<E: de::Error>(self, line: &str) -> Result<(), E> {
        let (a, b) = line.split_once(' ').ok_or_else(|| E::custom("a merge is not a pair of tokens"))?;
        self.0.push(a)?;
        self.0.push(b)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let a = seq.next_element_seed(Push(self.0))?;
        let b = seq.next_element_seed(Push(self.0))?;
        let more = seq.next_element::<IgnoredAny>()?;
        match (a, b, more) {
            (Some(()), Some(()), None) => Ok(()),
            _ => Err(A::Error::custom("a merge is not a pair of tokens")),
        }
    }
}
