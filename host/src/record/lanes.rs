//! The partitions of all topics that a source reads, numbered through.

use std::sync::Arc;

use super::Place;

/// The topics that a source reads, each with as many partitions. A *lane* is the number of a partition among all of them: first
/// those of the first topic by name, then those of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    topics: Arc<[(Arc<str>, u32)]>,
}

impl Lanes {
    /// The lanes of topics with their numbers of partitions, in any order.
    pub fn new(topics: impl IntoIterator<Item = (Arc<str>, u32)>) -> Self {
        let mut topics: Vec<_> = topics.into_iter().collect();
        topics.sort_unstable();
        Self { topics: topics.into() }
    }

    /// The lane of a partition; of a topic that is none of these, its number.
    pub fn of(&self, place: &Place) -> i32 {
        let mut first = 0;
        for (topic, partitions) in self.topics.iter() {
            if *topic == place.topic {
                return first + place.partition;
            }
            first += *partitions as i32;
        }
        place.partition
    }

    /// The partition that has a lane.
    pub fn place(&self, lane: u32) -> Option<Place> {
        let mut rest = lane;
        for (topic, partitions) in self.topics.iter() {
            match rest.checked_sub(*partitions) {
                Some(more) => rest = more,
                None => return Some(Place { topic: topic.clone(), partition: rest as i32 }),
            }
        }
        None
    }

    /// All partitions, in the order of their lanes.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let of = |(topic, partitions): &(Arc<str>, u32)| {
            let topic = topic.clone();
            (0..*partitions as i32).map(move |partition| Place { topic: topic.clone(), partition })
        };
        self.topics.iter().flat_map(of)
    }

    /// How many there are; one where the source has no topics.
    pub fn count(&self) -> u32 {
        self.topics.iter().map(|(_, partitions)| partitions).sum::<u32>().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_lead_to_their_partitions_and_back_whatever_the_order_of_the_topics() {
        let topic = |name: &str, partitions| (Arc::from(name), partitions);
        let lanes = Lanes::new([topic("orders", 2), topic("events", 3)]);
        assert_eq!(lanes, Lanes::new([topic("events", 3), topic("orders", 2)]));
        assert_eq!(lanes.count(), 5);
        let places: Vec<Place> = lanes.places().collect();
        assert_eq!(places, (0..5).filter_map(|lane| lanes.place(lane)).collect::<Vec<_>>());
        assert_eq!(places.iter().map(|place| lanes.of(place)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!((places[3].to_string(), lanes.place(5)), ("orders/0".to_owned(), None));
        let other = Place { topic: "else".into(), partition: 2 };
        assert_eq!((lanes.of(&other), Lanes::default().of(&other), Lanes::default().count()), (2, 2, 1));
    }
}
