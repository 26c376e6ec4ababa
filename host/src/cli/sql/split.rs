//! A file of SQL, cut into statements at its semicolons, as ClickHouse's own lexer would see them: not within quotes,
//! comments or heredocs.

/// A statement of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The line that it begins in, from 1.
    pub(super) line: usize,
    /// As it stands in the file, comments within it included, without its semicolon.
    pub(super) text: String,
    /// The same without comments, with one space where there were any: what tells whether it was edited.
    pub(super) plain: String,
}

/// What begins and does not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what} begins here and does not end")]
pub(super) struct Unended {
    /// The line that it begins in.
    pub(super) line: usize,
    /// What it is.
    pub(super) what: &'static str,
}

/// What the lexer tells apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Spaces and comments.
    Gap,
    /// A semicolon.
    End,
    /// Anything that belongs to a statement.
    Code,
}

/// The statements of a file, in order; what holds nothing but comments is none.
pub(super) fn split(sql: &str) -> Result<Vec<Statement>, Unended> {
    let bytes = sql.as_bytes();
    let (mut statements, mut at, mut line) = (Vec::new(), 0, 1);
    let mut current: Option<(usize, Statement)> = None;
    // The end of the last code of the current statement, and whether a gap followed.
    let (mut end, mut gap) = (0, false);
    while at < bytes.len() {
        let (piece, len) = piece(&bytes[at..]).map_err(|what| Unended { line, what })?;
        match piece {
            Piece::Gap => gap = true,
            Piece::End => {
                if let Some((start, statement)) = current.take() {
                    statements.push(finished(statement, &sql[start..end]));
                }
            }
            Piece::Code => {
                let (_, statement) = current.get_or_insert_with(|| {
                    gap = false;
                    (at, Statement { line, text: String::new(), plain: String::new() })
                });
                if gap {
                    statement.plain.push(' ');
                }
                statement.plain.push_str(&sql[at..at + len]);
                (end, gap) = (at + len, false);
            }
        }
        line += bytes[at..at + len].iter().filter(|byte| **byte == b'\n').count();
        at += len;
    }
    if let Some((start, statement)) = current.take() {
        statements.push(finished(statement, &sql[start..end]));
    }
    Ok(statements)
}

fn finished(statement: Statement, text: &str) -> Statement {
    Statement { text: text.to_owned(), ..statement }
}

/// What `rest` begins with and how long that is, always at a character's end; or what does not end.
fn piece(rest: &[u8]) -> Result<(Piece, usize), &'static str> {
    let line_end = || rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    Ok(match rest {
        [b';', ..] => (Piece::End, 1),
        [b'-', b'-', ..] | [b'#', b' ' | b'\t' | b'!', ..] => (Piece::Gap, line_end()),
        [b'/', b'*', ..] => (Piece::Gap, block_comment(rest).ok_or("a comment")?),
        [b'\'', ..] => (Piece::Code, quoted(rest, b'\'').ok_or("a quoted text")?),
        [b'"', ..] => (Piece::Code, quoted(rest, b'"').ok_or("a quoted name")?),
        [b'`', ..] => (Piece::Code, quoted(rest, b'`').ok_or("a quoted name")?),
        [b'$', ..] => (Piece::Code, heredoc(rest)?),
        [byte, ..] if byte.is_ascii_whitespace() => {
            (Piece::Gap, rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count())
        }
        // A `$` within a word belongs to it; every byte of a longer character counts as a word's, so that none is cut.
        [byte, ..] if is_word(*byte) => {
            (Piece::Code, rest.iter().take_while(|byte| is_word(**byte) || **byte == b'$').count())
        }
        _ => (Piece::Code, 1),
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Comments nest.
fn block_comment(rest: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (1, 2);
    while depth > 0 {
        match rest.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    Some(at)
}

/// The quote ends at one that is neither behind a backslash nor doubled; of a doubled one, each half is a text of its own,
/// which comes to the same.
fn quoted(rest: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match *rest.get(at)? {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// `$tag$ … $tag$`; a `$` that begins no such thing is a character of its own.
fn heredoc(rest: &[u8]) -> Result<usize, &'static str> {
    let tag = rest[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count() + 2;
    let Some(mark) = rest.get(..tag).filter(|mark| mark.ends_with(b"$") && mark.len() >= 2) else { return Ok(1) };
    let end = rest[tag..].windows(tag).position(|window| window == mark);
    end.map(|end| tag + end + tag).ok_or("a heredoc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        split(sql).unwrap_or_else(|error| panic!("{error}")).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn statements_end_at_semicolons_of_their_own() {
        assert_eq!(texts("SELECT 1; SELECT 2 ;\nSELECT 3"), ["SELECT 1", "SELECT 2", "SELECT 3"]);
        assert_eq!(texts(""), Vec::<String>::new());
        assert_eq!(texts(" ;; -- nothing; here\n/* nor; here */ # nor; here\n#! nor; here\n;"), Vec::<String>::new());
        for one in [
            "SELECT ';'",
            "SELECT 'it''s; it'",
            r"SELECT 'a\';b', 'c\\'",
            r#"SELECT ";""#,
            "SELECT `a;``b`",
            "SELECT 1 /* a ; b */ + 2",
            "SELECT 1 /* a /* b; */ c; */ + 2",
            "SELECT 1 -- one; two\n+ 2",
            "SELECT $$a;b$$",
            "SELECT $tag$ a; $$ b; $tag $tag$",
            "SELECT a$b$ FROM t WHERE c$b$ = 1",
            "SELECT 5 - -1, 8 / 2, '--', '/*', 'ä;ö'",
            "SELECT ä$ö",
        ] {
            assert_eq!(texts(&format!("{one}; SELECT 2;")), [one, "SELECT 2"]);
            assert_eq!(texts(one), [one]);
        }
        assert_eq!(texts("SELECT $1; SELECT $; SELECT $a"), ["SELECT $1", "SELECT $", "SELECT $a"]);
        assert_eq!(texts("SELECT a#b;c"), ["SELECT a#b", "c"]);
    }

    #[test]
    fn a_statement_knows_its_line_and_what_it_is_without_comments() {
        let sql = "-- about it\n\nCREATE TABLE t -- a table\n(\n    a String /* text */ , b '--;'\n);\n\nSELECT\n1";
        let statements = split(sql).expect("it ends");
        let seen: Vec<_> = statements.iter().map(|statement| (statement.line, statement.plain.as_str())).collect();
        assert_eq!(seen, [(3, "CREATE TABLE t ( a String , b '--;' )"), (8, "SELECT 1")]);
        assert!(statements[0].text.starts_with("CREATE TABLE t -- a table\n(") && statements[0].text.ends_with("\n)"));
        // Within quotes spaces count; and `a b` is not `ab`.
        let plain = |sql: &str| split(sql).expect("it ends").remove(0).plain;
        assert_ne!(plain("SELECT 'a  b'"), plain("SELECT 'a b'"));
        assert_eq!(plain("SELECT  a/* x */b"), "SELECT a b");
    }

    #[test]
    fn what_does_not_end_is_told_with_its_line() {
        for (rest, what) in [
            ("'a;b", "a quoted text"),
            (r"'a\'", "a quoted text"),
            ("\"a", "a quoted name"),
            ("`a", "a quoted name"),
            ("/* a /* b */ c", "a comment"),
            ("$a$ b $c$", "a heredoc"),
        ] {
            let error = split(&format!("SELECT 1;\n\nSELECT {rest}")).expect_err("it does not end");
            assert_eq!((error.line, error.what), (3, what), "{rest}");
        }
    }
}
