//! One step of the chain: a plugin, or what Millstream does itself.

use crate::plugin::{StageError, StageInput, StageOutput, StageRunner, StageUsage};

use super::builtin::Builtin;

/// A stage that is ready to run.
pub enum Stage {
    /// A sandboxed plugin.
    Plugin(Box<StageRunner>),
    /// One of Millstream's own.
    Builtin(Builtin),
}

impl Stage {
    /// Processes rows and leaves one outcome for each in `out`.
    pub fn run(&mut self, input: &StageInput<'_>, out: &mut StageOutput) -> Result<(), StageError> {
        match self {
            Self::Plugin(runner) => runner.run(input, out),
            Self::Builtin(builtin) => {
                builtin.run(input, out);
                Ok(())
            }
        }
    }

    /// What it has used so far; none where it is no plugin.
    pub fn usage(&self) -> Option<&StageUsage> {
        match self {
            Self::Plugin(runner) => Some(runner.usage()),
            Self::Builtin(_) => None,
        }
    }

    /// Forgets everything that the stage may have kept: what comes next starts as on the first day.
    pub fn end_block(&mut self) {
        match self {
            Self::Plugin(runner) => runner.end_block(),
            Self::Builtin(_) => {}
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plugin(_) => "Plugin",
            Self::Builtin(_) => "Builtin",
        })
    }
}
