//! The data folder, the token that `weft up` leaves there, and the cache folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Name of the token's file in the data folder.
const TOKEN_FILE: &str = "token";

/// The data folder: the one given, else the user's own.
///
/// Errors: `Usage` where none is given and there is no home folder.
pub(crate) fn data_dir(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    user_dir("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        Failure::Usage("there is no home folder to keep data in; give `--data DIR`".into())
    })
}

/// The folder of what can be made again: `$XDG_CACHE_HOME/weft`, or `~/.cache/weft`.
///
/// Errors: `Other` where there is no home folder.
pub(crate) fn cache_dir() -> Result<PathBuf, Failure> {
    user_dir("XDG_CACHE_HOME", ".cache")
        .ok_or_else(|| Failure::other("there is no home folder to keep tools in; set `HOME`"))
}

fn user_dir(variable: &str, in_home: &str) -> Option<PathBuf> {
    xdg_dir(
        std::env::var_os(variable),
        std::env::var_os("HOME"),
        in_home,
    )
}

/// `weft` in the folder that the variable names, or in that of the home folder. As the XDG
/// specification asks, a relative path counts as none.
fn xdg_dir(xdg: Option<OsString>, home: Option<OsString>, in_home: &str) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let base = xdg.and_then(absolute);
    let base = base.or_else(|| Some(home.and_then(absolute)?.join(in_home)))?;
    Some(base.join("weft"))
}

/// The file that `weft up` writes the token to.
pub(crate) fn default_token_path(data: Option<&Path>) -> Result<PathBuf, Failure> {
    Ok(data_dir(data)?.join(TOKEN_FILE))
}

/// The token in the file at `path`, if there is one.
///
/// Errors: `Other` where the file is there and cannot be read.
pub(crate) fn read_token(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(token) => Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::other(format!(
            "cannot read the token in `{}`: {error}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(xdg: Option<&str>, home: Option<&str>, expected: Option<&str>) {
        let found = xdg_dir(xdg.map(Into::into), home.map(Into::into), ".local/share");
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn the_data_folder_follows_xdg() {
        check(Some("/x"), Some("/home/a"), Some("/x/weft"));
        check(None, Some("/home/a"), Some("/home/a/.local/share/weft"));
        check(
            Some("relative"),
            Some("/home/a"),
            Some("/home/a/.local/share/weft"),
        );
        check(None, None, None);
    }

    #[test]
    fn tokens_are_trimmed_and_may_be_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = default_token_path(Some(folder.path())).expect("given");
        assert_eq!(read_token(&path).expect("no file is fine"), None);
        std::fs::write(&path, "secret\n").expect("written");
        assert_eq!(read_token(&path).expect("readable"), Some("secret".into()));
    }
}
