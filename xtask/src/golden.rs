//! The golden fixtures: every file is listed in the manifest with its hash, and every listed file is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Result;

/// Compares golden/data with its manifest.
pub fn check(root: &Path) -> Result<()> {
    let data = root.join("golden/data");
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let manifest: serde_json::Value = serde_json::from_slice(&read(&data.join("manifest.json"))?)
        .map_err(|e| format!("golden/data/manifest.json: {e}"))?;
    let files = manifest["files"].as_object().ok_or("golden/data/manifest.json: no `files`")?;

    let mut faults = Vec::new();
    for (name, entry) in files {
        match fs::read(data.join(name)) {
            Err(e) => faults.push(format!("{name}: {e}")),
            Ok(bytes) => {
                let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                if entry["sha256"] != hash {
                    faults.push(format!("{name}: sha256 is {hash}, the manifest has {}", entry["sha256"]));
                }
            }
        }
    }
    let mut present = BTreeSet::new();
    list(&data, &data, &mut present)?;
    faults.extend(
        present
            .iter()
            .filter(|name| *name != "manifest.json" && !files.contains_key(*name))
            .map(|name| format!("{name}: not in the manifest")),
    );
    if faults.is_empty() {
        println!("golden/data: {} files as the manifest has them", files.len());
        Ok(())
    } else {
        Err(format!("golden/data differs from its manifest:\n  {}", faults.join("\n  ")))
    }
}

fn list(root: &Path, folder: &Path, into: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        if path.is_dir() {
            list(root, &path, into)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            into.insert(name.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}
