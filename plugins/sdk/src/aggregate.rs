//! An aggregate as the SDK sees it: a state, and how rows get in and a row comes out.

use crate::json::{self, Value};
use crate::{AggregateDescriptor, ColumnType, Field, FromConfig, ReadRow, Reject, State, Timestamp, WriteRow};

/// An aggregate: what a window makes of its rows. The type that implements it is its configuration.
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// /// The average price of an order, and how many orders there were.
/// #[derive(Config)]
/// struct Average {
///     #[config(default = 1_000_000.0)]
///     highest: f64,
/// }
///
/// #[derive(Read)]
/// struct Order {
///     #[field("/price")]
///     price: f64,
/// }
///
/// #[derive(State, Default)]
/// struct Totals {
///     count: u64,
///     sum: f64,
/// }
///
/// #[derive(Write, Debug, PartialEq)]
/// struct Row {
///     #[field("/orders")]
///     orders: i64,
///     #[field("/average")]
///     average: f64,
/// }
///
/// #[aggregate(version = 1)]
/// impl Aggregate for Average {
///     type Event<'a> = Order;
///     type State = Totals;
///     type Row<'a> = Row;
///
///     fn fold(&self, totals: &mut Totals, order: Order) -> Result<(), Reject> {
///         if order.price > self.highest {
///             return Err(Reject::new("too_dear", format!("the price is {}", order.price)));
///         }
///         totals.count += 1;
///         totals.sum += order.price;
///         Ok(())
///     }
///
///     fn merge(&self, left: &mut Totals, right: Totals) {
///         left.count += right.count;
///         left.sum += right.sum;
///     }
///
///     fn finish(&self, _window: &Window<'_>, totals: &Totals) -> Row {
///         Row { orders: totals.count as i64, average: totals.sum / totals.count as f64 }
///     }
/// }
///
/// // It is tested natively.
/// let average = Average { highest: 10.0 };
/// let mut totals = Totals::default();
/// average.fold(&mut totals, Order { price: 2.0 }).expect("cheap enough");
/// average.merge(&mut totals, Totals { count: 1, sum: 3.0 });
/// assert_eq!(average.finish(&Window::default(), &totals), Row { orders: 2, average: 2.5 });
/// ```
///
/// A window's rows may be folded in parts whose states are merged, so that merging must come to what folding one part's
/// rows behind the other's does. Sums of `f64` depend on their order in their last digits; integers don't.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no aggregate",
    note = "write `#[aggregate(version = 1)]` above its impl"
)]
pub trait Aggregate: FromConfig {
    /// What is folded: a struct that derives `Read`, of fields only.
    type Event<'a>: ReadRow<'a>;
    /// What is kept of the rows; `default()` of none.
    type State: State + Default;
    /// What a state is finished into: a struct that derives `Write`, of fields of one level only.
    type Row<'a>: WriteRow;

    /// The plugin's name; `#[aggregate]` takes the package's.
    const NAME: &'static str;
    /// The plugin's version; `#[aggregate]` takes the package's.
    const VERSION: &'static str;
    /// The version of [`Self::State`]: `#[aggregate(version = 2)]`.
    const STATE_VERSION: u32;
    /// The older versions that [`Self::migrate`] knows: `#[aggregate(version = 2, migrates = [1])]`.
    const MIGRATES_FROM: &'static [u32];

    /// What the plugin reads and writes: what its structs say. Written by hand, paths and encodings may depend on the
    /// configuration; see [`AggregateDescriptor::field`].
    fn describe(&self) -> AggregateDescriptor {
        AggregateDescriptor::of::<Self>()
    }

    /// Folds a row into its group's state. After an error the state is what it was, whatever was done to it.
    fn fold(&self, state: &mut Self::State, event: Self::Event<'_>) -> Result<(), Reject>;

    /// Merges a state into an earlier one of the same group.
    fn merge(&self, left: &mut Self::State, right: Self::State);

    /// Makes a row of a state, which may be folded into again.
    fn finish<'a>(&self, window: &Window<'a>, state: &'a Self::State) -> Self::Row<'a>;

    /// Makes a state of the bytes of an older one. An error refuses the new version of the plugin, and its states stay as
    /// they are.
    fn migrate(&self, from_version: u32, bytes: &[u8]) -> Result<Self::State, String> {
        Err(format!("it has no way from {} bytes of version {from_version}", bytes.len()))
    }
}

/// The window that a state belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window<'a> {
    /// When it begins.
    pub start: Timestamp,
    /// When it has ended: the first moment behind it.
    pub end: Timestamp,
    /// The values of its key's fields, as a JSON array.
    pub key: &'a str,
}

impl Window<'_> {
    /// The values of its key's fields.
    pub fn key_values(&self) -> Vec<Value> {
        match json::parse(self.key) {
            Ok(Value::Array(values)) => values,
            _ => Vec::new(),
        }
    }
}

impl AggregateDescriptor {
    /// What the structs of an aggregate say.
    pub fn of<A: Aggregate>() -> Self {
        const {
            let parts = <A::Event<'static> as ReadRow<'static>>::PARTS.bits();
            assert!(parts == 0, "an aggregate reads fields only, and no key, value, headers or timestamp");
            let joins = <A::Event<'static> as ReadRow<'static>>::JOINS.len();
            let lookups = <A::Event<'static> as ReadRow<'static>>::LOOKUPS.len();
            assert!(joins + lookups == 0, "an aggregate knows no tables; join them in a stage before its window");
            let parts = <A::Row<'static> as WriteRow>::PARTS.bits();
            assert!(parts == 0, "an aggregate writes fields only, and no key, value, headers or timestamp");
        }
        Self {
            name: A::NAME.into(),
            version: A::VERSION.into(),
            reads: <A::Event<'static> as ReadRow<'static>>::FIELDS.iter().map(|field| field.field()).collect(),
            writes: <A::Row<'static> as WriteRow>::FIELDS.iter().map(|field| field.field()).collect(),
            state_version: A::STATE_VERSION,
            migrates_from: A::MIGRATES_FROM.to_vec(),
        }
    }

    /// Reads the field that stands at `declared` in the struct from `path` instead, and a timestamp there in the encoding of
    /// `of_type`, where it is given.
    ///
    /// # Panics
    /// Where no such field is read.
    #[must_use]
    pub fn field(mut self, declared: &str, path: &str, of_type: Option<ColumnType>) -> Self {
        let Some(field) = self.reads.iter_mut().find(|field| field.path == declared) else {
            panic!("no field is read from {declared}")
        };
        *field = Field { path: path.into(), of_type: of_type.unwrap_or(field.of_type), required: field.required };
        self
    }
}
