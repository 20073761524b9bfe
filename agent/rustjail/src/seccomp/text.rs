//! A program in a plan: one text of 16 hexadecimal digits for each instruction. A plan is read again for every process, and
//! hundreds of lists of numbers take several times as long to write and to read.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

use super::Instruction;

/// Digits of an instruction.
const DIGITS: usize = 16;

const HEX: &[u8; 16] = b"0123456789abcdef";

fn pack(Instruction { code, jt, jf, k }: Instruction) -> u64 {
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

fn unpack(bits: u64) -> Instruction {
    Instruction { code: (bits >> 48) as u16, jt: (bits >> 40) as u8, jf: (bits >> 32) as u8, k: bits as u32 }
}

pub(super) fn serialize<S: Serializer>(program: &[Instruction], out: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(program.len() * DIGITS);
    for instruction in program {
        let bits = pack(*instruction);
        text.extend((0..DIGITS).rev().map(|digit| char::from(HEX[(bits >> (4 * digit)) as usize & 15])));
    }
    out.serialize_str(&text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Arc<[Instruction]>, D::Error> {
    input.deserialize_str(Text)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Arc<[Instruction]>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a filter of {DIGITS} hexadecimal digits for each instruction")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Arc<[Instruction]>, E> {
        let bad = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
        let (instructions, []) = text.as_bytes().as_chunks::<DIGITS>() else { return Err(bad()) };
        let instruction = |digits: &[u8; DIGITS]| {
            digits
                .iter()
                .try_fold(0, |bits: u64, digit| Some(bits << 4 | u64::from(char::from(*digit).to_digit(16)?)))
        };
        instructions.iter().map(|digits| instruction(digits).map(unpack).ok_or_else(bad)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use super::*;
    use proptest::prelude::*;

    fn filter(program: Vec<Instruction>) -> Filter {
        Filter { program: program.into(), flags: 2, listener: true }
    }

    #[test]
    fn a_program_is_one_short_text() {
        let filter = filter(vec![
            Instruction { code: 0x20, jt: 0, jf: 0, k: 4 },
            Instruction { code: 0x15, jt: 1, jf: 255, k: 0xc000_003e },
        ]);
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(text, r#"{"program":"0020000000000004001501ffc000003e","flags":2,"listener":true}"#);
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        for text in ["0", "00200000000000040", "002000000000000g", "+020000000000004", "\u{e9}02000000000004"]
        {
            let json = serde_json::json!({ "program": text, "flags": 0, "listener": false });
            let error = serde_json::from_value::<Filter>(json).unwrap_err().to_string();
            assert!(error.contains("16 hexadecimal digits"), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_program_comes_back(bits in prop::collection::vec(any::<u64>(), 0..64)) {
            let filter = filter(bits.into_iter().map(unpack).collect());
            let text = serde_json::to_vec(&filter).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Filter>(&text).unwrap(), filter);
        }
    }
}
