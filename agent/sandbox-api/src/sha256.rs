//! SHA-256 (FIPS 180-4). Pure.
//!
//! For the few bytes of a signature: crates for it have three forms of the same, for speed that nothing here needs.

/// The fractions of the cube roots of the first 64 primes.
const K: [u32; 64] = constants();
/// The fractions of the square roots of the first eight primes.
const START: [u32; 8] = start();

/// The digest of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    let mut state = START;
    for block in padded.chunks_exact(64) {
        compress(&mut state, block);
    }
    let mut digest = [0; 32];
    for (place, word) in digest.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn compress(state: &mut [u32; 8], block: &[u8]) {
    let mut words = [0u32; 64];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for at in 16..64 {
        let (near, far) = (words[at - 2], words[at - 15]);
        let near = near.rotate_right(17) ^ near.rotate_right(19) ^ (near >> 10);
        let far = far.rotate_right(7) ^ far.rotate_right(18) ^ (far >> 3);
        words[at] = words[at - 16].wrapping_add(far).wrapping_add(words[at - 7]).wrapping_add(near);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (word, k) in words.into_iter().zip(K) {
        let first = h
            .wrapping_add(e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25))
            .wrapping_add((e & f) ^ (!e & g))
            .wrapping_add(k)
            .wrapping_add(word);
        let second = (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22))
            .wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    for (sum, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *sum = sum.wrapping_add(word);
    }
}

const fn constants() -> [u32; 64] {
    let (mut all, mut count, mut number) = ([0; 64], 0, 2);
    while count < 64 {
        if is_prime(number) {
            all[count] = fraction(number, 3);
            count += 1;
        }
        number += 1;
    }
    all
}

const fn start() -> [u32; 8] {
    let (mut all, mut count, mut number) = ([0; 8], 0, 2);
    while count < 8 {
        if is_prime(number) {
            all[count] = fraction(number, 2);
            count += 1;
        }
        number += 1;
    }
    all
}

const fn is_prime(number: u128) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number % divisor == 0 {
            return false;
        }
        divisor += 1;
    }
    true
}

/// The first 32 bits behind the point of a root of `number`, which is less than 512: the largest number of 36 bits whose power
/// is not more than `number`, as a fixed-point number with 32 bits behind the point.
const fn fraction(number: u128, power: u32) -> u32 {
    let (mut root, mut bit) = (0u128, 1 << 36);
    while bit > 0 {
        let candidate = root | bit;
        if candidate.pow(power) <= number << (32 * power) {
            root = candidate;
        }
        bit >>= 1;
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest as _;

    #[test]
    fn constants_are_those_of_the_standard() {
        assert_eq!((K[0], K[63]), (0x428a_2f98, 0xc671_78f2));
        assert_eq!((START[0], START[7]), (0x6a09_e667, 0x5be0_cd19));
    }

    proptest! {
        #[test]
        fn it_is_what_the_crate_makes_of_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let expected: [u8; 32] = sha2::Sha256::digest(&bytes).into();
            prop_assert_eq!(digest(&bytes), expected);
        }
    }
}
