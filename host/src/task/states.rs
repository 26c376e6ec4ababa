//! The states of a task's stages: restored before the first record, told at each commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Output, Task, TaskError};
use crate::pipeline::{DeadRow, Stage};
use crate::plugin::Emitted;
use crate::record::{Batch, Lanes, Place, Rows};
use crate::window::{LoadError, Meta, Original, Reading, StateRows, TaskPlace, WindowStage};

/// What is committed with an offset for one stage's states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateNote {
    /// The states are in a changelog, from this offset on.
    Base(i64),
    /// There are none but this.
    Meta(Meta),
}

impl Task {
    /// The stages that keep states.
    pub(super) fn windows(&mut self) -> impl Iterator<Item = &mut WindowStage> {
        self.stages.iter_mut().filter_map(Stage::window)
    }

    /// True where a stage keeps states.
    pub fn is_stateful(&self) -> bool {
        self.stages.iter().any(|stage| stage.window_ref().is_some())
    }

    /// A stage's states, by its index.
    pub fn window(&mut self, stage: usize) -> Option<&mut WindowStage> {
        self.stages.get_mut(stage)?.window()
    }

    /// The stages that have a changelog, by index.
    pub fn changelogs(&self) -> Vec<usize> {
        let has = |stage: &Stage| stage.window_ref().is_some_and(WindowStage::has_changelog);
        (0..self.stages.len()).filter(|&stage| has(&self.stages[stage])).collect()
    }

    /// What each stage that keeps states holds, by index.
    pub fn state_readings(&self) -> impl Iterator<Item = (usize, Reading)> {
        let reading = |(index, stage): (usize, &Stage)| Some((index, stage.window_ref()?.reading()));
        self.stages.iter().enumerate().filter_map(reading)
    }

    /// Takes over what a note says of stages without a changelog.
    pub fn take_notes(&mut self, notes: &BTreeMap<String, StateNote>) -> Result<(), TaskError> {
        for index in 0..self.stages.len() {
            let name = &self.pipeline.stages[index].name;
            let (Some(StateNote::Meta(meta)), Some(window)) = (notes.get(name), self.stages[index].window()) else {
                continue;
            };
            let taken = window.take_meta(meta, self.position);
            taken.map_err(|why| self.not_taken(index, why))?;
        }
        Ok(())
    }

    /// What follows where a stage's states can't be taken over.
    pub fn not_taken(&self, stage: usize, why: LoadError) -> TaskError {
        let stage = self.pipeline.stages.get(stage).map_or_else(String::new, |spec| spec.name.clone());
        TaskError::States { topic: self.topic.clone(), partition: self.partition, stage, why }
    }

    /// What is to be committed with the offset, for each stage that keeps states.
    pub fn state_notes(&self) -> BTreeMap<String, StateNote> {
        let note = |(index, stage): (usize, &Stage)| {
            let window = stage.window_ref()?;
            let note = match window.has_changelog() {
                true => StateNote::Base(window.base()),
                false => StateNote::Meta(window.meta(self.position)),
            };
            Some((self.pipeline.stages[index].name.clone(), note))
        };
        self.stages.iter().enumerate().filter_map(note).collect()
    }

    /// True where a commit has something to tell.
    pub fn is_moved(&self) -> bool {
        let changed = || self.stages.iter().filter_map(Stage::window_ref).any(WindowStage::is_changed);
        self.position != self.committed || changed()
    }

    /// About how much the stages have to say at a commit, in bytes.
    pub fn changed_bytes(&self) -> usize {
        self.stages.iter().filter_map(Stage::window_ref).map(WindowStage::changed_bytes).sum()
    }

    /// What each stage has to say at this commit, by the stage's index.
    pub fn tell(&mut self) -> &mut [StateRows] {
        self.told.resize_with(self.stages.len(), StateRows::default);
        let of = (self.lane as u32, self.lanes.count());
        for (stage, told) in self.stages.iter_mut().zip(&mut self.told) {
            if let Some(window) = stage.window() {
                window.tell(self.position, of, told);
            }
        }
        &mut self.told
    }

