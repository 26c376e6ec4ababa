//! The state and progress of one partition: takes batches in order, says what goes out, counts everything.
//!
//! A task does no I/O and knows no clock. What it did since the last commit can be undone: a transaction that aborts
//! puts every task in it back.

mod dead_letter;
mod ledger;
mod lineage;
mod states;

use std::sync::Arc;

pub use dead_letter::DeadLetterLabels;
pub use ledger::{Ledger, Reasons};
pub use lineage::Lineage;
pub use states::StateNote;

use crate::pipeline::{Flow, Pipeline, RowLimits, Run, Stage};
use crate::plugin::{StageError, StageUsage};
use crate::record::{Batch, Lanes, Place, Rows};
use crate::window::{LoadError, StateRows, WindowStage};

/// Why a task can't take a batch.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The batch does not follow the one before it.
    #[error("partition {partition} of `{topic}`: a batch starts at offset {found}, but {expected} comes next")]
    OutOfOrder {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The task's position.
        expected: i64,
        /// The batch's first offset.
        found: i64,
    },
    /// The host could not run a stage.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// More records than the configured share became dead letters.
    #[error(
        "partition {partition} of `{topic}`: {dead_letters} of the last {records} records became dead letters, which is \
         over `dead_letters.stop_above`; nothing past offset {committed} was committed. Look at the reasons above and \
         raise the bound or mend the pipeline"
    )]
    OverBudget {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Records looked at.
        records: u64,
        /// Those that became dead letters.
        dead_letters: u64,
        /// The last committed offset.
        committed: i64,
    },
    /// The states of a stage can't be taken over.
    #[error("partition {partition} of `{topic}`, stage `{stage}`: {why}")]
    States {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The stage's name.
        stage: String,
        /// Why not.
        why: LoadError,
    },
    /// Another member has committed for the partition, and the states here are not as of that.
    #[error("{0}: the group is at an offset that this process did not commit; it begins anew")]
    Overtaken(Place),
}

/// The share of dead letters at which a partition stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorBudget {
    /// Most dead letters for a record that came in, from 0 to 1.
    pub share: f64,
    /// Over how many records that is judged.
    pub records: u64,
}

/// What the error budget has seen since it was last judged.
#[derive(Clone, Copy, Debug, Default)]
struct Period {
    records: u64,
    dead_letters: u64,
}

/// What one batch turned into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Rows for the pipeline's outputs.
    pub flow: Flow,
    /// Rows for the dead-letter output, with headers that say why.
    pub dead_letters: Rows,
    /// The partition that all of them come from.
    pub place: Option<Place>,
}

impl Output {
    /// Bytes of all rows' keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.flow.rows.bytes() + self.dead_letters.bytes()
    }
}

/// One partition on its way through the pipeline.
#[derive(Debug)]
pub struct Task {
    topic: Arc<str>,
    partition: i32,
    pipeline: Arc<Pipeline>,
    labels: Arc<DeadLetterLabels>,
    budget: Option<ErrorBudget>,
    stages: Vec<Stage>,
    run: Run,
    row_limits: RowLimits,
    /// The next offset, and where a restart would begin.
    position: i64,
    committed: i64,
    /// Counted since the last commit, and before it.
    pending: Ledger,
    total: Ledger,
    /// The error budget's period, and as it was at the last commit.
    period: Period,
    period_committed: Period,
    /// The first offset of this partition that the chain in force was run for.
    since: i64,
    lineage: Option<Arc<Lineage>>,
    /// All that the source reads, and the number of this partition among it.
    lanes: Lanes,
    lane: i32,
    /// What each stage has to say at the next commit.
    told: Vec<StateRows>,
    /// Since when no record has come, on the workers' clock, and the position then.
    quiet_since: Option<(u64, i64)>,
    /// The note that was last sent with an offset, and not yet known to be committed.
    sent_note: Option<String>,
}

/// What some stages made of a number of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTally {
    /// Records that the first of these stages was given.
    pub entered: u64,
    /// Those that became dead letters at any of them.
    pub dead_letters: u64,
    /// Of these, those that made a plugin fault.
    pub faults: u64,
}

impl StageTally {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            entered: self.entered + other.entered,
            dead_letters: self.dead_letters + other.dead_letters,
            faults: self.faults + other.faults,
        }
    }

    /// This without the other.
    pub fn minus(self, other: Self) -> Self {
        Self {
            entered: self.entered.saturating_sub(other.entered),
            dead_letters: self.dead_letters.saturating_sub(other.dead_letters),
            faults: self.faults.saturating_sub(other.faults),
        }
    }
}

impl Task {
    /// A task that begins at `offset`.
    pub fn new(
        (topic, partition): (Arc<str>, i32),
        offset: i64,
        pipeline: Arc<Pipeline>,
        stages: Vec<Stage>,
        labels: Arc<DeadLetterLabels>,
        (budget, row_limits): (Option<ErrorBudget>, RowLimits),
    ) -> Self {
        let pending = Ledger::new(&pipeline);
        let total = pending.clone();
        let mut task = Self {
            topic,
            partition,
            pipeline,
            labels,
            budget,
            stages,
            run: Run::with_limits(row_limits.clone()),
            row_limits,
            position: offset,
            committed: offset,
            pending,
            total,
            period: Period::default(),
            period_committed: Period::default(),
            since: offset,
            lineage: None,
            lanes: Lanes::default(),
            lane: partition,
            told: Vec::new(),
            quiet_since: None,
            sent_note: None,
        };
        task.introduce();
        task
    }

