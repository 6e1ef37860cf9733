//! `weft deploy` and `weft components`.

use std::io::{Read, Seek};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_client::{Call, Client, Component, Pages, path, read_value};
use weft_core::Digest;

use crate::failure::Failure;
use crate::terminal::text::{bytes, counted};
use crate::terminal::{Output, Side, Table};

/// First bytes of a core module, and of a component: `\0asm`, a version, a layer.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Runs `weft deploy`. Under `--json`, a line with the component for each file.
///
/// Errors: `Problem` where the server refuses one; files before it stay deployed.
pub(crate) async fn deploy(
    client: &Client,
    files: &[impl AsRef<Path>],
    output: &mut Output,
) -> Result<(), Failure> {
    for file in files {
        let file = file.as_ref();
        let (digest, size_bytes) = examine(file)?;
        let call = Call::post_wasm(path(&["components"]), file.to_owned(), size_bytes);
        let answer = client
            .send(&call.header("x-weft-digest", String::from(digest)))
            .await?;
        let component: Component = answer.read()?;
        output.either(answer.text()?, || deployed(&component, answer.is_created()))?;
        note_newer(client, &component, output).await;
    }
    Ok(())
}

/// Says so where job files that name no version go on with another one.
async fn note_newer(client: &Client, component: &Component, output: &mut Output) {
    let Component { name, version, .. } = component;
    let answer = client.send(&Call::get(path(&["components", name]))).await;
    // The component is deployed, whatever becomes of this question.
    let newest = answer.and_then(|answer| answer.read::<Component>());
    if let Ok(Component {
        version: newest, ..
    }) = newest
        && newest != *version
    {
        output.note(&format!(
            "without a version, `{name}` still means {newest}, which is newer; `{name}@{version}/…` means this one"
        ));
    }
}

fn deployed(component: &Component, is_new: bool) -> String {
    let Component {
        name,
        version,
        digest,
        size_bytes,
        functions,
        ..
    } = component;
    let told = if is_new { "" } else { ", as it was before" };
    let mut lines = vec![format!(
        "deployed {name}@{version} ({}, {digest}){told}",
        bytes(*size_bytes)
    )];
    lines.extend(
        functions
            .iter()
            .map(|function| format!("  {} {name}/{}", function.kind, function.name)),
    );
    lines.join("\n")
}

/// The digest and the size of a component's file.
///
/// Errors: `Other` where the file is not a component, with what to do about it.
fn examine(path: &Path) -> Result<(Digest, u64), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::other(format!("cannot read `{}`: {error}", path.display()))
    };
    let mut file = std::fs::File::open(path).map_err(cannot)?;
    let mut magic = Vec::new();
    file.by_ref()
        .take(8)
        .read_to_end(&mut magic)
        .map_err(cannot)?;
    check_magic(path, &magic)?;
    file.rewind().map_err(cannot)?;
    let mut hasher = Sha256::new();
    let size_bytes = std::io::copy(&mut file, &mut hasher).map_err(cannot)?;
    Ok((Digest::from_sha256(&hasher.finalize().into()), size_bytes))
}

fn check_magic(path: &Path, magic: &[u8]) -> Result<(), Failure> {
    let shown = path.display();
    if magic == COMPONENT {
        Ok(())
    } else if magic == MODULE {
        Err(Failure::other(format!(
            "`{shown}` is a core module, not a component; `weft build` makes a component of a project"
        )))
    } else {
        Err(Failure::other(format!("`{shown}` is not a Wasm component")))
    }
}

/// The answer about one component's name: one version, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Versions {
    Many { items: Vec<Component> },
    One(Component),
}

/// Runs `weft components`.
pub(crate) async fn components(
    client: &Client,
    name: Option<&str>,
    output: &mut Output,
) -> Result<(), Failure> {
    let Some(name) = name else {
        return list(client, output).await;
    };
    let segments = match name.split_once('@') {
        Some((name, version)) => vec!["components", name, version],
        None => vec!["components", name],
    };
    let answer = client.send(&Call::get(path(&segments))).await?;
    let components = match answer.read()? {
        Versions::Many { items } => items,
        Versions::One(component) => vec![component],
    };
    let text = || {
        components
            .iter()
            .map(component_text)
            .collect::<Vec<_>>()
            .join("\n\n")
    };
    output.either(answer.text()?, text)
}

async fn list(client: &Client, output: &mut Output) -> Result<(), Failure> {
    let items = Pages::new(client, path(&["components"])).all().await?;
    let components: Vec<Component> = read_value(Value::Array(items.clone()))?;
    output.either(&json!({"items": items}).to_string(), || {
        list_table(&components)
    })
}

