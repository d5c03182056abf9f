//! The Mersenne twister MT19937 (Matsumoto and Nishimura, 1998).

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// The generator's state: a block of words, used up one by one.
#[derive(Clone, Debug)]
pub(super) struct Twister {
    words: Box<[u32; WORDS]>,
    used: usize,
}

impl Twister {
    pub(super) fn new(seed: u32) -> Self {
        let mut words = Box::new([seed; WORDS]);
        for i in 1..WORDS {
            let last = words[i - 1];
            #[allow(clippy::cast_possible_truncation)] // i is below 624
            let index = i as u32;
            words[i] = 1_812_433_253_u32.wrapping_mul(last ^ last >> 30).wrapping_add(index);
        }
        Self { words, used: WORDS }
    }

    pub(super) fn next(&mut self) -> u32 {
        if self.used == WORDS {
            self.refill();
        }
        let mut word = self.words[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    fn refill(&mut self) {
        let words = &mut self.words;
        for i in 0..WORDS {
            let joined = words[i] & 0x8000_0000 | words[(i + 1) % WORDS] & 0x7fff_ffff;
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            words[i] = words[(i + MIDDLE) % WORDS] ^ joined >> 1 ^ twist;
        }
        self.used = 0;
    }
}
