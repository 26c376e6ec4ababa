//! Sources without a broker: files, standard input, made-up records. Read once, from the first record to the last.

use std::time::Duration;

use crate::config::{GenerateConfig, SourceConfig};
use crate::record::Place;

use super::files::FilesSource;
use super::generate::GenerateSource;
use super::{Event, SourceError, Start};

/// The most records and bytes of one batch.
const BATCH_RECORDS_MAX: usize = 4_096;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A source that one worker reads alone.
#[derive(Debug)]
pub struct LocalSource {
    input: Input,
    places: Option<Vec<Place>>,
    filled: bool,
    paused: bool,
    /// The same can be read again, up to an end.
    repeatable: bool,
    ended: bool,
}

#[derive(Debug)]
enum Input {
    Files(Box<FilesSource>),
    Generate(Box<GenerateSource>),
}

impl LocalSource {
    /// Opens what the configuration names.
    pub fn open(config: &SourceConfig) -> Result<Self, SourceError> {
        let input = match config {
            SourceConfig::Files(files) => Input::Files(Box::new(FilesSource::open(files)?)),
            SourceConfig::Stdin(stdin) => Input::Files(Box::new(FilesSource::stdin(stdin)?)),
            SourceConfig::Generate(generate) => Input::Generate(Box::new(GenerateSource::new(generate))),
            SourceConfig::Kafka(_) => return Err(SourceError::Fatal("a Kafka topic is no local source".into())),
        };
        let places = match &input {
            Input::Files(files) => files.places(),
            Input::Generate(generate) => generate.places(),
        };
        let repeatable = match config {
            SourceConfig::Files(_) => true,
            SourceConfig::Generate(GenerateConfig::Clickstream(made_up)) => made_up.records.is_some(),
            SourceConfig::Stdin(_) | SourceConfig::Kafka(_) => false,
        };
        Ok(Self { input, places: Some(places), filled: false, paused: false, repeatable, ended: false })
    }
}

impl LocalSource {
    pub(super) fn poll(&mut self, wait_ms: u64, events: &mut Vec<Event>) -> Result<(), SourceError> {
        if let Some(places) = self.places.take() {
            events.push(Event::Assigned(places));
            return Ok(());
        }
        if self.paused {
            self.filled = false;
            std::thread::sleep(Duration::from_millis(wait_ms));
            return Ok(());
        }
        let next = match &mut self.input {
            Input::Files(files) => files.next(BATCH_RECORDS_MAX, BATCH_BYTES_MAX)?,
            Input::Generate(generate) => generate.next(BATCH_RECORDS_MAX, wait_ms),
        };
        self.filled = next.as_ref().is_some_and(|batch| batch.rows.len() >= BATCH_RECORDS_MAX);
        self.ended = next.is_none();
        events.push(next.map_or(Event::Ended, Event::Batch));
        Ok(())
    }

    pub(super) fn pause(&mut self, paused: bool) -> Result<(), SourceError> {
        self.paused = paused;
        Ok(())
    }

    pub(super) fn filled(&self) -> bool {
        self.filled
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.repeatable && !self.ended
    }

    pub(super) fn starts(&self, places: &[Place]) -> Vec<Start> {
        places.iter().map(|place| Start { place: place.clone(), offset: 0, note: None }).collect()
    }

    /// Nothing was read before it is asked for, so that there is nothing to go back over.
    pub(super) fn seek(&mut self) -> Result<(), SourceError> {
        Err(SourceError::Fatal("this source can't go back: start the run again".into()))
    }
}
