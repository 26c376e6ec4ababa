//! The exports of an aggregate's component.

use std::sync::OnceLock;

use crate::bindings::millstream::plugin::types::{Batch, Finished, Folded, OptionalBytes, Packed, Rejection, Windows};
use crate::output::{Output, no_bytes, no_packed, push_optional};
use crate::read::{bit, range};
use crate::{
    Aggregate, AggregateDescriptor, ReadRow, Reject, RowWriter, Rows, State, Timestamp, Window, WriteRow, guest,
};

/// An aggregate that was started.
#[derive(Debug)]
pub struct Started<A> {
    aggregate: A,
    descriptor: AggregateDescriptor,
}

/// The export `describe`.
pub fn describe<A: Aggregate>(config: &str) -> Result<AggregateDescriptor, String> {
    Ok(A::from_config(config)?.describe())
}

/// The export `start`.
pub fn start<A: Aggregate>(place: &OnceLock<Started<A>>, config: &str) -> Result<(), String> {
    guest::log_panics();
    let aggregate = A::from_config(config)?;
    let descriptor = aggregate.describe();
    place.set(Started { aggregate, descriptor }).map_err(|_| "the plugin was started twice".into())
}

/// The aggregate that was started.
pub fn started<A>(place: &OnceLock<Started<A>>) -> &Started<A> {
    match place.get() {
        Some(started) => started,
        None => panic!("the host calls start before anything else"),
    }
}

impl<A: Aggregate> Started<A> {
    /// For tests, natively.
    pub fn new(aggregate: A) -> Self {
        let descriptor = aggregate.describe();
        Self { aggregate, descriptor }
    }

    /// The export `fold`.
    pub fn fold(&self, batch: Batch, groups: &[u32], states: &OptionalBytes) -> Folded {
        let rows = Rows::new(batch);
        let columns = A::Event::columns(&rows);
        let mut all: Vec<Option<Group<A::State>>> =
            (0..states.bytes.ends.len()).map(|group| Group::new(state(states, group))).collect();
        let mut rejections: Vec<Rejection> = Vec::new();
        for (row, &index) in groups.iter().enumerate() {
            let folded = match &mut all[index as usize] {
                Some(group) => self.fold_row(group, &columns, row),
                None => Err(unreadable::<A>(state(states, index as usize))),
            };
            let Err(why) = folded else { continue };
            rejections.push(Rejection { row: row as u32, code: why.code.into(), detail: why.detail });
            if let Some(group) = &mut all[index as usize] {
                let given = state(states, index as usize);
                let again = |row: usize| groups[row] == index && !is_rejected(&rejections, row);
                self.undo(group, given, &columns, (row, again));
            }
        }
        Folded { states: bytes_of(&all), rejections }
    }

    fn fold_row<'a>(
        &self,
        group: &mut Group<A::State>,
        columns: &<A::Event<'a> as ReadRow<'a>>::Columns,
        row: usize,
    ) -> Result<(), Reject> {
        self.aggregate.fold(&mut group.state, A::Event::at(columns, row))?;
        group.folded = true;
        Ok(())
    }

    /// Takes back what a row that was rejected did to its group's state: the rows before it are folded again.
    fn undo<'a>(
        &self,
        group: &mut Group<A::State>,
        given: Option<&[u8]>,
        columns: &<A::Event<'a> as ReadRow<'a>>::Columns,
        (rejected, again): (usize, impl Fn(usize) -> bool),
    ) {
        let bytes = group.saved.as_deref().or(given);
        group.state = bytes.map_or_else(A::State::default, |bytes| {
            A::State::from_bytes(bytes).unwrap_or_else(|| panic!("a state can't be read from its own bytes"))
        });
        for row in (group.saved_at..rejected).filter(|&row| again(row)) {
            if self.aggregate.fold(&mut group.state, A::Event::at(columns, row)).is_err() {
                panic!("a row that was folded is rejected when it is folded again");
            }
        }
        // So that no row is folded more often than twice, however many are rejected.
        if group.folded {
            (group.saved, group.saved_at) = (Some(group.state.to_bytes()), rejected + 1);
        }
    }

    /// The export `merge`.
    pub fn merge(&self, left: &Packed, right: &Packed) -> Packed {
        let mut merged = no_packed();
        for pair in 0..left.ends.len() {
            let mut state = self.readable(left, pair);
            self.aggregate.merge(&mut state, self.readable(right, pair));
            state.put(&mut merged.data);
            merged.end_row();
        }
        merged
    }

    /// The export `finish`.
    pub fn finish(&self, windows: &Windows, states: &Packed) -> Finished {
        let rows = states.ends.len();
        let mut output = Output::of_fields(&self.descriptor.writes, rows);
        let keys = match std::str::from_utf8(&windows.keys.data) {
            Ok(keys) => keys,
            Err(_) => panic!("the host sent a key that is not UTF-8"),
        };
        for row in 0..rows {
            let window = Window {
                start: Timestamp::from_micros(windows.starts_us[row]),
                end: Timestamp::from_micros(windows.ends_us[row]),
                key: &keys[range(&windows.keys.ends, row)],
            };
            let state = self.readable(states, row);
            self.aggregate.finish(&window, &state).write(&mut RowWriter { output: &mut output, row });
        }
        Finished { writes: output.finish_fields() }
    }

    /// The export `migrate`.
    pub fn migrate(&self, from_version: u32, states: &Packed) -> Result<Packed, String> {
        let mut migrated = no_packed();
        for row in 0..states.ends.len() {
            self.aggregate.migrate(from_version, &states.data[range(&states.ends, row)])?.put(&mut migrated.data);
            migrated.end_row();
        }
        Ok(migrated)
    }

    fn readable(&self, states: &Packed, row: usize) -> A::State {
        let bytes = &states.data[range(&states.ends, row)];
        A::State::from_bytes(bytes).unwrap_or_else(|| panic!("{}", unreadable::<A>(Some(bytes)).detail))
    }
}

