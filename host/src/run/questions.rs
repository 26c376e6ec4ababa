//! Questions to workers about their states: asked from outside, answered by each worker between two steps.
//!
//! A worker looks at one number a step; only where it has changed is there a question to be looked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::worker::{StateAnswer, Worker};

use super::lock;
use super::states::Level;

/// How many questions may wait at a time.
const QUESTIONS_MAX: usize = 16;
/// How long one waits for its answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked.
struct Question {
    number: u64,
    level: Level,
    stage: usize,
    keys: Vec<Vec<u8>>,
    answers: SyncSender<StateAnswer>,
}

/// All questions that wait.
#[derive(Default)]
pub(super) struct Questions {
    /// The number of the last one.
    newest: AtomicU64,
    open: Mutex<Vec<Arc<Question>>>,
}

impl Questions {
    /// Asks `workers` of a level what their stage `stage` holds for these keys; waits for their answers, of which those that
    /// do not come in time are missing. `None` where too many questions wait already.
    pub(super) fn ask(
        &self,
        (level, workers): (Level, usize),
        stage: usize,
        keys: Vec<Vec<u8>>,
    ) -> Option<Vec<StateAnswer>> {
        let (answers, come) = mpsc::sync_channel(workers.max(1));
        let number = {
            let mut open = lock(&self.open);
            if open.len() >= QUESTIONS_MAX {
                return None;
            }
            let number = self.newest.load(Ordering::Relaxed) + 1;
            open.push(Arc::new(Question { number, level, stage, keys, answers }));
            self.newest.store(number, Ordering::Release);
            number
        };
        let end = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < workers {
            let Ok(answer) = come.recv_timeout(end.saturating_duration_since(Instant::now())) else { break };
            found.push(answer);
        }
        lock(&self.open).retain(|question| question.number != number);
        Some(found)
    }

    /// Answers what a worker was not asked before; `seen` is the last question that it knows.
    pub(super) fn answer(&self, level: Level, seen: &mut u64, worker: &mut Worker) {
        let newest = self.newest.load(Ordering::Acquire);
        if newest == *seen {
            return;
        }
        let new = |question: &&Arc<Question>| question.number > *seen && question.level == level;
        let open: Vec<Arc<Question>> = lock(&self.open).iter().filter(new).cloned().collect();
        for question in open.into_iter().filter(|question| question.number <= newest) {
            // Who does not wait any more needs no answer.
            let _ = question.answers.try_send(worker.ask(question.stage, &question.keys));
        }
        *seen = newest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_questions_wait_than_there_is_room_for_and_none_for_long() {
        let questions = Arc::new(Questions::default());
        let ask = |questions: &Arc<Questions>| {
            let questions = questions.clone();
            std::thread::spawn(move || questions.ask((Level::First, 1), 0, Vec::new()))
        };
        let started = Instant::now();
        let waiting: Vec<_> = (0..QUESTIONS_MAX).map(|_| ask(&questions)).collect();
        while lock(&questions.open).len() < QUESTIONS_MAX {
            std::thread::yield_now();
        }
        assert_eq!(questions.ask((Level::First, 1), 0, Vec::new()), None);
        for thread in waiting {
            assert_eq!(thread.join().expect("no panic"), Some(Vec::new()), "nobody answers");
        }
        assert!(started.elapsed() >= PATIENCE && lock(&questions.open).is_empty());
    }
}
