//! What goes wrong with a request, sorted by what can be done about it.

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no answer: no connection, a time-out, or a connection that was cut. What was asked for may have happened.
    #[error("{address}: {why}")]
    NoAnswer {
        /// Who was asked.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server says no.
    #[error("ClickHouse answers {}: {text}", code.map_or(format!("HTTP {status}"), |code| format!("code {code}")))]
    Answered {
        /// The HTTP status.
        status: u16,
        /// ClickHouse's own code of the error.
        code: Option<u32>,
        /// What it says, cut where it is long.
        text: String,
    },
}

/// What can be done about a failed insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same again, later: the network, or a server that is starting, stopping, full or read-only.
    Retry,
    /// The same again, when somebody has made the table or database.
    Missing,
    /// The same again, when somebody has corrected user, password or grants.
    Access,
    /// The table has other columns than it had: describe it anew.
    SchemaChanged,
    /// The rows are refused, and it is sure that nothing was written: halves may be tried.
    Refused,
    /// A view behind the table failed. The table may have the rows, so that nothing but the same block under the same token
    /// may be sent again.
    Behind {
        /// The view, where the server names it.
        view: Option<String>,
    },
    /// Nothing is known of this error; nothing but the same block under the same token may be sent again.
    Unknown,
}

/// How the server says which view failed.
const VIEW: &str = "while pushing to view ";

impl RequestError {
    /// What can be done, for an insert into `database`.`table`.
    pub fn verdict(&self, database: &str, table: &str) -> Verdict {
        let Self::Answered { status, code, text } = self else { return Verdict::Retry };
        let view = text.find(VIEW).map(|at| view_name(&text[at + VIEW.len()..]));
        let Some(code) = code else {
            return match status {
                401 | 403 => Verdict::Access,
                408 | 429 | 500..=599 => Verdict::Retry,
                _ => Verdict::Unknown,
            };
        };
        if is_passing(*code, text) {
            return Verdict::Retry;
        }
        if let Some(view) = view {
            return Verdict::Behind { view };
        }
        match code {
            // Table and database; those of a view's target, too.
            60 | 81 | 218 => Verdict::Missing,
            // User, password, grants, network addresses, quota keys.
            192..=195 | 291 | 492 | 497 | 516 => Verdict::Access,
            // Columns that are not there, are computed, are too many, or are of another type than they were.
            8 | 10 | 16 | 20 | 44 | 47 | 122 => Verdict::SchemaChanged,
            // What the header says of the columns is not what the table has.
            117 if text.contains("while reading header") => Verdict::SchemaChanged,
            // A constraint of the table itself is checked before the one block is written.
            469 if text.contains(&format!("for table {database}.{table} ")) => Verdict::Refused,
            code if PARSING.contains(code) => Verdict::Refused,
            // A block with rows of too many partitions is refused as a whole.
            252 => Verdict::Refused,
            _ => Verdict::Unknown,
        }
    }
}

/// Codes for data that can't be read, or can't become the columns' types; an insert of one block has then written nothing.
const PARSING: &[u32] = &[
    6,   // CANNOT_PARSE_TEXT
    25,  // CANNOT_PARSE_ESCAPE_SEQUENCE
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    32,  // ATTEMPT_TO_READ_AFTER_EOF
    33,  // CANNOT_READ_ALL_DATA
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    53,  // TYPE_MISMATCH
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA
    128, // TOO_LARGE_ARRAY_SIZE
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    407, // DECIMAL_OVERFLOW
    441, // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

/// True for what passes by itself, or by what an operator does: the same insert may then succeed.
fn is_passing(code: u32, text: &str) -> bool {
    match code {
        // Also said of a block of too many partitions, which does not pass.
        252 => !text.contains("Too many partitions for single INSERT block"),
        // TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, SOCKET_TIMEOUT, NETWORK_ERROR, ALL_CONNECTION_TRIES_FAILED
        159 | 202 | 209 | 210 | 279 => true,
        // READONLY, TABLE_IS_READ_ONLY
        164 | 242 => true,
        // MEMORY_LIMIT_EXCEEDED, NOT_ENOUGH_SPACE, CANNOT_ALLOCATE_MEMORY, CANNOT_SCHEDULE_TASK
        241 | 243 | 173 | 439 => true,
        // CANNOT_WRITE_TO_FILE_DESCRIPTOR, CANNOT_OPEN_FILE, S3_ERROR: disks and buckets
        75 | 76 | 499 => true,
        // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: an earlier try of the same block
        216 => true,
        // ABORTED, QUERY_WAS_CANCELLED, SERVER_OVERLOADED, SESSION_IS_LOCKED, QUOTA_EXCEEDED
        236 | 394 | 745 | 373 | 201 => true,
        // Keeper: NO_ZOOKEEPER, KEEPER_EXCEPTION, UNKNOWN_STATUS_OF_INSERT, and too few replicas for the quorum
        225 | 999 | 319 | 285 | 286 | 289 => true,
        _ => false,
    }
}

/// The name at the beginning of `text`, which goes to a bracket or the sentence's end.
fn view_name(text: &str) -> Option<String> {
    let end = text.find([' ', '\n', '(', ':']).unwrap_or(text.len());
    let name = text[..end].trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_owned())
}