    /// Has outputs say where they come from.
    pub fn set_lineage(&mut self, lineage: Option<Arc<Lineage>>) {
        self.lineage = lineage;
    }

    /// Replaces the chain by another of as many stages and the same outputs, from the next record on. Everything that was
    /// processed must be committed.
    pub fn swap(
        &mut self,
        pipeline: Arc<Pipeline>,
        mut stages: Vec<Stage>,
        labels: Arc<DeadLetterLabels>,
        lineage: Option<Arc<Lineage>>,
    ) {
        debug_assert_eq!(self.position, self.committed, "a swap happens between two blocks");
        for (new, old) in stages.iter_mut().zip(std::mem::take(&mut self.stages)) {
            if let (Stage::Window(new), Stage::Window(old)) = (new, old) {
                new.inherit(*old);
            }
        }
        self.run = Run::with_limits(self.row_limits.clone());
        (self.pipeline, self.stages, self.labels, self.lineage) = (pipeline, stages, labels, lineage);
        self.introduce();
        self.since = self.position;
    }

    /// The first offset that the chain in force was run for.
    pub fn since(&self) -> i64 {
        self.since
    }

    /// Says so, where an earlier owner of the partition began with it.
    pub fn set_since(&mut self, offset: i64) {
        self.since = offset;
    }

    /// What `stages` made of the last batch.
    pub fn tally(&self, stages: &[usize]) -> StageTally {
        let counts = self.run.counts();
        let dead = || self.run.dead().iter().filter(|dead| stages.contains(&dead.stage));
        StageTally {
            entered: stages.iter().filter_map(|&stage| Some(counts.get(stage)?.entered)).max().unwrap_or(0),
            dead_letters: dead().count() as u64,
            faults: dead().filter(|dead| dead.is_fault()).count() as u64,
        }
    }

    /// How many records of the last batch made a plugin fault.
    pub fn faults(&self) -> u64 {
        self.run.dead().iter().filter(|dead| dead.is_fault()).count() as u64
    }

    /// The offset of the next record.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The offset that a restart would begin at.
    pub fn committed(&self) -> i64 {
        self.committed
    }

    /// Everything counted up to the last commit.
    pub fn ledger(&self) -> &Ledger {
        &self.total
    }

    /// What each stage has used so far, delivered or not; none where it is no plugin.
    pub fn stage_usage(&self) -> impl Iterator<Item = Option<&StageUsage>> {
        self.stages.iter().map(Stage::usage)
    }

    /// Runs a batch through the pipeline into `out`. The batch must begin where the last one ended.
    pub fn process(&mut self, batch: &Batch, out: &mut Output) -> Result<(), TaskError> {
        if batch.first_offset != self.position {
            return Err(TaskError::OutOfOrder {
                topic: self.topic.clone(),
                partition: self.partition,
                expected: self.position,
                found: batch.first_offset,
            });
        }
        if let Some(table) = self.stages.iter().find_map(Stage::unready) {
            return Err(StageError::Unready(table.to_owned()).into());
        }
        let ran = self.run.run(&self.pipeline, &mut self.stages, &batch.rows, &mut out.flow);
        // Instances never outlive the batch: nothing that a plugin kept leaks into the next one.
        self.stages.iter_mut().for_each(Stage::end_block);
        ran?;
        if let Some(lineage) = &self.lineage {
            lineage.add(&mut out.flow.rows, batch);
        }
        out.dead_letters.clear();
        self.run.dead().iter().for_each(|dead| self.push_dead(&mut out.dead_letters, batch, dead));
        out.place = Some(batch.place());
        self.pending.count(batch.rows.len() as u64, &self.run, &out.flow);
        debug_assert_eq!(self.pending.imbalance(), 0, "every record in is counted out once: {:?}", self.pending);
        self.position = batch.next_offset;
        self.check_budget(batch.rows.len() as u64)
    }

    /// Takes note that everything up to the position is delivered.
    pub fn commit(&mut self) {
        self.committed = self.position;
        self.period_committed = self.period;
        self.total.add(&self.pending);
        self.pending = Ledger::new(&self.pipeline);
        self.windows().for_each(WindowStage::commit);
        self.sent_note = None;
    }

    /// Forgets everything since the last commit and goes on at `offset`.
    pub fn restore(&mut self, offset: i64) {
        self.position = offset;
        self.committed = offset;
        self.period = self.period_committed;
        self.pending = Ledger::new(&self.pipeline);
        self.windows().for_each(WindowStage::undo);
        self.sent_note = None;
    }

    /// Judges a period of `budget.records` records, and begins the next one once it is full. A period that has too many
    /// dead letters already is not waited for: a process that is started again and again would divert a topic in parts.
    fn check_budget(&mut self, records: u64) -> Result<(), TaskError> {
        let Some(budget) = self.budget else { return Ok(()) };
        self.period.records += records;
        self.period.dead_letters += self.run.dead().len() as u64;
        let Period { records, dead_letters } = self.period;
        if records >= budget.records {
            self.period = Period::default();
        }
        if dead_letters as f64 <= budget.share * records.max(budget.records) as f64 {
            return Ok(());
        }
        let (topic, partition, committed) = (self.topic.clone(), self.partition, self.committed);
        Err(TaskError::OverBudget { topic, partition, records, dead_letters, committed })
    }
}
