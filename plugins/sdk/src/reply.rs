//! What a plugin's function returns.

use crate::WriteRow;

/// Why a record is rejected: it becomes a dead letter that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// A short name that a counter can carry: lower case, digits and `_`.
    pub code: &'static str,
    /// A sentence for a person.
    pub detail: String,
}

impl Reject {
    /// A code such as `negative_user_id`, and a sentence.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(
            !code.is_empty() && code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "a code is lower case, digits and _, not {code:?}"
        );
        Self { code, detail: detail.into() }
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Reject {}

/// Named outputs besides the pipeline's main one; `#[derive(Outputs)]` on an enum of names makes it.
///
/// `enum Side { LateOrders }` is the output `late_orders`; `#[output("late-orders")]` says otherwise.
pub trait Outputs: Copy {
    /// The names.
    const NAMES: &'static [&'static str];

    /// Index of this one in the names.
    fn index(self) -> u32;
}

/// No output besides the main one.
#[derive(Clone, Copy, Debug)]
pub enum NoOutputs {}

impl Outputs for NoOutputs {
    const NAMES: &'static [&'static str] = &[];

    fn index(self) -> u32 {
        match self {}
    }
}

/// A row that is forwarded, to a named output or where it would go anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed<W, O> {
    /// What is written to it.
    pub write: W,
    /// Where it goes; none leaves that as it is.
    pub to: Option<O>,
}

impl<W, O> Routed<W, O> {
    /// To a named output.
    pub fn to(output: O, write: W) -> Self {
        Self { write, to: Some(output) }
    }

    /// Where it would go anyway.
    pub fn on(write: W) -> Self {
        Self { write, to: None }
    }
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate<W, O> {
    /// It goes on, with what is written to it.
    Forward(W, Option<O>),
    /// It is filtered out.
    Drop,
    /// It becomes a dead letter.
    Reject(Reject),
}

/// What a plugin's function may return.
///
/// | type | meaning |
/// | --- | --- |
/// | `Out` that derives `Write`, or `()` | forward every row |
/// | `Option<Out>` | `None` drops the row |
/// | `Result<Out, Reject>` | `Err` rejects the row |
/// | `Routed<Out, Side>` | forward the row to one of the outputs of `Side` |
///
/// They nest: `Result<Option<Routed<Out, Side>>, Reject>` does it all.
#[diagnostic::on_unimplemented(
    message = "a plugin's function can't return `{Self}`",
    note = "return a struct that derives Write, or () to write nothing; Option of it to drop rows by None; Result of it \
            with Reject; Routed of it"
)]
pub trait Reply {
    /// What is written.
    type Row: WriteRow;
    /// Where rows are routed to.
    type Outputs: Outputs;

    /// What becomes of the row.
    fn fate(self) -> Fate<Self::Row, Self::Outputs>;
}

impl<W: WriteRow> Reply for W {
    type Row = W;
    type Outputs = NoOutputs;

    #[inline]
    fn fate(self) -> Fate<W, NoOutputs> {
        Fate::Forward(self, None)
    }
}

impl<W: WriteRow, O: Outputs> Reply for Routed<W, O> {
    type Row = W;
    type Outputs = O;

    #[inline]
    fn fate(self) -> Fate<W, O> {
        Fate::Forward(self.write, self.to)
    }
}

impl<R: Reply> Reply for Option<R> {
    type Row = R::Row;
    type Outputs = R::Outputs;

    #[inline]
    fn fate(self) -> Fate<R::Row, R::Outputs> {
        self.map_or(Fate::Drop, R::fate)
    }
}

impl<R: Reply> Reply for Result<R, Reject> {
    type Row = R::Row;
    type Outputs = R::Outputs;

    #[inline]
    fn fate(self) -> Fate<R::Row, R::Outputs> {
        self.map_or_else(Fate::Reject, R::fate)
    }
}
