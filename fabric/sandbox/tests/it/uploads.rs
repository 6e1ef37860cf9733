//! What is taken for a component, and what is not.

use weft_sandbox::{CompileError, Component, compatibility, compile};

use crate::support::{bytes, engine};

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("it is WebAssembly")
}

/// A component with one import and the functions that it needs.
fn importing(import: &str) -> Vec<u8> {
    parse(&format!(
        r#"(component
            {import}
            (core module $module (func (export "f")))
            (core instance $instance (instantiate $module))
            (func $f (canon lift (core func $instance "f")))
            (instance $functions (export "describe" (func $f)) (export "bind" (func $f)))
            (export "weft:fabric/functions@0.1.0" (instance $functions)))"#
    ))
}

#[track_caller]
fn check(bytes: &[u8], part: &str) -> CompileError {
    let error = compile(bytes).expect_err("it is refused");
    let text = error.to_string();
    assert!(text.contains(part), "`{text}` lacks `{part}`");
    assert!(text.len() < 64 << 10, "{} bytes", text.len());
    error
}

#[test]
fn what_is_no_wasm_is_named() {
    check(b"", "nothing");
    check(b"PK\x03\x04 zipped", r"`PK\x03\x04 zip`");
    check(b"\0asm", "not WebAssembly");
    check(b"\0asm\x0d\0\x01\0\xff\xff", "not valid");
}

#[test]
fn a_core_module_needs_weft_build() {
    let error = check(&parse("(module)"), "`weft build`");
    assert_eq!(error, CompileError::CoreModule);
}

#[test]
fn native_code_is_never_taken() {
    let artefact = compile(&bytes("hello")).expect("it compiles").artefact;
    let error = check(&artefact, "precompiled");
    assert_eq!(error, CompileError::Precompiled);
}

#[test]
fn a_damaged_component_is_not_valid() {
    let whole = bytes("hello");
    let cut = check(&whole[..whole.len() / 2], "not valid");
    assert!(matches!(cut, CompileError::Invalid(_)), "{cut:?}");
}

#[test]
fn a_component_without_functions_is_refused() {
    let error = check(&parse("(component)"), "functions@0.1.0");
    assert_eq!(error, CompileError::NoFunctions);
}

#[test]
fn unknown_imports_are_named() {
    for (import, name) in [
        (
            r#"(import "acme:tools/hammer@1.0.0" (instance (export "hit" (func))))"#,
            "acme:tools/hammer@1.0.0",
        ),
        (
            r#"(import "weft:fabric/secrets@0.1.0" (instance))"#,
            "weft:fabric/secrets@0.1.0",
        ),
        (
            r#"(import "weft:fabric/state@9.0.0" (instance))"#,
            "weft:fabric/state@9.0.0",
        ),
        (
            r#"(import "weft:fabric/log@9.0.0" (instance))"#,
            "weft:fabric/log@9.0.0",
        ),
        (
            r#"(import "wasi:http/outgoing-handler@0.2.0" (instance))"#,
            "wasi:http/outgoing-handler@0.2.0",
        ),
        (r#"(import "system" (func))"#, "system"),
    ] {
        let error = check(&importing(import), name);
        assert_eq!(error, CompileError::UnknownImports(vec![name.to_owned()]));
    }
}

#[test]
fn an_import_of_another_type_is_not_valid() {
    let import =
        r#"(import "weft:fabric/log@0.1.0" (instance (export "write" (func (param "n" u64)))))"#;
    let error = check(&importing(import), "write");
    assert!(matches!(error, CompileError::Invalid(_)), "{error:?}");
}

#[test]
fn features_that_are_off_are_refused() {
    let threads = parse(
        r#"(component (core module (memory 1 1 shared)) (instance $functions) (export "weft:fabric/functions@0.1.0" (instance $functions)))"#,
    );
    check(&threads, "not valid");
}

#[test]
fn what_no_executor_could_load_is_refused() {
    for (body, part) in [
        ("(memory 0)".repeat(17), "memories"),
        ("(memory 0)".repeat(300), "memories"),
        ("(table 0 funcref)".repeat(65), "tables"),
        ("(table 200000 funcref)".to_owned(), "table"),
    ] {
        let text = format!(
            r#"(component (core module $module {body}) (core instance (instantiate $module)) (instance $functions) (export "weft:fabric/functions@0.1.0" (instance $functions)))"#
        );
        check(&parse(&text), part);
    }
}

#[test]
fn components_say_what_they_import() {
    let hello = compile(&bytes("hello")).expect("it compiles");
    assert!(
        hello
            .imports
            .iter()
            .all(|name| name.starts_with("weft:fabric/"))
    );
    assert!(hello.imports.contains(&"weft:fabric/data@0.1.0".to_owned()));
    // Functions that do not ask for it are not called on a fiber.
    for waits in ["state", "actors", "tasks"] {
        let import = format!("weft:fabric/{waits}@0.1.0");
        assert!(!hello.imports.contains(&import), "{import}");
    }
    let keeper = compile(&bytes("keeper")).expect("it compiles");
    assert!(
        keeper
            .imports
            .contains(&"weft:fabric/state@0.1.0".to_owned())
    );
}

#[test]
fn damaged_artefacts_do_not_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("artefact");
    let missing = Component::load(engine(), &path)
        .err()
        .expect("it is missing");
    assert!(
        missing.to_string().contains("loading artefact"),
        "{missing}"
    );
    for bytes in [&b""[..], b"not an artefact", &bytes("hello")] {
        std::fs::write(&path, bytes).expect("it is written");
        assert!(Component::load(engine(), &path).is_err());
    }
}

#[test]
fn every_engine_of_this_process_makes_the_same_code() {
    assert_eq!(compatibility(), compatibility());
    assert_eq!(compatibility().len(), 16);
}
