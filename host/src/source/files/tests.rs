//! The promises of files as a source.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millstream-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> InputFile {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a temporary file");
        let format = FileFormat::of_path(&path).unwrap_or(FileFormat::Ndjson);
        InputFile { path, format }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn source(files: Vec<InputFile>, max_line_bytes: u64) -> FilesSource {
    FilesSource::open(&FilesSourceConfig { files, max_line_bytes }).expect("the files are there")
}

/// Every row as `partition/offset value`, with the reason behind those that are no records; an error ends the list.
fn read_all(mut source: FilesSource, max_rows: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut places: std::collections::BTreeMap<i32, i64> = Default::default();
    loop {
        let batch = match source.next(max_rows, 1 << 20) {
            Ok(Some(batch)) => batch,
            Ok(None) => return seen,
            Err(error) => {
                seen.push(format!("error: {error}"));
                return seen;
            }
        };
        let next = places.insert(batch.partition, batch.next_offset).unwrap_or(0);
        assert_eq!(batch.first_offset, next, "batches follow each other without a gap");
        for row in 0..batch.rows.len() {
            let value = String::from_utf8_lossy(batch.rows.values.get(row).expect("no tombstones")).into_owned();
            let reasons = batch.rows.headers.get(row).map(|(name, reason)| {
                assert_eq!(name, SOURCE_ERROR_HEADER.as_bytes());
                format!(" ({})", String::from_utf8_lossy(reason.expect("a reason")))
            });
            let reason: String = reasons.collect();
            seen.push(format!("{}/{} {value}{reason}", batch.partition, batch.rows.offsets[row]));
        }
    }
}

