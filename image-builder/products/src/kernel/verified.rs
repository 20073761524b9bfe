//! Whether a configuration is what was asked for.

use super::config::Config;
use super::error::KernelError;
use super::profile::Profile;

/// Passes a configuration on if it is what the profile asks for and promises.
pub(super) fn verified(profile: &Profile, config: &str) -> Result<(), KernelError> {
    let config = Config::parse(config);
    let faults = config.verify(&profile.requests, &profile.forbidden);
    if !faults.is_empty() {
        return Err(KernelError::Faults(faults));
    }
    let missing: Vec<_> = profile.promised().flat_map(|list| list.missing(&config)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::Unmet { profile: profile.name.clone(), missing })
    }
}
