//! What happens when no records come.

use super::plan::Role;
use super::spec::{Ends, Kind, floor};
use super::stage::WindowStage;
use crate::plugin::{Emitted, StageError};

impl WindowStage {
    /// No record has come for `quiet_ms` of the wall clock, at the partition's end, whose next offset is `position`. Closes
    /// windows where the configuration has that, and says so to whom it concerns; rows go to `to`. True where anything changed.
    pub fn quiet(&mut self, quiet_ms: u64, position: i64, to: &mut Emitted) -> Result<bool, StageError> {
        let mut changed = false;
        if self.plan.spec.close_after_ms.is_some_and(|after_ms| quiet_ms >= after_ms) {
            changed |= self.close_all(position, to)?;
        }
        if self.plan.role == Role::Partial && quiet_ms >= self.plan.spec.idle_ms && !self.keyed.clock.idle {
            self.keyed.clock.idle = true;
            changed = true;
        }
        Ok(changed)
    }

    /// Closes every window that has a record; later ones for these are late.
    pub fn close_all(&mut self, position: i64, to: &mut Emitted) -> Result<bool, StageError> {
        let Some(latest_us) = self.keyed.clock.latest_us else { return Ok(false) };
        let end_us = match self.plan.spec.kind {
            Kind::Session { gap_us } => latest_us + gap_us,
            Kind::Duplicates { within_us } => latest_us + within_us,
            Kind::Pairs { within_us } => super::pairs::over_us(latest_us, within_us),
            Kind::Fixed { size_us, every_us, part_us, offset_us } => {
                Ends::of((size_us, every_us), offset_us, floor(latest_us, part_us, offset_us)).last_us
            }
        };
        let before_us = self.keyed.clock.watermark_us;
        if !self.keyed.clock.raise(end_us) {
            return Ok(false);
        }
        self.moved(before_us)?;
        self.sound()?;
        self.emit(0, position.wrapping_mul(2).wrapping_add(1), to)?;
        Ok(true)
    }
}
