//! Changes of inputs that are the same on every machine.

/// What is put into texts: ends of ranges, what JSON is made of, what must never be a name.
pub const WORDS: [&str; 24] = [
    "18446744073709551615",
    "9223372036854775808",
    "-1",
    "0",
    "1e999",
    "1.5",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\u0000",
    "null",
    "[0,0]",
    "\"F64\"",
    "\"U32\"",
    "\"F8_E4M3\"",
    "../../x",
    "\u{feff}",
    "\n@",
    "\0",
];
/// Lengths and offsets that lie.
const NUMBERS: [u64; 7] = [0, 1, 255, 1 << 31, 1 << 32, 1 << 62, u64::MAX];
/// Where most changes are: what describes a file is at its start.
const HEAD_BYTES: usize = 9_000;

/// Xorshift, seeded by a number.
pub struct Random(u64);

impl Random {
    /// The changes of this round.
    pub fn new(round: u64) -> Self {
        let mut random = Self(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first results of neighbouring seeds are alike.
        (0..8).for_each(|_| _ = random.below(1));
        random
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }

    /// One of the inputs with one to four faults in it, or the start of one and the end of another.
    pub fn changed(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut out = inputs[self.below(inputs.len())].clone();
        if self.below(8) == 0 {
            let other = &inputs[self.below(inputs.len())];
            out.truncate(self.below(out.len() + 1));
            out.extend_from_slice(&other[self.below(other.len() + 1)..]);
        }
        for _ in 0..=self.below(4) {
            self.fault(&mut out);
        }
        out
    }

    fn fault(&mut self, out: &mut Vec<u8>) {
        let head = if self.below(8) == 0 { out.len() } else { out.len().min(HEAD_BYTES) };
        let at = self.below(head);
        let to = (at + self.below(40)).min(out.len());
        match self.below(8) {
            0 if at < out.len() => out[at] ^= 1 << self.below(8),
            1 => out.truncate(at),
            2 => drop(out.drain(at..to)),
            3 => {
                let copy = out[at..to].to_vec();
                out.splice(at..at, copy);
            }
            4 => drop(out.splice(at..to, WORDS[self.below(WORDS.len())].bytes())),
            5 => {
                let lie = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let end = out.len().min(at + [4, 8][self.below(2)]);
                out[at..end].copy_from_slice(&lie[..end - at]);
            }
            6 if at < out.len() => out[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'}'][self.below(8)],
            // Numbers in the text become others.
            _ => {
                if let Some(digit) = out.iter().skip(at).position(u8::is_ascii_digit) {
                    out[at + digit] = b"0123456789"[self.below(10)];
                }
            }
        }
    }
}
