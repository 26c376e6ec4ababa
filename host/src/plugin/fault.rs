//! How a call failed: its kind, and what a person is told.

use wasmtime::{FrameInfo, Trap, WasmBacktrace};

use super::{FaultKind, PluginError, Rejection};

/// Functions of a trap's stack that are shown, bytes of each one's name, and bytes of a fault's detail.
const FRAMES: usize = 4;
const FRAME_BYTES: usize = 120;
const DETAIL_BYTES: usize = 1_000;

/// How a call failed. The instance it was made to is not used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn bad_output(detail: String) -> Self {
        Self { kind: FaultKind::BadOutput, detail }
    }

    /// A call that returned, but later than it may: only a suspicion.
    pub(super) fn late() -> Self {
        Self { kind: FaultKind::Deadline, detail: String::new() }
    }

    /// The same, of a plugin that did not even start.
    pub(super) fn at_start(self, name: &str) -> PluginError {
        PluginError::Fault { name: name.to_owned(), kind: self.kind, detail: self.detail }
    }

    /// What came of a call to an instance that was denied memory during it, or not.
    pub(super) fn new(error: &wasmtime::Error, memory_denied: bool) -> Self {
        let kind = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt | Trap::OutOfFuel) => FaultKind::Deadline,
            Some(Trap::StackOverflow) => FaultKind::Stack,
            Some(_) if memory_denied => FaultKind::Memory,
            Some(_) => FaultKind::Trap,
            None => FaultKind::BadOutput,
        };
        Self { kind, detail: String::new() }
    }

    /// Tells a person what happened; `last_words` is the last error that the plugin logged. It takes far longer than to
    /// find a record out, and nobody reads it of a part that is split.
    pub(super) fn explain(&mut self, error: &wasmtime::Error, last_words: Option<&str>) {
        let mut detail = error.root_cause().to_string();
        if let Some(words) = last_words {
            detail.push_str("; it said: ");
            detail.push_str(words);
        }
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            describe_stack(backtrace.frames(), &mut detail);
        }
        cut(&mut detail, DETAIL_BYTES);
        self.detail = detail;
    }
}

/// Appends the innermost functions of the stack, without those that only carry a panic out.
fn describe_stack(frames: &[FrameInfo], detail: &mut String) {
    let names: Vec<String> = frames.iter().map(function_name).collect();
    let own = names.iter().position(|name| !carries_panic(name)).unwrap_or(0);
    for (i, name) in names[own..].iter().take(FRAMES).enumerate() {
        detail.push_str(if i == 0 { "; in " } else { " < " });
        detail.push_str(name);
    }
}

fn function_name(frame: &FrameInfo) -> String {
    let mut name = match frame.func_name() {
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    };
    cut(&mut name, FRAME_BYTES);
    name
}

fn carries_panic(name: &str) -> bool {
    ["std::", "core::", "alloc::", "__rustc::", "<std::", "<core::", "<alloc::"].iter().any(|p| name.starts_with(p))
}

/// Cuts `text` to at most `bytes`, between two characters.
pub(super) fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// Why a call's results are not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The plugin failed.
    Fault(Fault),
    /// A state that it returned has so many bytes, above so many.
    StateTooLarge(usize, u64),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Failure {
    /// The same, of results that break the contract.
    pub(super) fn bad_output(detail: String) -> Self {
        Self::Fault(Fault::bad_output(detail))
    }

    /// The way in which the plugin failed, if it did.
    pub(super) fn fault(&self) -> Option<FaultKind> {
        match self {
            Self::Fault(fault) => Some(fault.kind),
            Self::StateTooLarge(..) => None,
        }
    }

    /// What is said of the row that did it.
    pub(super) fn rejection(self, row: usize) -> Rejection {
        match self {
            Self::Fault(fault) => {
                Rejection { row, code: fault.kind.code().to_owned(), detail: fault.detail, fault: Some(fault.kind) }
            }
            Self::StateTooLarge(bytes, most) => Rejection {
                row,
                code: "state_too_large".to_owned(),
                detail: format!("the state would have {bytes} bytes, and `state_bytes` allows {most}"),
                fault: None,
            },
        }
    }
}
