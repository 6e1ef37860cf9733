//! Generations: the number in the names of files that keeps jobs apart that write to one folder.

use std::fs;
use std::io;
use std::path::Path;

use weft_core::job::OutputMode;
use weft_protocol::{ManifestOutput, SinkFile};

use super::manifest::Manifest;
use crate::durable::write_durably;
use crate::error::{Error, Result};

/// Name of the file in the staging folder that holds the generation of a job, written before any
/// file gets a name by it.
pub(super) const GENERATION: &str = "generation";
/// Generations that are tried.
const GENERATIONS_MAX: u32 = 1000;

/// Chooses how often the folder was written to before, or the next number by which no name of ours
/// is taken, by a job that died while it published, say. All attempts choose the same.
pub(super) fn choose_generation(
    folder: &Path,
    staging: &Path,
    output: &ManifestOutput,
    previous: Option<&Manifest>,
) -> Result<u32> {
    if output.mode == OutputMode::Error {
        return Ok(0);
    }
    if let Some(chosen) = chosen_generation(staging)? {
        return Ok(chosen);
    }
    let first = next_generation(previous);
    let is_free = |generation: &u32| {
        let mut names = output
            .files
            .iter()
            .map(|file| name_in(&file.name, *generation));
        !names.any(|name| folder.join(name).exists())
    };
    let tried = first..first.saturating_add(GENERATIONS_MAX);
    let chosen = tried.into_iter().find(is_free);
    let chosen = chosen.ok_or_else(|| Error::OutputExists(folder.display().to_string()))?;
    write_durably(&staging.join(GENERATION), chosen.to_string().as_bytes())?;
    Ok(chosen)
}

/// The generation that a job has chosen before, if any.
pub(super) fn chosen_generation(staging: &Path) -> Result<Option<u32>> {
    let path = staging.join(GENERATION);
    match fs::read_to_string(&path) {
        Ok(text) => match text.parse() {
            Ok(generation) => Ok(Some(generation)),
            Err(_) => Err(Error::Encoding(format!(
                "`{}` is no number",
                path.display()
            ))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&path, error)),
    }
}

/// The generation after the one of the manifest that is there.
pub(super) fn next_generation(previous: Option<&Manifest>) -> u32 {
    previous.map_or(0, |previous| previous.generation.saturating_add(1))
}

/// The same files, with the names that they have in a generation.
pub(super) fn named(files: &[SinkFile], generation: u32) -> Vec<SinkFile> {
    let one = |file: &SinkFile| SinkFile {
        name: name_in(&file.name, generation),
        ..file.clone()
    };
    files.iter().map(one).collect()
}

/// The name of a file in a generation.
pub(super) fn name_in(name: &str, generation: u32) -> String {
    match (generation, name.rsplit_once('.')) {
        (0, _) => name.to_owned(),
        (_, Some((stem, extension))) => format!("{stem}-g{generation}.{extension}"),
        (_, None) => format!("{name}-g{generation}"),
    }
}
