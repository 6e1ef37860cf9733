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

/// Gives the path of Azurite, a server of Azure's protocol that tests of stores start, which is installed to
/// `~/.cache/weft/azurite` if it is not there.
pub(crate) fn azurite(places: &Places) -> Result<PathBuf> {
    toolchain::ensure_node()?;
    let lists = places.root.join("fabric/store/tests/azurite");
    let folder = places.cache.join("azurite");
    let (wanted, stamp) = (
        std::fs::read_to_string(lists.join(LISTS[1]))?,
        folder.join(STAMP),
    );
    if !std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        println!("installing azurite to {}", folder.display());
        std::fs::create_dir_all(&folder)?;
        for list in LISTS {
            std::fs::copy(lists.join(list), folder.join(list))?;
        }
        // No script of a package runs: none is needed.
        run(program("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder))?;
        std::fs::write(stamp, wanted)?;
    }
    Ok(folder.join("node_modules/.bin/azurite-blob"))
}
