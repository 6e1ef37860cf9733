//! Folders: copied, listed, and looked through for what should not be there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a readable folder") {
        let entry = entry.expect("a readable folder");
        let target = to.join(entry.file_name());
        // A server makes it anew, and it is large.
        if entry.file_name() == "reserve" {
            continue;
        }
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// All files under `root`, by path. What vanishes while it is looked at is not there.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(root) else {
        return found;
    };
    for entry in entries.filter_map(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// Names of what lies in a folder; none where it is missing.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = entries.filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What a server that has nothing to do should not have in its data folder.
pub(crate) fn leftovers(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let of_executors = names(&data.join("spill"));
    let of_executors = of_executors.iter().map(|name| format!("spill/{name}"));
    for folder in ["uploads", "store/jobs"]
        .map(str::to_owned)
        .into_iter()
        .chain(of_executors)
    {
        let folder = data.join(folder);
        found.extend(names(&folder).iter().map(|name| folder.join(name)));
    }
    let half_made = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains('#') || name.ends_with(".draft") || name.ends_with(".part")
    };
    found.extend(files(&data.join("store")).into_iter().filter(half_made));
    found
}

/// What a job that has ended should not have in the folder of its outputs: staging folders, and what lies in them.
pub(crate) fn staged(outputs: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for output in names(outputs) {
        let folder = outputs.join(output);
        let hidden = names(&folder)
            .into_iter()
            .filter(|name| name.starts_with('.'));
        found.extend(hidden.map(|name| folder.join(name)));
    }
    found
}

/// The contents of all files under `root`, by path from there. What vanishes while it is looked at is not there.
pub(crate) fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).ok()?;
        let name = path.strip_prefix(root).expect("it lies there").to_owned();
        Some((name, bytes))
    };
    files(root).into_iter().filter_map(read).collect()
}
