//! The manifest of a pod: whatever it is, there is a pod with names that can be used, or a refusal that says why.

#![no_main]

use pods::run::Pod;

libfuzzer_sys::fuzz_target!(|text: &str| match Pod::parse(text) {
    Ok(pod) => {
        let is_label = |name: &str| (1..64).contains(&name.len()) && !name.contains(['/', '.', ' ', '\0']);
        assert!(is_label(&pod.name()) && !pod.containers.is_empty());
        assert!(pod.containers.iter().all(|container| is_label(&container.name)));
        let has = |name: &String| pod.volumes.iter().any(|volume| volume.name == *name);
        assert!(
            pod.containers.iter().flat_map(|container| &container.mounts).all(|mount| has(&mount.volume))
        );
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
