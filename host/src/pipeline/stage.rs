//! One step of the chain: a plugin, or what Millstream does itself.

use crate::plugin::{StageError, StageInput, StageOutput, StageRunner, StageUsage};

use super::Joined;
use super::builtin::Builtin;
use crate::window::WindowStage;

/// A stage that is ready to run.
pub enum Stage {
    /// A sandboxed plugin, and the columns of tables that are joined for it.
    Plugin(Box<StageRunner>, Joined),
    /// One of Millstream's own.
    Builtin(Builtin),
    /// One that keeps states.
    Window(Box<WindowStage>),
}

impl Stage {
    /// Processes rows and leaves one outcome for each in `out`; `offsets` has one a row where [`Stage::wants_offsets`].
    pub fn run(&mut self, input: &StageInput<'_>, offsets: &[i64], out: &mut StageOutput) -> Result<(), StageError> {
        match self {
            Self::Plugin(runner, _) => runner.run(input, out),
            Self::Builtin(builtin) => builtin.run(input, out),
            Self::Window(window) => window.run(input, offsets, out),
        }
    }

    /// What it joins, where it does.
    pub(super) fn joined(&mut self) -> Option<&mut Joined> {
        match self {
            Self::Plugin(_, joined) => Some(joined),
            Self::Builtin(_) | Self::Window(_) => None,
        }
    }

    /// A table that it needs and that is not read yet.
    pub fn unready(&self) -> Option<&str> {
        match self {
            Self::Plugin(runner, joined) => runner.unready().or_else(|| joined.unready()),
            Self::Builtin(Builtin::Join(join)) => join.unready(),
            Self::Builtin(_) | Self::Window(_) => None,
        }
    }

    /// True where it looks at the offsets of its rows.
    pub fn wants_offsets(&self) -> bool {
        matches!(self, Self::Window(_))
    }

    /// The states that it keeps, if it does.
    pub fn window(&mut self) -> Option<&mut WindowStage> {
        match self {
            Self::Window(window) => Some(window),
            Self::Plugin(..) | Self::Builtin(_) => None,
        }
    }

    /// The same, to look at.
    pub fn window_ref(&self) -> Option<&WindowStage> {
        match self {
            Self::Window(window) => Some(window),
            Self::Plugin(..) | Self::Builtin(_) => None,
        }
    }

    /// What it has used so far; none where it is no plugin.
    pub fn usage(&self) -> Option<&StageUsage> {
        match self {
            Self::Plugin(runner, _) => Some(runner.usage()),
            Self::Window(window) => window.usage(),
            Self::Builtin(_) => None,
        }
    }

    /// Forgets everything that the stage may have kept: what comes next starts as on the first day.
    pub fn end_block(&mut self) {
        match self {
            Self::Plugin(runner, _) => runner.end_block(),
            Self::Window(window) => window.end_block(),
            Self::Builtin(_) => {}
        }
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plugin(..) => "Plugin",
            Self::Builtin(_) => "Builtin",
            Self::Window(_) => "Window",
        })
    }
}