/// The rows of one file, whatever the size of the batches.
fn read(name: &str, content: &[u8], max_line_bytes: u64) -> Vec<String> {
    let folder = Folder::new(name);
    let file = folder.file(name, content);
    let seen = read_all(source(vec![file.clone()], max_line_bytes), 1_000);
    assert_eq!(read_all(source(vec![file], max_line_bytes), 1), seen, "{name}, a row a batch");
    seen
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn a_line_is_a_record_whatever_its_end() {
    let seen = read("ends.ndjson", b"\xef\xbb\xbf{\"a\":1}\r\n\n  \t\r\n{\"a\":2}\n[\"\r\"]", 1 << 20);
    assert_eq!(seen, ["0/0 {\"a\":1}", "0/3 {\"a\":2}", "0/4 [\"\r\"]"]);
    assert_eq!(read("empty.ndjson", b"", 1 << 20), [""; 0]);
    assert_eq!(read("blank.ndjson", b"\n\n", 1 << 20), [""; 0]);
    assert_eq!(read("last.ndjson", b"1\n2\n", 1 << 20), ["0/0 1", "0/1 2"]);
}

#[test]
fn each_file_is_a_partition_with_offsets_of_its_own() {
    let folder = Folder::new("several");
    let files = vec![folder.file("a.ndjson", b"1\n2\n"), folder.file("b.csv", b"x\n3\n"), folder.file("c.json", b"4")];
    let source = source(files, 1 << 20);
    assert_eq!(source.places().len(), 3);
    assert_eq!(read_all(source, 1_000), ["0/0 1", "0/1 2", "1/1 {\"x\":\"3\"}", "2/0 4"]);
}

#[test]
fn a_line_beyond_the_bound_is_cut_and_says_so() {
    let long = [b"12345678901\n1\r\n1234567890\r\n".as_slice(), &[b'9'; 300_000], b"\n2"].concat();
    let seen = read("long.ndjson", &long, 10);
    assert_eq!(
        seen,
        [
            "0/0 1234567890 (the line has 11 bytes, of which these are the first 10)",
            "0/1 1",
            "0/2 1234567890",
            "0/3 9999999999 (the line has 300000 bytes, of which these are the first 10)",
            "0/4 2",
        ]
    );
    let whole = vec![b'7'; 1_000_000];
    assert_eq!(read("whole.ndjson", &whole, 1_000_000)[0].len(), 1_000_004);
}

#[test]
fn gzip_is_told_by_its_bytes_and_may_have_many_members() {
    let members = [gzip(b"1\n2"), gzip(b"3\n"), gzip(b""), gzip(b"4")].concat();
    assert_eq!(read("many.gz", &members, 1 << 20), ["0/0 1", "0/1 23", "0/2 4"]);
    assert_eq!(read("plain.ndjson.gz", b"1\n", 1 << 20), ["0/0 1"]);
    assert_eq!(read("named.csv.gz", &gzip(b"a\nb\n"), 1 << 20), ["0/1 {\"a\":\"b\"}"]);
}

#[test]
fn a_gzip_that_breaks_off_yields_what_is_whole_and_then_its_place() {
    let lines: Vec<u8> = (0..100_000).flat_map(|i| format!("{}\n", i * 7_919 % 100_003).into_bytes()).collect();
    let whole = gzip(&lines);
    let seen = read("broken.ndjson.gz", &whole[..whole.len() / 2], 1 << 20);
    let (error, rows) = seen.split_last().expect("rows and an error");
    assert!(rows.len() > 10_000, "{}", rows.len());
    let place = format!("broken.ndjson.gz breaks off in the middle of its gzip, in or after line {}: ", rows.len() + 1);
    assert!(error.contains(&place), "{error}, not {place}");
    assert_eq!(rows[1], "0/1 7919");
}

#[test]
fn a_file_that_is_not_there_is_told_before_any_is_read() {
    let folder = Folder::new("missing");
    let files = vec![folder.file("a.ndjson", b"1\n"), InputFile { path: "/none.csv".into(), format: FileFormat::Csv }];
    let error = FilesSource::open(&FilesSourceConfig { files, max_line_bytes: 10 }).expect_err("one is missing");
    assert_eq!(error.to_string(), "/none.csv can't be read: No such file or directory (os error 2)");
}

#[test]
fn a_csv_row_is_an_object_of_strings() {
    let seen = read(
        "good.csv",
        b"\xef\xbb\xbfid,\"na\"\"me\",note\r\n1,a,\r\n\n2,\"x, y\",\"two\r\nlines\"\n\"\",\"say \"\"hi\"\"\",\"\"\n\xc3\xa4,\\,\t",
        1 << 20,
    );
    assert_eq!(
        seen,
        [
            r#"0/1 {"id":"1","na\"me":"a","note":""}"#,
            r#"0/3 {"id":"2","na\"me":"x, y","note":"two\r\nlines"}"#,
            r#"0/5 {"id":"","na\"me":"say \"hi\"","note":""}"#,
            r#"0/6 {"id":"ä","na\"me":"\\","note":"\t"}"#,
        ]
    );
    assert_eq!(read("header.csv", b"a,b\n", 1 << 20), [""; 0]);
    assert_eq!(read("none.csv", b"", 1 << 20), [""; 0]);
    assert_eq!(read("end.csv", b"a,b\n1,\"2\"", 1 << 20), [r#"0/1 {"a":"1","b":"2"}"#]);
    assert_eq!(read("end2.csv", b"a,b\n1,\"2\"\r", 1 << 20), [r#"0/1 {"a":"1","b":"2"}"#]);
    assert_eq!(read("comma.csv", b"a,b\n1,", 1 << 20), [r#"0/1 {"a":"1","b":""}"#]);
}

#[test]
fn a_csv_row_that_does_not_fit_goes_on_as_it_is_and_costs_no_other() {
    let seen = read("bad.csv", b"a,b\n1\n1,2,3\n\"x\"y,2\n3,\"open\n4,5\n6,\xff\n7,8\n", 1 << 20);
    assert_eq!(
        seen,
        [
            "0/1 1 (the row has 1 columns, the header has 2)",
            "0/2 1,2,3 (the row has 3 columns, the header has 2)",
            "0/3 \"x\"y,2 (text follows a closing quote)",
            "0/4 3,\"open (a quoted field does not end)",
            r#"0/5 {"a":"4","b":"5"}"#,
            "0/6 6,\u{fffd} (the row is not UTF-8: invalid utf-8 sequence of 1 bytes from index 2)",
            r#"0/7 {"a":"7","b":"8"}"#,
        ]
    );
    let bounded = [b"a,b\n1,\"open\n".as_slice(), &b"2,3\n".repeat(100_000)].concat();
    let seen = read("bounded.csv", &bounded, 1_000);
    assert_eq!(seen.len(), 100_001);
    assert_eq!(seen[0], "0/1 1,\"open (the row does not end within the bound of a line; a quote may be missing)");
    assert_eq!(seen[100_000], r#"0/100001 {"a":"2","b":"3"}"#);
    let long = [b"a,b\n1,".as_slice(), &[b'x'; 300_000], b"\n2,3"].concat();
    let seen = read("long.csv", &long, 4);
    assert_eq!(
        seen,
        ["0/1 1,xx (the line has 300002 bytes, of which these are the first 4)", r#"0/2 {"a":"2","b":"3"}"#]
    );
}

#[test]
fn a_csv_header_that_is_none_is_an_error_with_its_file() {
    let seen = read("twice.csv", b"a,b,a\n1,2,3\n", 1 << 20);
    assert!(seen[0].ends_with("twice.csv: its first line is no CSV header: two columns are called `a`"), "{seen:?}");
}

#[test]
fn a_batch_keeps_to_its_bounds() {
    let folder = Folder::new("bounds");
    let file = folder.file("a.ndjson", &b"12345\n".repeat(10));
    let mut source = source(vec![file], 100);
    let sizes = |batch: Option<Batch>| batch.map(|batch| batch.rows.len());
    assert_eq!(sizes(source.next(3, 1_000).expect("readable")), Some(3));
    assert_eq!(sizes(source.next(1_000, 9).expect("readable")), Some(2));
    assert_eq!(sizes(source.next(1_000, 1_000).expect("readable")), Some(5));
    assert_eq!(sizes(source.next(1_000, 1_000).expect("readable")), None);
    assert_eq!(source.progress(), FilesProgress { files: 1, files_total: 1, records: 10 });
}

/// Bytes that come in portions of the given sizes, over and over.
struct Portions {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
    reads: usize,
}

impl Read for Portions {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.reads % self.sizes.len()].min(to.len()).min(self.bytes.len());
        self.reads += 1;
        // Now and then nothing is there yet, as with a pipe.
        if self.reads.is_multiple_of(3) && size > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        to[..size].copy_from_slice(&self.bytes[..size]);
        self.bytes.drain(..size);
        Ok(size)
    }
}

/// All rows of `bytes`, read in portions.
fn in_portions(bytes: &[u8], sizes: Vec<usize>, format: FileFormat) -> (Rows, u64) {
    let lines = LineReader::new(Box::new(Portions { bytes: bytes.to_vec(), sizes, reads: 0 }), 12);
    let mut reader = match format {
        FileFormat::Ndjson => RecordReader::Ndjson(lines),
        FileFormat::Csv => RecordReader::Csv(CsvReader::new(lines)),
    };
    let mut rows = Rows::default();
    while !matches!(reader.next(&mut rows), Ok(Next::End) | Err(_)) {}
    (rows, reader.line())
}

proptest::proptest! {
    /// Where one read ends and the next begins is nobody's business.
    #[test]
    fn rows_do_not_depend_on_how_the_bytes_come(
        text in "([ab1{}]|,|\"|\"\"|\n|\r\n|\u{e4}| |aaaaaaaaaaaaaaaa){0,60}",
        sizes in proptest::collection::vec(1_usize..9, 1..5),
    ) {
        for format in [FileFormat::Ndjson, FileFormat::Csv] {
            let bytes = format!("a,b\n{text}").into_bytes();
            let whole = in_portions(&bytes, vec![1 << 20], format);
            proptest::prop_assert_eq!(&in_portions(&bytes, sizes.clone(), format), &whole);
            let lines = bytes.split_inclusive(|&byte| byte == b'\n').count() as u64;
            proptest::prop_assert_eq!(whole.1, lines, "every line is passed");
            proptest::prop_assert!(whole.0.offsets.is_sorted());
        }
    }
}
