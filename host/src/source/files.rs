//! stub
use super::SourceError;
use crate::config::*;
use crate::record::*;
#[derive(Debug)]
pub struct FilesSource;
impl FilesSource {
    pub fn open(_: &FilesSourceConfig) -> Result<Self, SourceError> {
        Ok(Self)
    }
    pub fn stdin(_: &StdinSourceConfig) -> Result<Self, SourceError> {
        Ok(Self)
    }
    pub fn places(&self) -> Vec<Place> {
        vec![]
    }
    pub fn next(&mut self, _: usize, _: usize) -> Result<Option<Batch>, SourceError> {
        Ok(None)
    }
}
