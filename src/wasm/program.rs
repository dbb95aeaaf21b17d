//! A compiled plugin: what it exports, what it needs, and whether this host can give it that.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use wasmtime::{ExternType, InstancePre, Linker, Module};

use super::calls;
use super::engine::engine;
use super::host::Host;

/// Versions of the ABI that are spoken, by the export that marks each.
const VERSIONS: &[(&str, &str)] =
    &[("proxy_abi_version_0_2_1", "0.2.1"), ("proxy_abi_version_0_2_0", "0.2.0"), ("proxy_abi_version_0_1_0", "0.1.0")];
/// Names of the modules that host functions are imported from.
const ENVIRONMENTS: &[&str] = &["env", "wasi_snapshot_preview1", "wasi_unstable"];

/// A plugin that can be instantiated.
pub struct Program {
    pub prepared: InstancePre<Host>,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    pub inspected: Inspected,
}

/// What a file says of itself.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// `0.2.1`; `None` when it names none that is known.
    pub version: Option<&'static str>,
    /// `env.proxy_log`, in order of the alphabet.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Why it cannot be used, in words; empty when it can.
    pub problems: Vec<String>,
}

impl Program {
    /// Compiles a file: some tens of milliseconds to seconds.
    ///
    /// # Errors
    /// Why it cannot be used, in words.
    pub fn new(bytes: &[u8]) -> Result<Self, Vec<String>> {
        let (module, inspected) = look(bytes).map_err(|problem| vec![problem])?;
        if !inspected.problems.is_empty() {
            return Err(inspected.problems);
        }
        let linker = linker().map_err(|error| vec![format!("{error:#}")])?;
        let prepared = linker.instantiate_pre(&module).map_err(|error| vec![format!("{error:#}")])?;
        Ok(Self { prepared, digest: Sha256::digest(bytes).into(), inspected })
    }
}

/// What a file is and needs.
///
/// # Errors
/// When it is no WebAssembly that can be compiled.
pub fn inspect(bytes: &[u8]) -> Result<Inspected, String> {
    look(bytes).map(|(_, inspected)| inspected)
}

fn look(bytes: &[u8]) -> Result<(Module, Inspected), String> {
    if !bytes.starts_with(b"\0asm") {
        return Err("it is no WebAssembly: it does not begin with `\\0asm`".to_owned());
    }
    let engine = engine()?;
    let module = Module::from_binary(engine, bytes).map_err(|error| format!("{error:#}"))?;
    let exports: BTreeSet<String> = module.exports().map(|export| export.name().to_owned()).collect();
    let imports: BTreeSet<String> =
        module.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect();
    let version = VERSIONS.iter().find(|(marker, _)| exports.contains(*marker)).map(|(_, version)| *version);
    let mut problems = Vec::new();
    match version {
        Some("0.1.0") => problems.push("it speaks ABI 0.1.0; 0.2.0 and 0.2.1 are spoken here".to_owned()),
        Some(_) => {}
        None => problems.push("it exports no `proxy_abi_version_…`: it is no proxy-wasm plugin".to_owned()),
    }
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        problems.push("it exports no memory called `memory`".to_owned());
    }
    if !exports.contains("proxy_on_memory_allocate") && !exports.contains("malloc") {
        problems.push("it exports neither `proxy_on_memory_allocate` nor `malloc`".to_owned());
    }
    let linker = linker().map_err(|error| format!("{error:#}"))?;
    problems.extend(module.imports().filter_map(|import| missing(&linker, &import)));
    Ok((
        module,
        Inspected { version, imports: imports.into_iter().collect(), exports: exports.into_iter().collect(), problems },
    ))
}

/// A function that a plugin may import.
#[derive(Clone, Debug)]
pub struct Function {
    pub module: String,
    pub name: String,
    /// Of each argument whether it has 64 bit; the others have 32.
    pub wide: Vec<bool>,
    pub returns: bool,
}

/// Every function that a plugin may import, in order of the alphabet.
///
/// # Errors
/// What the engine says when this machine cannot run it.
pub fn functions() -> Result<Vec<Function>, String> {
    let linker = linker().map_err(|error| format!("{error:#}"))?;
    let all = calls::all(&linker).into_iter().map(|(module, name, kind)| Function {
        module,
        name,
        wide: kind.params().map(|param| param.is_i64()).collect(),
        returns: kind.results().len() > 0,
    });
    let mut all: Vec<Function> = all.collect();
    all.sort_unstable_by(|one, other| (&one.module, &one.name).cmp(&(&other.module, &other.name)));
    Ok(all)
}

/// What is wrong with an import, if something is.
fn missing(linker: &Linker<Host>, import: &wasmtime::ImportType<'_>) -> Option<String> {
    let (module, name) = (import.module(), import.name());
    if !ENVIRONMENTS.contains(&module) {
        return Some(format!("it imports `{name}` from `{module}`, which is no module of this host"));
    }
    let ExternType::Func(wanted) = import.ty() else {
        return Some(format!("it imports `{name}`, which is no function"));
    };
    let Some(given) = calls::signature(linker, module, name) else {
        return Some(format!("it imports `{module}.{name}`, which this host does not have"));
    };
    (!given.matches(&wanted))
        .then(|| format!("it imports `{module}.{name}` with other arguments than the specification says"))
}

/// Every host function.
fn linker() -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine().map_err(wasmtime::Error::msg)?);
    calls::link(&mut linker)?;
    Ok(linker)
}
