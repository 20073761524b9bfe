//! Kubernetes quantities: `64Mi` of memory, `500m` of a CPU.

/// Reads an amount of memory in bytes. Fractions are rounded down.
///
/// # Errors
/// Says what an amount looks like.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("K", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    UNITS
        .into_iter()
        .find_map(|(unit, factor)| scaled(text.trim().strip_suffix(unit)?, factor))
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("{text:?} is not an amount of memory such as 64Mi or 1.5G"))
}

/// Reads a number of CPUs in thousandths.
pub(super) fn millis(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    trimmed
        .strip_suffix('m')
        .map_or_else(|| scaled(trimmed, 1000), |number| scaled(number, 1))
        .filter(|&millis| millis > 0)
        .ok_or_else(|| format!("{text:?} is not a number of CPUs such as 500m or 1.5"))
}

/// A decimal number times a factor, exactly: no floating point.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9
    {
        return None;
    }
    let unit = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = format!("{whole}{fraction}").parse::<u128>().ok()?;
    u64::try_from(value.checked_mul(u128::from(factor))? / unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory() {
        for (text, expected) in [
            ("1", 1),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("2k", 2000),
            ("1G", 1_000_000_000),
            (" 7Ki ", 7168),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "Mi", "-1", "1e3", "0", "1.2.3", "0x10", "lots", "99999999999999999999Ti"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus() {
        for (text, expected) in [("1", 1000), ("500m", 500), ("0.25", 250), (".5", 500), ("2.0", 2000)] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "0", "0.0001", "half"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }
}