fn list_table(components: &[Component]) -> String {
    let mut table = Table::new(&[
        ("component", Side::Left),
        ("size", Side::Right),
        ("functions", Side::Left),
        ("needs", Side::Left),
        ("created", Side::Left),
    ]);
    for component in components {
        let functions: Vec<&str> = component
            .functions
            .iter()
            .map(|function| function.name.as_str())
            .collect();
        table.row([
            format!("{}@{}", component.name, component.version),
            bytes(component.size_bytes),
            functions.join(", "),
            or_dash(needs(component)),
            component.created_at.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

/// Services that a component needs beside its sandbox, by its imports and functions.
fn needs(component: &Component) -> Vec<&'static str> {
    let imports = |name: &str| {
        let mut interfaces = component.imports.iter();
        interfaces.any(|import| import.split('@').next() == Some(name))
    };
    let has_actors = component.functions.iter().any(|one| one.kind == "actor");
    let all = [
        ("state", has_actors || imports("weft:fabric/state")),
        ("actors", imports("weft:fabric/actors")),
        ("spawn", imports("weft:fabric/tasks")),
    ];
    let needed = all.into_iter().filter(|(_, is_needed)| *is_needed);
    needed.map(|(name, _)| name).collect()
}

fn or_dash(words: Vec<&str>) -> String {
    match words.is_empty() {
        true => "-".into(),
        false => words.join(", "),
    }
}

fn component_text(component: &Component) -> String {
    let Component {
        name,
        version,
        digest,
        size_bytes,
        created_at,
        functions,
        imports: _,
    } = component;
    let mut lines = vec![format!(
        "{name}@{version}  {}  {digest}",
        bytes(*size_bytes)
    )];
    lines.extend(created_at.iter().map(|time| {
        format!(
            "created {time}, {}",
            counted(functions.len() as u64, "function")
        )
    }));
    let needed = needs(component);
    if !needed.is_empty() {
        lines.push(format!("needs {}", needed.join(", ")));
    }
    let mut table = Table::new(&[
        ("kind", Side::Left),
        ("function", Side::Left),
        ("", Side::Left),
        ("summary", Side::Left),
    ]);
    for function in functions {
        let note = if function.deterministic {
            ""
        } else {
            "nondeterministic"
        };
        table.row([
            function.kind.clone(),
            format!("{name}/{}", function.name),
            note.into(),
            function.summary.clone(),
        ]);
    }
    lines.push(table.render());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(bytes: &[u8]) -> Result<(Digest, u64), Failure> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        examine(file.path())
    }

    #[test]
    fn components_are_told_from_modules() {
        let (digest, size_bytes) = examined(&COMPONENT).expect("a component");
        assert_eq!(size_bytes, 8);
        assert_eq!(
            digest.as_str(),
            "sha256:24eaf3439a60c96764c4f2c92a0a81b52bd4fe5d5b91f090184a0f6486b1bf29"
        );
        let failure = examined(&MODULE).expect_err("no component");
        assert!(failure.to_string().contains("weft build"), "{failure}");
        let failure = examined(b"\0as").expect_err("nothing");
        assert!(
            failure.to_string().contains("not a Wasm component"),
            "{failure}"
        );
    }

    #[test]
    fn components_say_what_they_need() {
        let needed = |kind: &str, imports: &[&str]| {
            let component = json!({ "functions": [{ "kind": kind }], "imports": imports });
            let component: Component = serde_json::from_value(component).expect("a component");
            or_dash(needs(&component))
        };
        assert_eq!(needed("task", &["weft:fabric/log@0.1.0"]), "-");
        assert_eq!(needed("actor", &["weft:fabric/log@0.1.0"]), "state");
        let all = ["tasks", "actors", "state"].map(|name| format!("weft:fabric/{name}@0.1.0"));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(needed("task", &all), "state, actors, spawn");
    }

    #[test]
    fn a_component_for_people() {
        let component = json!({
            "name": "weblog", "version": "0.1.0", "digest": "sha256:ab", "size_bytes": 2048, "created_at": "2026-11-20T12:00:00Z",
            "functions": [{"name": "parse", "kind": "map", "summary": "Parses.", "deterministic": true},
                          {"name": "now", "kind": "task", "summary": "", "deterministic": false}],
        });
        let component: Component = serde_json::from_value(component).expect("a component");
        let expected = "\
weblog@0.1.0  2.0 KiB  sha256:ab
created 2026-11-20T12:00:00Z, 2 functions
kind  function                        summary
map   weblog/parse                    Parses.
task  weblog/now    nondeterministic";
        assert_eq!(component_text(&component), expected);
        assert_eq!(
            deployed(&component, false),
            "deployed weblog@0.1.0 (2.0 KiB, sha256:ab), as it was before\n  map weblog/parse\n  task weblog/now"
        );
    }
}
