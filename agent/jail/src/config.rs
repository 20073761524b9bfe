//! Reads a bundle's `config.json`.

use std::path::Path;

use anyhow::{Context as _, Result};
use oci_spec::runtime::Spec;

/// The spec of a bundle, with paths that are relative to it made absolute.
pub(crate) fn read(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path)
        .with_context(|| format!("read {} (a bundle is a directory with one)", path.display()))?;
    let spec = parse(&text).with_context(|| format!("understand {}", path.display()))?;
    Ok(absolute(spec, bundle))
}

fn parse(text: &[u8]) -> Result<Spec> {
    let (spec, warnings) = rustjail::plan::config::read(serde_json::from_slice(text)?)?;
    warnings.iter().for_each(|warning| eprintln!("jail: warning: {warning}"));
    Ok(spec)
}

/// The root and the sources of binds may be relative to the bundle (runtime-spec, "Root", "Mounts").
fn absolute(mut spec: Spec, bundle: &Path) -> Spec {
    if let Some(root) = spec.root_mut()
        && root.path().is_relative()
    {
        let path = bundle.join(root.path());
        root.set_path(path);
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let words = mount.options().as_deref().unwrap_or_default();
        let is_bind = mount.typ().as_deref() == Some("bind")
            || words.iter().any(|word| matches!(word.as_str(), "bind" | "rbind"));
        let relative = mount.source().clone().filter(|source| is_bind && source.is_relative());
        if let Some(source) = relative {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn relative_paths_count_from_the_bundle() {
        let text = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/x", "source": "beside", "options": ["rbind"] }],
        });
        let spec = absolute(parse(text.to_string().as_bytes()).unwrap(), Path::new("/b"));
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("/b/rootfs"));
        assert_eq!(spec.mounts().as_ref().unwrap()[0].source().as_deref(), Some(Path::new("/b/beside")));
    }
}