/// The code in `Code: 60. DB::Exception: …`.
pub(super) fn code_of(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    if rest[digits..].starts_with(". DB::") { rest[..digits].parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, text: &str) -> Verdict {
        RequestError::Answered { status, code: code_of(text), text: text.to_owned() }.verdict("db", "t")
    }

    fn of_code(code: u32) -> Verdict {
        verdict(500, &format!("Code: {code}. DB::Exception: Something. (X)"))
    }

    #[test]
    fn what_passes_is_tried_again() {
        let cut = RequestError::NoAnswer { address: "h:1".into(), why: "cut".into() };
        assert_eq!(cut.verdict("db", "t"), Verdict::Retry);
        for code in [159, 164, 202, 209, 210, 241, 242, 252, 999] {
            assert_eq!(of_code(code), Verdict::Retry, "{code}");
        }
        assert_eq!(verdict(502, "<html>Bad Gateway"), Verdict::Retry);
        assert_eq!(verdict(404, "no handler"), Verdict::Unknown);
        assert_eq!(verdict(403, "no"), Verdict::Access);
    }

    #[test]
    fn only_what_is_sure_to_precede_every_write_is_a_refusal() {
        for code in [6, 27, 53, 117, 349] {
            assert_eq!(of_code(code), Verdict::Refused, "{code}");
        }
        let constraint = |table: &str, behind: &str| {
            verdict(500, &format!("Code: 469. DB::Exception: Constraint `c` for table {table} is violated{behind}."))
        };
        assert_eq!(constraint("db.t (uuid)", " at row 1"), Verdict::Refused);
        assert_eq!(constraint("db.target (uuid)", ""), Verdict::Unknown);
        let behind = Verdict::Behind { view: Some("db.v".into()) };
        assert_eq!(constraint("db.target", ": while pushing to view db.v"), behind);
        assert_eq!(constraint("db.t (uuid)", ": while pushing to view db.v (uuid)"), behind);
        assert_eq!(of_code(395), Verdict::Unknown);
        let partitions = "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100)";
        assert_eq!(verdict(500, partitions), Verdict::Refused);
    }

    #[test]
    fn a_view_that_is_short_of_memory_is_tried_again() {
        let text = "Code: 241. DB::Exception: Memory limit exceeded: while pushing to view db.v (uuid).";
        assert_eq!(verdict(500, text), Verdict::Retry);
    }

    #[test]
    fn tables_users_and_columns_are_told_apart() {
        assert_eq!(of_code(60), Verdict::Missing);
        assert_eq!(of_code(516), Verdict::Access);
        assert_eq!(of_code(16), Verdict::SchemaChanged);
        let header = "Code: 117. DB::Exception: Type of 'n' must be Int64, not Int32: (while reading header)";
        assert_eq!(verdict(400, header), Verdict::SchemaChanged);
    }

    #[test]
    fn codes_are_read_where_the_server_wrote_them() {
        assert_eq!(code_of("Code: 60. DB::Exception: Table"), Some(60));
        assert_eq!(code_of("Poco::Exception. Code: 1000, e.code() = 0"), None);
        assert_eq!(code_of("hello"), None);
    }
}
