//! Where the data folder is, and the token that `weft up` leaves there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

/// Name of the token's file in the data folder.
const TOKEN_FILE: &str = "token";

/// The data folder: the one given, else the user's own.
///
/// Errors: `Usage` where none is given and there is no home folder.
pub(crate) fn data_dir(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let variable = |name| std::env::var_os(name);
    default_data_dir(variable("XDG_DATA_HOME"), variable("HOME")).ok_or_else(|| {
        Failure::Usage("there is no home folder to keep data in; give `--data DIR`".into())
    })
}

/// `$XDG_DATA_HOME/weft`, or `~/.local/share/weft`. As the XDG specification asks, a relative path counts as none.
fn default_data_dir(xdg_data_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let shared = xdg_data_home.and_then(absolute);
    let base = shared.or_else(|| Some(home.and_then(absolute)?.join(".local").join("share")))?;
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
        let found = default_data_dir(xdg.map(Into::into), home.map(Into::into));
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
