//! Tools that Node's registry has: a store for tests.

use std::path::PathBuf;

use anyhow::Result;

use crate::places::Places;
use crate::run::{program, run};
use crate::toolchain;

/// Files that say what is installed, each version with a checksum.
const LISTS: [&str; 2] = ["package.json", "package-lock.json"];
/// Copy of the lock of what is installed whole.
const STAMP: &str = "installed.json";

/// Returns the path of Azurite, a server of Azure's protocol that tests of stores start.
pub(crate) fn azurite(places: &Places) -> PathBuf {
    folder(places).join("node_modules/.bin/azurite-blob")
}

/// Returns whether Azurite is installed as the lists say.
pub(crate) fn has_azurite(places: &Places) -> bool {
    let read = |file: PathBuf| std::fs::read_to_string(file).ok();
    let wanted = read(lists(places).join(LISTS[1]));
    wanted.is_some() && wanted == read(folder(places).join(STAMP))
}

fn folder(places: &Places) -> PathBuf {
    places.cache.join("azurite")
}

fn lists(places: &Places) -> PathBuf {
    places.root.join("fabric/store/tests/azurite")
}

/// Installs Azurite to `~/.cache/weft/azurite` if it is not there, and Node with it.
pub(crate) fn install_azurite(places: &Places) -> Result<()> {
    if has_azurite(places) {
        return Ok(());
    }
    toolchain::ensure_node()?;
    let (lists, folder) = (lists(places), folder(places));
    println!("installing azurite to {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    for list in LISTS {
        std::fs::copy(lists.join(list), folder.join(list))?;
    }
    // No script of a package runs: none is needed.
    run(program("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder))?;
    std::fs::copy(lists.join(LISTS[1]), folder.join(STAMP))?;
    Ok(())
}
