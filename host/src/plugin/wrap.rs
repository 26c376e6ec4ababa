//! From what a compiler makes to a component, and what a component may import and must export.

use wasmtime::component::Component;

use super::PluginError;

/// The interfaces that a plugin may import, and the one without functions that the contract's types live in.
pub(super) const HOST: &str = "millstream:plugin/host@0.1.0";
pub(super) const TABLES: &str = "millstream:plugin/tables@0.1.0";
const TYPES: &str = "millstream:plugin/types@0.1.0";

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Component,
    Module,
}

fn kind(bytes: &[u8]) -> Result<Kind, &'static str> {
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Kind::Module),
        [0, b'a', b's', b'm', _, 0, 1, 0, ..] => Ok(Kind::Component),
        [0x7f, b'E', b'L', b'F', ..] => Err("it is native code, which is never loaded from a file; give the component"),
        _ => Err("it is no WebAssembly file"),
    }
}

/// Makes a component of a core module that carries its component type, without an adapter; a component stays as it is.
pub fn wrap(bytes: &[u8], name: &str) -> Result<Vec<u8>, PluginError> {
    let not_a_plugin = |reason: String| PluginError::NotAPlugin { name: name.to_owned(), reason };
    match kind(bytes).map_err(|reason| not_a_plugin(reason.to_owned()))? {
        Kind::Component => Ok(bytes.to_vec()),
        Kind::Module => {
            if let Some(import) = foreign_import(bytes) {
                return Err(PluginError::Import { name: name.to_owned(), import });
            }
            // The encoder panics on some modules that are cut off or bent, and these may come from anybody.
            let encoded = std::panic::catch_unwind(|| {
                let encoder = wit_component::ComponentEncoder::default().validate(true).module(bytes);
                encoder.and_then(|mut encoder| encoder.encode()).map_err(|error| format!("{error:#}"))
            });
            encoded
                .unwrap_or_else(|_| Err("it is cut off, or its sections are wrong".to_owned()))
                .map_err(|error| not_a_plugin(format!("the module does not become a component: {error}")))
        }
    }
}

/// The first import of a core module that is none of ours. A file that can't be read is left to the encoder.
fn foreign_import(module: &[u8]) -> Option<String> {
    let mut at = Reader { bytes: module.get(8..)? };
    while let Some(&id) = at.bytes.first() {
        at.take(1)?;
        let length = at.number()? as usize;
        let section = at.take(length)?;
        if id == 2 {
            return Reader { bytes: section }.foreign_import();
        }
    }
    None
}

/// As much of the binary format as the import section needs.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(head)
    }

    fn number(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// Looks at functions only up to the first foreign one, because an import of another kind is foreign in itself.
    fn foreign_import(&mut self) -> Option<String> {
        for _ in 0..self.number()? {
            let (module, field) = (self.text()?, self.text()?);
            let is_function = self.take(1)?[0] == 0;
            if !is_function || !module.starts_with("millstream:plugin/") {
                return Some(format!("{module}#{field}"));
            }
            self.number()?;
        }
        None
    }
}

/// Refuses a component that imports anything but our interfaces.
pub(super) fn check_imports(component: &Component, name: &str) -> Result<(), PluginError> {
    for (import, _) in component.component_type().imports(component.engine()) {
        if ![HOST, TABLES, TYPES].contains(&import) {
            return Err(PluginError::Import { name: name.to_owned(), import: import.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_wasm_is_refused_by_its_first_bytes() {
        for bytes in [&b""[..], b"\x7fELF\x02\x01", b"(module)", b"\0asm"] {
            assert!(matches!(wrap(bytes, "p"), Err(PluginError::NotAPlugin { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn a_foreign_import_of_a_core_module_is_named() {
        let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec();
        module.extend(b"\x02\x0f\x01\x04wasi\x06random\0\0");
        match wrap(&module, "p") {
            Err(PluginError::Import { import, .. }) => assert_eq!(import, "wasi#random"),
            other => panic!("{other:?}"),
        }
    }
}
