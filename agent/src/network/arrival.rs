//! Waits for a network card that was plugged in, or is about to be.

use std::path::Path;

use super::address::HardwareAddress;
use super::error::NetworkError;
use super::link::Interface;
use crate::device::watch::DeviceWatch;
use crate::patience::Patience;

/// Waits until there is a link at the place or with the hardware address that is asked for, for the watch's timeout at
/// most. A link that is meant by its name alone is there or not.
///
/// # Errors
/// [`NetworkError::NotPlugged`] where the place stayed empty. A hardware address that did not come is no error here: the
/// link may be meant by its name.
pub(super) async fn wait(
    wanted: &Interface,
    devices: &DeviceWatch,
    patience: &Patience,
) -> Result<(), NetworkError> {
    let (devices, wanted) = (devices.clone(), wanted.clone());
    let work = move || match (&wanted.device_path, &wanted.hw_addr) {
        (Some(path), _) => {
            let found = devices.wait(|| path.link_name(devices.sys()));
            let late = |waited| NetworkError::NotPlugged { path: path.to_string(), waited };
            found.map(drop).map_err(|none| late(none.waited))
        }
        (None, Some(address)) => {
            let is_there = || is_there(devices.sys(), address, &wanted).then_some(());
            if let Err(none) = devices.wait(is_there) {
                tracing::debug!(%address, waited_ms = none.waited.as_millis(), "no such card came");
            }
            Ok(())
        }
        (None, None) => Ok(()),
    };
    patience.run(work).await.map_err(NetworkError::Aborted)?
}

/// Whether there is a link with the address, or one with the name that may get the address.
fn is_there(sys: &Path, address: &HardwareAddress, wanted: &Interface) -> bool {
    let links = sys.join("class/net");
    let has_name =
        [&wanted.name, &wanted.device].iter().any(|name| !name.is_empty() && links.join(name).exists());
    let Ok(entries) = std::fs::read_dir(&links) else { return has_name };
    let mut addresses =
        entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("address")).ok());
    has_name || addresses.any(|found| found.trim().eq_ignore_ascii_case(&address.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_card_is_there_by_address_or_by_name() {
        let sys = tempfile::tempdir().unwrap();
        let link = sys.path().join("class/net/eth3");
        std::fs::create_dir_all(&link).unwrap();
        std::fs::write(link.join("address"), "52:54:00:AA:bb:01\n").unwrap();
        let address = |text: &str| text.parse::<HardwareAddress>().unwrap();
        let named = |name: &str| Interface { name: name.to_owned(), ..Interface::default() };
        assert!(is_there(sys.path(), &address("52:54:00:aa:bb:01"), &named("eth0")));
        assert!(!is_there(sys.path(), &address("52:54:00:aa:bb:02"), &named("eth0")));
        assert!(is_there(sys.path(), &address("52:54:00:aa:bb:02"), &named("eth3")));
        assert!(!is_there(sys.path(), &address("52:54:00:aa:bb:02"), &named("")));
    }

    #[tokio::test]
    async fn a_place_that_stays_empty_is_an_error_and_an_address_is_not() {
        let sys = tempfile::tempdir().unwrap();
        let devices = DeviceWatch::deaf(sys.path(), Duration::from_millis(20));
        let at = Interface { device_path: "02/00".parse().ok(), ..Interface::default() };
        assert!(matches!(
            wait(&at, &devices, &Patience::for_devices()).await,
            Err(NetworkError::NotPlugged { .. })
        ));
        let with = Interface { hw_addr: "52:54:00:aa:bb:01".parse().ok(), ..Interface::default() };
        assert!(wait(&with, &devices, &Patience::for_devices()).await.is_ok());
    }
}
