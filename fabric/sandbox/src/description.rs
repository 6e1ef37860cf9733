//! Rules for what components say of themselves.

use weft_core::Description;

/// Functions of a component, of all kinds.
const FUNCTIONS_MAX: usize = 1000;
/// Bytes of a function's summary.
const TEXT_BYTES_MAX: usize = 4096;

/// Checks what a component says of itself. The error quotes it with care: it may say anything.
pub(crate) fn check_description(description: &Description) -> Result<(), String> {
    let Description {
        name,
        version,
        functions,
    } = description;
    if !weft_core::is_component_name(name) {
        return Err(format!(
            "`describe` gives the name `{}`; a name is [a-z][a-z0-9-]{{0,62}}",
            name.escape_debug()
                .to_string()
                .chars()
                .take(80)
                .collect::<String>()
        ));
    }
    if !weft_core::is_semver(version) {
        return Err(format!(
            "`describe` gives the version `{}`, which is not semver",
            version
                .escape_debug()
                .to_string()
                .chars()
                .take(80)
                .collect::<String>()
        ));
    }
    if functions.is_empty() || functions.len() > FUNCTIONS_MAX {
        return Err(format!(
            "`describe` lists {} functions; 1 to {FUNCTIONS_MAX} are allowed",
            functions.len()
        ));
    }
    for (position, function) in functions.iter().enumerate() {
        if !weft_core::is_component_name(&function.name) {
            return Err(format!(
                "`describe` lists a function whose name is not [a-z][a-z0-9-]{{0,62}}, at position {position}"
            ));
        }
        if functions[..position]
            .iter()
            .any(|other| other.name == function.name)
        {
            return Err(format!("`describe` lists `{}` twice", function.name));
        }
        if function.summary.len() > TEXT_BYTES_MAX {
            return Err(format!(
                "the summary of `{}` is longer than {TEXT_BYTES_MAX} bytes",
                function.name
            ));
        }
    }
    Ok(())
}
