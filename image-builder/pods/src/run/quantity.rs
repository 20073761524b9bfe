//! Kubernetes' quantities: `64Mi` of memory, `500m` of a CPU, `1e3`.
//!
//! A decimal number, and behind it a power of ten (`n`, `u`, `m`, `k`, `M`, `G`, `T`, `P`, `E`, or `e` and an exponent) or of
//! two (`Ki` to `Ei`). Computed exactly; what is left over is rounded up, as Kubernetes does.

/// Suffix, power of ten, power of two.
const SUFFIXES: [(&str, i32, u32); 16] = [
    ("Ki", 0, 10),
    ("Mi", 0, 20),
    ("Gi", 0, 30),
    ("Ti", 0, 40),
    ("Pi", 0, 50),
    ("Ei", 0, 60),
    ("n", -9, 0),
    ("u", -6, 0),
    ("m", -3, 0),
    ("k", 3, 0),
    ("M", 6, 0),
    ("G", 9, 0),
    ("T", 12, 0),
    ("P", 15, 0),
    ("E", 18, 0),
    ("", 0, 0),
];
/// The largest exponent, and the most digits, that are looked at.
const MAX_EXPONENT: i32 = 30;
const MAX_DIGITS: usize = 28;

/// Reads an amount of memory in bytes, for an option of the command line. Also takes `K` for 1000.
///
/// # Errors
/// Says what an amount looks like.
pub fn bytes(text: &str) -> Result<u64, String> {
    let kubernetes =
        text.trim().strip_suffix('K').map_or_else(|| text.to_owned(), |number| format!("{number}k"));
    memory(&kubernetes)
        .ok()
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("{text:?} is not an amount of memory such as 64Mi or 1.5G"))
}

/// Reads an amount of memory in bytes; 0 is an amount, too.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    scaled(text.trim(), 0).ok_or_else(|| format!("{text:?} is not an amount of memory such as 64Mi or 1.5G"))
}

/// Reads a number of CPUs in thousandths.
pub(super) fn millis(text: &str) -> Result<u64, String> {
    scaled(text.trim(), 3).ok_or_else(|| format!("{text:?} is not a number of CPUs such as 500m or 1.5"))
}

/// A quantity times a power of ten, rounded up.
fn scaled(text: &str, power: i32) -> Option<u64> {
    let (number, ten, two) = split(text)?;
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !is_digits(whole) || !is_digits(fraction) || digits.len() > MAX_DIGITS {
        return None;
    }
    let ten = ten + power - i32::try_from(fraction.len()).ok()?;
    let value = digits.parse::<u128>().ok()?.checked_mul(1 << two)?;
    let factor = 10_u128.checked_pow(ten.unsigned_abs())?;
    let value = if ten >= 0 { value.checked_mul(factor)? } else { value.div_ceil(factor) };
    // What Kubernetes can hold.
    u64::try_from(value).ok().filter(|&value| i64::try_from(value).is_ok())
}

/// The number, and its powers of ten and two.
fn split(text: &str) -> Option<(&str, i32, u32)> {
    if let Some((number, exponent)) = text.split_once(['e', 'E'])
        && !exponent.is_empty()
        && let Ok(exponent) = exponent.parse::<i32>()
    {
        return (exponent.abs() <= MAX_EXPONENT).then_some((number, exponent, 0));
    }
    SUFFIXES.into_iter().find_map(|(suffix, ten, two)| Some((text.strip_suffix(suffix)?, ten, two)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_every_form() {
        for (text, expected) in [
            ("1", 1),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("2k", 2000),
            ("1G", 1_000_000_000),
            (" 7Ki ", 7168),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("129M", 129_000_000),
            ("128974848000m", 128_974_848),
            ("123Mi", 123 << 20),
            ("1E3", 1000),
            ("2E", 2_000_000_000_000_000_000),
            ("7Ei", 7 << 60),
            ("1Pi", 1 << 50),
            ("1P", 1_000_000_000_000_000),
            ("1e-1", 1),
            ("0.5", 1),
            ("1500m", 2),
            ("1n", 1),
            ("+5", 5),
            ("5.", 5),
            (".5Ki", 512),
            ("0", 0),
        ] {
            assert_eq!(memory(text), Ok(expected), "{text}");
        }
        let wrong = [
            "",
            "Mi",
            "-1",
            "1.2.3",
            "0x10",
            "lots",
            "99999999999999999999Ti",
            "8Ei",
            "1e99",
            "1 Mi",
            "1mi",
            "1KI",
            "e",
            "1e",
            "1Mi5",
        ];
        for text in wrong {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_on_the_command_line_are_not_nothing() {
        assert_eq!((bytes("1K"), bytes("64Gi")), (Ok(1000), Ok(64 << 30)));
        assert!(bytes("0").is_err() && bytes("").is_err());
    }

    #[test]
    fn cpus() {
        for (text, expected) in [
            ("1", 1000),
            ("500m", 500),
            ("0.25", 250),
            (".5", 500),
            ("2.0", 2000),
            ("0.0001", 1),
            ("100u", 1),
            ("2k", 2_000_000),
            ("1e-1", 100),
            ("0", 0),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "half", "-1", "1c"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }
}
