//! What a worker's stages hold for a key, for whoever asks between two steps.

use super::Worker;
use crate::record::Place;
use crate::window::HeldWindow;

/// A window of a key, and where it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredWindow {
    /// The partition whose records it is made of.
    pub place: Place,
    /// The offset of the next record that it may take.
    pub position: i64,
    /// Everything before is committed.
    pub committed: i64,
    /// The window.
    pub window: HeldWindow,
}

/// What one worker knows of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateAnswer {
    /// The windows that it holds.
    pub windows: Vec<AnsweredWindow>,
    /// True where there are more.
    pub more: bool,
    /// The partitions that it has looked in.
    pub partitions: Vec<Place>,
    /// Partitions whose states are not there yet.
    pub restoring: Vec<Place>,
    /// Why some could not be looked at.
    pub trouble: Option<String>,
}

impl Worker {
    /// What a stage holds for any of these keys, in all partitions of this worker.
    pub fn ask(&mut self, stage: usize, keys: &[Vec<u8>]) -> StateAnswer {
        let mut answer = StateAnswer { restoring: self.restoring.keys().cloned().collect(), ..StateAnswer::default() };
        for (place, task) in &mut self.tasks {
            let (position, committed) = (task.position(), task.committed());
            let Some(window) = task.window(stage) else { continue };
            answer.partitions.push(place.clone());
            for key in keys {
                match window.ask(key, position) {
                    Ok(held) => {
                        let of = |window| AnsweredWindow { place: place.clone(), position, committed, window };
                        answer.windows.extend(held.windows.into_iter().map(of));
                        answer.more |= held.more;
                    }
                    Err(why) => answer.trouble = Some(format!("{place}: {why}")),
                }
            }
        }
        answer
    }
}
