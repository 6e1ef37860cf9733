//! The components that tests deploy.

use std::path::PathBuf;

/// The file of a built guest. Panics where `WEFT_GUESTS` does not say where guests are.
pub(crate) fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEFT_GUESTS").expect(
        "WEFT_GUESTS is not set: run these tests by `cargo xtask test`, which builds the guests",
    );
    let path = PathBuf::from(folder).join(format!("{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is missing: run these tests by `cargo xtask test`, which builds the guests",
        path.display()
    );
    path
}

/// The bytes of a built guest.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("a guest is readable")
}
