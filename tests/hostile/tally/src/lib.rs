//! Counts records and sums `/spent` up; 13 is rejected.

#![allow(missing_docs)]

use millstream_sdk::prelude::*;

#[derive(Config)]
pub struct Tally {
    #[config(default = 13)]
    unlucky: i64,
}

#[derive(Read)]
pub struct Record {
    #[field("/spent")]
    spent: i64,
}

#[derive(State, Default)]
pub struct Sum {
    n: u64,
    spent: i64,
}

#[derive(Write)]
pub struct Row {
    #[field("/n")]
    n: i64,
    #[field("/spent")]
    spent: i64,
    #[field("/made_by")]
    made_by: i64,
}

#[aggregate(version = 1)]
impl Aggregate for Tally {
    type Event<'a> = Record;
    type State = Sum;
    type Row<'a> = Row;

    fn fold(&self, sum: &mut Sum, record: Record) -> Result<(), Reject> {
        if record.spent == self.unlucky {
            return Err(Reject::new("unlucky", "nobody spends that"));
        }
        sum.n += 1;
        sum.spent += record.spent;
        Ok(())
    }

    fn merge(&self, left: &mut Sum, right: Sum) {
        left.n += right.n;
        left.spent += right.spent;
    }

    fn finish<'a>(&self, _: &Window<'a>, sum: &'a Sum) -> Row {
        Row { n: sum.n.cast_signed(), spent: sum.spent, made_by: 1 }
    }
}
