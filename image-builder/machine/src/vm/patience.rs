//! How long to wait for a guest's ready line.

use std::time::Duration;

use super::VmError;

/// By default.
pub(super) const BOOT: Duration = Duration::from_secs(120);
/// When KVM is tried on a host about which nothing is known. A guest in a VM whose own host is busy was seen to take 13 s.
pub(super) const TRIAL: Duration = Duration::from_secs(30);
/// Names how many times as long it may take: for hosts that are slow themselves.
const VARIABLE: &str = "PITH_PATIENCE";
/// The most that makes sense: a boot that is not over after hours hangs.
const MOST: u32 = 100;

/// The factor that the user wants; 1 if nothing is said.
///
/// # Errors
/// [`VmError::Config`] when the variable has another value than a whole number from 1 to 100.
pub(super) fn wanted() -> Result<u32, VmError> {
    parse(&std::env::var_os(VARIABLE).unwrap_or_default().to_string_lossy())
}

fn parse(text: &str) -> Result<u32, VmError> {
    if text.is_empty() {
        return Ok(1);
    }
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| {
        VmError::Config(format!(
            "{VARIABLE}={text} is no whole number from 1 to {MOST}; unset it, or set one"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_small_whole_number() {
        assert_eq!(parse("").unwrap(), 1);
        assert_eq!(parse("8").unwrap(), 8);
        for senseless in ["0", "101", "-1", "2.5", "long"] {
            let error = parse(senseless).unwrap_err().to_string();
            assert!(error.contains(&format!("PITH_PATIENCE={senseless}")), "{error}");
        }
    }
}
