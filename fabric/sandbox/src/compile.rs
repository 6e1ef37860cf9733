//! From uploaded bytes to an artefact. Runs in a process of its own, under limits: compilers can be made to eat time and memory.

use std::hash::{DefaultHasher, Hash, Hasher};

use wasmtime::component::{Component as Wasm, types::ComponentItem};

use crate::component::{is_weft, linker, wants_wasi};
use crate::engine::{Engine, Role};
use crate::fault::bounded;

/// Interfaces that guests may import besides `wasi:*@0.2`.
const OFFERED: [&str; 7] = [
    "weft:fabric/data@0.1.0",
    "weft:fabric/output@0.1.0",
    "weft:fabric/log@0.1.0",
    "weft:fabric/meter@0.1.0",
    "weft:fabric/state@0.1.0",
    "weft:fabric/actors@0.1.0",
    "weft:fabric/tasks@0.1.0",
];
const WASI_OFFERED: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];
const IMPORTS_MAX: usize = 256;

/// A compiled component.
#[derive(Debug)]
pub struct Compiled {
    /// Native code for this engine, to be loaded from a file that nobody else can write.
    pub artefact: Vec<u8>,
    /// Interfaces that the component imports.
    pub imports: Vec<String>,
}

/// Why some bytes are not a component that Weft can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Not Wasm at all.
    #[error("the upload is not WebAssembly: it starts with {found}")]
    NotWasm {
        /// The first bytes.
        found: String,
    },
    /// A core module.
    #[error("the upload is a core module, not a component; `weft build` makes a component of it")]
    CoreModule,
    /// Native code that somebody else compiled.
    #[error("the upload is a precompiled artefact; upload the component itself")]
    Precompiled,
    /// The Wasm is broken, or uses what the engine does not allow.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// Imports that nobody offers.
    #[error("the component imports what Weft does not offer: `{}`; it offers `weft:fabric/{{data,output,log,meter,state,actors,tasks}}@0.1.0` and WASI 0.2 without files and network", .0.join("`, `"))]
    UnknownImports(Vec<String>),
    /// It lacks `functions`.
    #[error(
        "the component does not export `weft:fabric/functions@0.1.0`; build it with a Weft SDK"
    )]
    NoFunctions,
    /// The engine did not start.
    #[error("the compiler failed: {0}")]
    Host(String),
}

/// Names the code that this process's engine makes and takes: artefacts are stored under it.
///
/// The same for every role, so that an executor finds what a compiler made.
pub fn compatibility() -> String {
    let mut hasher = DefaultHasher::new();
    match Engine::new(Role::Compiler) {
        Ok(engine) => engine
            .wasmtime
            .precompile_compatibility_hash()
            .hash(&mut hasher),
        Err(error) => error.to_string().hash(&mut hasher),
    }
    format!("{:016x}", hasher.finish())
}

/// Validates and compiles a component. Errors name what is wrong with the bytes; only `Host` is ours.
pub fn compile(bytes: &[u8]) -> Result<Compiled, CompileError> {
    check_header(bytes)?;
    let engine =
        Engine::new(Role::Compiler).map_err(|fault| CompileError::Host(fault.to_string()))?;
    let invalid = |error: wasmtime::Error| CompileError::Invalid(bounded(format!("{error:#}")));
    let component = Wasm::new(&engine.wasmtime, bytes).map_err(invalid)?;
    let imports = check_imports(&engine, &component)?;
    let linker = linker(&engine, wants_wasi(&imports)).map_err(invalid)?;
    linker.instantiate_pre(&component).map_err(invalid)?;
    let artefact = component.serialize().map_err(invalid)?;
    Ok(Compiled { artefact, imports })
}

fn check_header(bytes: &[u8]) -> Result<(), CompileError> {
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(CompileError::Precompiled);
    }
    match (bytes.get(..4), bytes.get(4..8)) {
        (Some(b"\0asm"), Some([0x0d, 0, 1, 0])) => Ok(()),
        (Some(b"\0asm"), Some([1, 0, 0, 0])) => Err(CompileError::CoreModule),
        _ if bytes.is_empty() => Err(CompileError::NotWasm {
            found: "nothing".into(),
        }),
        _ => Err(CompileError::NotWasm {
            found: format!("`{}`", bytes[..bytes.len().min(8)].escape_ascii()),
        }),
    }
}

fn check_imports(engine: &Engine, component: &Wasm) -> Result<Vec<String>, CompileError> {
    let component_type = component.component_type();
    if !component_type
        .exports(&engine.wasmtime)
        .any(|(name, item)| {
            is_weft(name, "functions") && matches!(item.ty, ComponentItem::ComponentInstance(_))
        })
    {
        return Err(CompileError::NoFunctions);
    }
    let imports: Vec<String> = component_type
        .imports(&engine.wasmtime)
        .map(|(name, _)| name.to_owned())
        .take(IMPORTS_MAX)
        .collect();
    let offered = |name: &String| {
        OFFERED.contains(&name.as_str())
            || (name.contains("@0.2.") && WASI_OFFERED.iter().any(|wasi| name.starts_with(wasi)))
    };
    let unknown: Vec<String> = imports
        .iter()
        .filter(|name| !offered(name))
        .take(20)
        .map(|name| bounded(name.escape_debug().to_string()))
        .collect();
    if unknown.is_empty() {
        Ok(imports)
    } else {
        Err(CompileError::UnknownImports(unknown))
    }
}
