//! What can be wrong with a record.

/// Why a record is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {at}")]
pub struct JsonError {
    /// What is wrong.
    pub fault: Fault,
    /// Where, counted from the record's first byte.
    pub at: u32,
}

/// What is wrong with a text that is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text ends within a value.
    #[error("the text ends too early")]
    UnexpectedEnd,
    /// No value begins here.
    #[error("a value is expected")]
    Value,
    /// No key begins here.
    #[error("a key in quotes is expected")]
    Key,
    /// A key is not followed by a colon.
    #[error("':' is expected")]
    Colon,
    /// A value is followed by neither a comma nor the right bracket.
    #[error("',' or the closing bracket is expected")]
    Separator,
    /// Something follows the value.
    #[error("nothing may follow the value")]
    Trailing,
    /// A string has a control character that is not escaped.
    #[error("a control character must be escaped")]
    ControlCharacter,
    /// A string has an escape that does not exist.
    #[error("this escape does not exist")]
    Escape,
    /// An escaped UTF-16 surrogate has no partner.
    #[error("a surrogate is without its partner")]
    LoneSurrogate,
    /// A number is not written as JSON wants it.
    #[error("a digit is missing or out of place")]
    Number,
    /// A number is beyond what a double holds.
    #[error("the number is out of range")]
    NumberRange,
    /// Arrays and objects are nested too deeply.
    #[error("nested too deeply")]
    Depth,
    /// The text is not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// The text has 4 GiB or more.
    #[error("too long")]
    TooLong,
}