    /// Says what the source reads besides, where the partition is not the only one.
    pub fn set_lanes(&mut self, lanes: &Lanes) {
        self.lanes = lanes.clone();
        self.lane = lanes.of(&Place { topic: self.topic.clone(), partition: self.partition });
        self.introduce();
    }

    /// The number of the partition among all that the source reads: states are told there.
    pub fn lane(&self) -> i32 {
        self.lane
    }

    /// Has stages that keep states know the task.
    pub(super) fn introduce(&mut self) {
        for (stage, spec) in self.stages.iter_mut().zip(&self.pipeline.stages) {
            let Some(window) = stage.window() else { continue };
            let limits = spec.outputs.iter().map(|&output| self.row_limits.output(output)).collect();
            window.begin_task(TaskPlace { topic: self.topic.clone(), lane: self.lane as u32, limits });
        }
    }

    /// Appends a row's dead letter: where the row was sent on between two levels, that of the record that it was.
    pub(super) fn push_dead(&self, to: &mut Rows, batch: &Batch, dead: &DeadRow) {
        let (row, most) = (dead.source_row as usize, self.row_limits.dead_letters());
        let window = self.stages.get(dead.stage).and_then(Stage::window_ref);
        let value = batch.rows.values.get(row);
        let original = window.zip(value).and_then(|(window, value)| window.original(value));
        let Some(Original { key, value, lane, offset }) = original else {
            return self.labels.push(to, (&batch.place(), &batch.rows, row), dead, most);
        };
        let mut original = Rows::default();
        original.push(offset, batch.rows.timestamps_ms[row], key, Some(value));
        let place = self.lanes.place(lane).unwrap_or_else(|| batch.place());
        self.labels.push(to, (&place, &original, 0), dead, most);
    }

    /// Notes what was sent with the offset, to be recognised where the answer is lost.
    pub fn sent(&mut self, note: &str) {
        self.sent_note = Some(note.to_owned());
    }

    /// True where what the group has is what was sent last.
    pub fn is_committed(&self, offset: i64, note: &str) -> bool {
        offset == self.position && self.sent_note.as_deref().is_none_or(|sent| sent == note)
    }

    /// Time passes: `at_end` where there is no record to come, as far as is known. What windows close for it is in `out`; true
    /// where anything changed.
    pub fn tick(&mut self, now_ms: u64, at_end: bool, out: &mut Output) -> Result<bool, TaskError> {
        let position = self.position;
        let quiet_since = self.quiet_since.filter(|(_, then)| at_end && *then == position);
        let (since_ms, _) = *self.quiet_since.insert(quiet_since.unwrap_or((now_ms, position)));
        let quiet_ms = now_ms.saturating_sub(since_ms);
        self.each_window(out, |window, emitted| window.quiet(quiet_ms, position, emitted))
    }

    /// There will be no more records: closes every window.
    pub fn end(&mut self, out: &mut Output) -> Result<bool, TaskError> {
        let position = self.position;
        self.each_window(out, |window, emitted| window.close_all(position, emitted))
    }

    fn each_window(
        &mut self,
        out: &mut Output,
        mut each: impl FnMut(&mut WindowStage, &mut Emitted) -> Result<bool, crate::plugin::StageError>,
    ) -> Result<bool, TaskError> {
        out.flow.clear();
        out.dead_letters.clear();
        out.place = Some(Place { topic: self.topic.clone(), partition: self.partition });
        let mut changed = false;
        for index in 0..self.stages.len() {
            let Some(window) = self.stages[index].window() else { continue };
            let mut emitted = Emitted::default();
            changed |= each(window, &mut emitted)?;
            let outputs = &self.pipeline.stages[index].outputs;
            for row in 0..emitted.len() {
                let flow = &mut out.flow;
                flow.rows.push(self.position, -1, emitted.keys.get(row), emitted.values.get(row));
                flow.source_rows.push(0);
                flow.routes.push(outputs[emitted.output[row] as usize]);
            }
            self.pending.emitted += emitted.len() as u64;
        }
        self.stages.iter_mut().for_each(Stage::end_block);
        out.flow.routes.iter().for_each(|&route| self.pending.outputs[usize::from(route)] += 1);
        Ok(changed)
    }
}