/// A group while its rows are folded.
struct Group<S> {
    state: S,
    /// True once a row was folded.
    folded: bool,
    /// The state as it was before the row `saved_at`, if that is not what the host gave.
    saved: Option<Vec<u8>>,
    saved_at: usize,
}

impl<S: State + Default> Group<S> {
    /// `None` where the bytes are no state.
    fn new(bytes: Option<&[u8]>) -> Option<Self> {
        let state = bytes.map_or_else(|| Some(S::default()), S::from_bytes)?;
        Some(Self { state, folded: false, saved: None, saved_at: 0 })
    }
}

fn state(states: &OptionalBytes, group: usize) -> Option<&[u8]> {
    let valid = states.valid.is_empty() || bit(&states.valid, group);
    valid.then(|| &states.bytes.data[range(&states.bytes.ends, group)])
}

fn unreadable<A: Aggregate>(bytes: Option<&[u8]>) -> Reject {
    let length = bytes.map_or(0, <[u8]>::len);
    let version = A::STATE_VERSION;
    Reject::new("unreadable_state", format!("{length} bytes that are no state of version {version}"))
}

/// Rejections come in the order of their rows.
fn is_rejected(rejections: &[Rejection], row: usize) -> bool {
    rejections.binary_search_by_key(&(row as u32), |rejection| rejection.row).is_ok()
}

/// The states of the groups that rows were folded into, and null for the others.
fn bytes_of<S: State>(all: &[Option<Group<S>>]) -> OptionalBytes {
    let mut states = no_bytes();
    let mut bytes = Vec::new();
    for group in all {
        bytes.clear();
        let folded = group.as_ref().filter(|group| group.folded);
        if let Some(group) = folded {
            group.state.put(&mut bytes);
        }
        push_optional(&mut states, folded.map(|_| &bytes[..]));
    }
    states
}

/// Makes an [`Aggregate`] the component's; `#[aggregate]` does it.
#[macro_export]
macro_rules! export_aggregate {
    ($aggregate:ty) => {
        // Natively there is no component, and the exports' names would meet those of other plugins.
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, missing_docs, unreachable_pub)]
        const _: () = {
            use $crate::bindings::millstream::plugin::types;
            use $crate::guest_aggregate::{self as guest, Started, started};

            static STARTED: ::std::sync::OnceLock<Started<$aggregate>> = ::std::sync::OnceLock::new();

            struct Component;

            impl $crate::bindings_aggregate::Guest for Component {
                fn describe(config: String) -> Result<$crate::AggregateDescriptor, String> {
                    guest::describe::<$aggregate>(&config)
                }

                fn start(config: String) -> Result<(), String> {
                    guest::start(&STARTED, &config)
                }

                fn fold(rows: types::Batch, groups: Vec<u32>, states: types::OptionalBytes) -> types::Folded {
                    started(&STARTED).fold(rows, &groups, &states)
                }

                fn merge(left: types::Packed, right: types::Packed) -> types::Packed {
                    started(&STARTED).merge(&left, &right)
                }

                fn finish(windows: types::Windows, states: types::Packed) -> types::Finished {
                    started(&STARTED).finish(&windows, &states)
                }

                fn migrate(from_version: u32, states: types::Packed) -> Result<types::Packed, String> {
                    started(&STARTED).migrate(from_version, &states)
                }
            }

    $crate::bindings_aggregate::export_aggregate!(Component with_types_in $crate::bindings_aggregate);

            // SAFETY: the host calls it as the canonical ABI says.
            #[unsafe(export_name = "cabi_realloc")]
            unsafe extern "C" fn cabi_realloc(start: *mut u8, length: usize, align: usize, wanted: usize) -> *mut u8 {
                unsafe { $crate::rt::cabi_realloc(start, length, align, wanted) }
            }
        };
    };
}
