//! stub
use crate::config::*;
use crate::record::*;
#[derive(Debug)]
pub struct GenerateSource;
impl GenerateSource {
    pub fn new(_: &GenerateConfig) -> Self {
        Self
    }
    pub fn places(&self) -> Vec<Place> {
        vec![]
    }
    pub fn next(&mut self, _: usize, _: u64) -> Option<Batch> {
        None
    }
}
