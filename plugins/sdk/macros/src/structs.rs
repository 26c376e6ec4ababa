//! The derives: `Read`, `Write`, `Config`, `Outputs`.

use proc_macro::{Literal, TokenStream, TokenTree};

use crate::Wrong;
use crate::parse::{self, Attribute, Item, Member};
use crate::template::fill;

/// Where a field of the struct comes from, or goes.
enum Place {
    /// A field of the record: its path, and its encoding if the attribute has one.
    Field { path: TokenTree, encoding: TokenStream },
    /// A part of the record: `key`, `value`, `headers` or `timestamp`.
    Part(String),
    /// A column of a table, found by a field of the record.
    Joined { table: TokenTree, column: TokenTree, on: TokenTree, encoding: TokenStream },
    /// A column of a table, to be looked up.
    Lookup { table: TokenTree, column: TokenTree },
}

const PARTS: [&str; 4] = ["key", "value", "headers", "timestamp"];

fn place(member: &Member) -> Result<Place, Wrong> {
    let mut found = Vec::new();
    for attribute in &member.attributes {
        let name = attribute.name.to_string();
        if name == "field" {
            found.push(field(attribute)?);
        } else if PARTS.contains(&name.as_str()) {
            if let Some(argument) = attribute.arguments.first() {
                return Err(Wrong::at(argument.span(), format!("#[{name}] takes nothing")));
            }
            found.push(Place::Part(name));
        } else if name == "joined" {
            found.push(joined(attribute)?);
        } else if name == "lookup" {
            found.push(lookup(attribute)?);
        }
    }
    let wanted = "say where it stands, once: #[field(\"/path\")], #[key], #[value], #[headers] or #[timestamp]";
    match (found.pop(), found.is_empty()) {
        (Some(place), true) => Ok(place),
        _ => Err(Wrong::at(member.name.span(), wanted)),
    }
}

fn field(attribute: &Attribute) -> Result<Place, Wrong> {
    let (path, encoding) = match attribute.arguments.as_slice() {
        [path] => (path, None),
        [path, TokenTree::Punct(comma), encoding] if comma.as_char() == ',' => (path, Some(encoding)),
        _ => {
            return Err(Wrong::at(
                attribute.name.span(),
                "expected #[field(\"/path\")] or #[field(\"/path\", epoch_ms)]",
            ));
        }
    };
    check_path(path)?;
    let encoding = match encoding {
        None => fill("::core::option::Option::None", &[]),
        Some(word) => some_encoding(word)?,
    };
    Ok(Place::Field { path: path.clone(), encoding })
}

/// `#[joined("table", on = "/path", column = "/path")]`, with an encoding behind it where the column is a timestamp.
fn joined(attribute: &Attribute) -> Result<Place, Wrong> {
    let shape = "expected #[joined(\"table\", on = \"/field\", column = \"/column\")]";
    let wrong = || Wrong::at(attribute.name.span(), shape);
    let mut arguments = parse::split(attribute.arguments.iter().cloned().collect()).into_iter();
    let table: Vec<TokenTree> = arguments.next().ok_or_else(wrong)?.into_iter().collect();
    let [table] = table.as_slice() else { return Err(wrong()) };
    parse::string(table)?;
    let (mut on, mut column, mut encoding) = (None, None, fill("::core::option::Option::None", &[]));
    for argument in arguments {
        let argument: Vec<TokenTree> = argument.into_iter().collect();
        match argument.as_slice() {
            [TokenTree::Ident(name), TokenTree::Punct(equals), path] if equals.as_char() == '=' => {
                check_path(path)?;
                let place = match name.to_string().as_str() {
                    "on" => &mut on,
                    "column" => &mut column,
                    _ => return Err(Wrong::at(name.span(), shape)),
                };
                *place = Some(path.clone());
            }
            [word] => encoding = some_encoding(word)?,
            _ => return Err(wrong()),
        }
    }
    let (on, column) = (on.ok_or_else(wrong)?, column.ok_or_else(wrong)?);
    Ok(Place::Joined { table: table.clone(), column, on, encoding })
}

/// `#[lookup("table", "/path")]`
fn lookup(attribute: &Attribute) -> Result<Place, Wrong> {
    let [table, TokenTree::Punct(comma), column] = attribute.arguments.as_slice() else {
        return Err(Wrong::at(attribute.name.span(), "expected #[lookup(\"table\", \"/column\")]"));
    };
    if comma.as_char() != ',' {
        return Err(Wrong::at(comma.span(), "expected #[lookup(\"table\", \"/column\")]"));
    }
    parse::string(table)?;
    check_path(column)?;
    Ok(Place::Lookup { table: table.clone(), column: column.clone() })
}

fn some_encoding(word: &TokenTree) -> Result<TokenStream, Wrong> {
    let variant = encoding_variant(word)?;
    Ok(fill(&format!("::core::option::Option::Some(::millstream_sdk::TimestampEncoding::{variant})"), &[]))
}

/// RFC 6901: empty or `/…`, with `~0` and `~1` for `~` and `/`.
fn check_path(path: &TokenTree) -> Result<(), Wrong> {
    let text = parse::string(path)?;
    let escaped = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if (text.is_empty() || text.starts_with('/')) && escaped {
        return Ok(());
    }
    Err(Wrong::at(path.span(), "a path is a JSON Pointer: it begins with / and has ~0 for ~, ~1 for /"))
}

fn encoding_variant(word: &TokenTree) -> Result<&'static str, Wrong> {
    match word.to_string().as_str() {
        "rfc3339" => Ok("Rfc3339"),
        "epoch_s" => Ok("EpochS"),
        "epoch_ms" => Ok("EpochMs"),
        "epoch_us" => Ok("EpochUs"),
        "epoch_ns" => Ok("EpochNs"),
        _ => Err(Wrong::at(word.span(), "an encoding is rfc3339, epoch_s, epoch_ms, epoch_us or epoch_ns")),
    }
}

/// `Parts` of those names.
fn parts(places: &[Place]) -> TokenStream {
    let mut all = String::from("::millstream_sdk::Parts::empty()");
    for place in places {
        if let Place::Part(name) = place {
            all = format!("{all}.union(::millstream_sdk::Parts::{})", name.to_uppercase());
        }
    }
    fill(&all, &[])
}

fn number(number: usize) -> TokenStream {
    TokenTree::from(Literal::usize_unsuffixed(number)).into()
}

fn tokens(token: impl Into<TokenTree>) -> TokenStream {
    token.into().into()
}

/// The item's lifetime, or one of ours; and `<'a>` as it goes behind the item's name.
fn lifetimes(item: &Item) -> (TokenStream, TokenStream) {
    match &item.lifetime {
        Some(lifetime) => (lifetime.clone(), fill("<'LIFE>", &[("LIFE", lifetime.clone())])),
        None => (fill("'rows", &[]), TokenStream::new()),
    }
}

/// What `#[derive(Read)]` makes of the fields, one after the other.
#[derive(Default)]
struct ReadParts {
    types: TokenStream,
    specs: TokenStream,
    joins: TokenStream,
    lookups: TokenStream,
    made: TokenStream,
    taken: TokenStream,
}

impl ReadParts {
    /// Adds a column that the batch has at `column`.
    fn column(&mut self, gaps: &mut Vec<(&'static str, TokenStream)>, column: usize) {
        gaps.push(("FIELD", number(column)));
        self.types.extend(fill("<TYPE as ::millstream_sdk::ReadValue<'LIFE>>::Column,", gaps));
        self.made.extend(fill("rows.column::<TYPE>(FIELD),", gaps));
        let taken = "NAME: <TYPE as ::millstream_sdk::ReadValue<'LIFE>>::at(&columns.INDEX, row),";
        self.taken.extend(fill(taken, gaps));
    }
}

/// The type of a column that is read, and whether it must be there.
const TYPED: &str = "of_type: <TYPE as ::millstream_sdk::ReadValue<'LIFE>>::KIND.column_type(ENCODING),
                     required: <TYPE as ::millstream_sdk::ReadValue<'LIFE>>::REQUIRED,";

/// `#[derive(Read)]`.
pub(crate) fn read(item: TokenStream) -> Result<TokenStream, Wrong> {
    let item = parse::item(item, "struct")?;
    let places = item.members.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let (life, arguments) = lifetimes(&item);
    let mut all = ReadParts::default();
    // Joined columns stand behind those of all fields.
    let (mut fields, mut lookups) = (0, 0);
    let mut joins = places.iter().filter(|place| matches!(place, Place::Field { .. })).count();
    for (index, (member, place)) in item.members.iter().zip(&places).enumerate() {
        let mut gaps = vec![
            ("LIFE", life.clone()),
            ("NAME", tokens(member.name.clone())),
            ("TYPE", member.ty.clone()),
            ("INDEX", number(index)),
        ];
        match place {
            Place::Field { path, encoding } => {
                gaps.extend([("PATH", tokens(path.clone())), ("ENCODING", encoding.clone())]);
                let spec = format!("::millstream_sdk::FieldSpec {{ path: PATH, {TYPED} }},");
                all.specs.extend(fill(&spec, &gaps));
                all.column(&mut gaps, fields);
                fields += 1;
            }
            Place::Joined { table, column, on, encoding } => {
                gaps.extend([("TABLE", tokens(table.clone())), ("PATH", tokens(column.clone()))]);
                gaps.extend([("ON", tokens(on.clone())), ("ENCODING", encoding.clone())]);
                let column = "::millstream_sdk::LookupSpec { table: TABLE, path: PATH }";
                let spec = format!("::millstream_sdk::JoinSpec {{ column: {column}, on: ON, {TYPED} }},");
                all.joins.extend(fill(&spec, &gaps));
                all.column(&mut gaps, joins);
                joins += 1;
            }
            Place::Lookup { table, column } => {
                gaps.extend([("TABLE", tokens(table.clone())), ("PATH", tokens(column.clone()))]);
                gaps.push(("NUMBER", number(lookups)));
                all.lookups.extend(fill("::millstream_sdk::LookupSpec { table: TABLE, path: PATH },", &gaps));
                all.types.extend(fill("::millstream_sdk::Lookup<'LIFE>,", &gaps));
                all.made.extend(fill("::millstream_sdk::Lookup::host(NUMBER),", &gaps));
                all.taken.extend(fill("NAME: columns.INDEX,", &gaps));
                lookups += 1;
            }
            Place::Part(part) => {
                let (column, method) = part_column(part);
                all.types.extend(fill(&format!("::millstream_sdk::parts::{column}<'LIFE>,"), &gaps));
                all.made.extend(fill(&format!("rows.{method}(),"), &gaps));
                all.taken.extend(fill("NAME: columns.INDEX.at(row),", &gaps));
            }
        }
    }
    let ReadParts { types, specs, joins, lookups, made, taken } = all;
    let gaps = [
        ("LIFE", life),
        ("ITEM", tokens(item.name.clone())),
        ("ARGUMENTS", arguments),
        ("PARTS_READ", parts(&places)),
        ("TYPES", types),
        ("SPECS", specs),
        ("JOINED", joins),
        ("LOOKED_UP", lookups),
        ("MADE", made),
        ("TAKEN", taken),
    ];
    Ok(fill(READ_ROW, &gaps))
}

/// What `#[derive(Read)]` writes, with gaps.
const READ_ROW: &str = "#[automatically_derived]
    impl<'LIFE> ::millstream_sdk::ReadRow<'LIFE> for ITEM ARGUMENTS {
        type Columns = (TYPES);
        const FIELDS: &'static [::millstream_sdk::FieldSpec] = &[SPECS];
        const PARTS: ::millstream_sdk::Parts = PARTS_READ;
        const JOINS: &'static [::millstream_sdk::JoinSpec] = &[JOINED];
        const LOOKUPS: &'static [::millstream_sdk::LookupSpec] = &[LOOKED_UP];

        #[allow(clippy::unused_unit, unused_variables)]
        fn columns(rows: &'LIFE ::millstream_sdk::Rows) -> Self::Columns {
            (MADE)
        }

        #[inline]
        fn at(columns: &Self::Columns, row: usize) -> Self {
            Self { TAKEN }
        }
    }";

/// Type and maker of the column of a part.
fn part_column(part: &str) -> (&'static str, &'static str) {
    match part {
        "key" => ("Bytes", "keys"),
        "value" => ("Bytes", "values"),
        "headers" => ("AllHeaders", "headers"),
        _ => ("Timestamps", "timestamps"),
    }
}

/// `#[derive(Write)]`.
pub(crate) fn write(item: TokenStream) -> Result<TokenStream, Wrong> {
    let item = parse::item(item, "struct")?;
    let places = item.members.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let (life, arguments) = lifetimes(&item);
    let (mut specs, mut written) = (TokenStream::new(), TokenStream::new());
    let mut fields = 0;
    for (member, place) in item.members.iter().zip(&places) {
        let mut gaps = vec![("NAME", tokens(member.name.clone())), ("TYPE", member.ty.clone())];
        match place {
            Place::Field { path, encoding } => {
                gaps.extend([
                    ("PATH", tokens(path.clone())),
                    ("ENCODING", encoding.clone()),
                    ("FIELD", number(fields)),
                ]);
                specs.extend(fill(
                    "::millstream_sdk::FieldSpec {
                        path: PATH,
                        of_type: <TYPE as ::millstream_sdk::WriteCell>::KIND.column_type(ENCODING),
                        required: false,
                    },",
                    &gaps,
                ));
                written.extend(fill("to.field(FIELD, self.NAME);", &gaps));
                fields += 1;
            }
            Place::Part(part) => written.extend(fill(&format!("to.{part}(self.NAME);"), &gaps)),
            Place::Joined { table, .. } | Place::Lookup { table, .. } => {
                return Err(Wrong::at(table.span(), "tables are read, not written"));
            }
        }
    }
    let generics = if item.lifetime.is_some() { arguments.clone() } else { TokenStream::new() };
    let gaps = [
        ("LIFE", life),
        ("GENERICS", generics),
        ("ITEM", tokens(item.name.clone())),
        ("ARGUMENTS", arguments),
        ("PARTS_WRITTEN", parts(&places)),
        ("SPECS", specs),
        ("WRITTEN", written),
    ];
    Ok(fill(
        "#[automatically_derived]
        impl GENERICS ::millstream_sdk::WriteRow for ITEM ARGUMENTS {
            const FIELDS: &'static [::millstream_sdk::FieldSpec] = &[SPECS];
            const PARTS: ::millstream_sdk::Parts = PARTS_WRITTEN;

            #[inline]
            fn write(self, to: &mut ::millstream_sdk::RowWriter<'_>) {
                WRITTEN
            }
        }",
        &gaps,
    ))
}

/// `#[derive(Config)]`.
pub(crate) fn config(item: TokenStream) -> Result<TokenStream, Wrong> {
    let item = parse::item(item, "struct")?;
    if let Some(lifetime) = item.lifetime.and_then(|lifetime| lifetime.into_iter().next()) {
        return Err(Wrong::at(lifetime.span(), "a configuration owns its values"));
    }
    let (mut names, mut taken) = (TokenStream::new(), TokenStream::new());
    for member in &item.members {
        let name = member.name.to_string();
        let text = TokenTree::from(Literal::string(name.strip_prefix("r#").unwrap_or(&name)));
        let gaps = [
            ("NAME", tokens(member.name.clone())),
            ("TEXT", tokens(text)),
            ("TYPE", member.ty.clone()),
            ("DEFAULT", default(member)?),
        ];
        names.extend(fill("TEXT,", &gaps));
        taken.extend(fill("NAME: ::millstream_sdk::default_or_missing::<TYPE>(members, TEXT, DEFAULT)?,", &gaps));
    }
    Ok(fill(
        "#[automatically_derived]
        impl ::millstream_sdk::ConfigValue for ITEM {
            fn from_json(
                value: &::millstream_sdk::json::Value,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                let members = ::millstream_sdk::object(value, &[NAMES])?;
                let _ = members;
                ::core::result::Result::Ok(Self { TAKEN })
            }
        }",
        &[("ITEM", tokens(item.name)), ("NAMES", names), ("TAKEN", taken)],
    ))
}

fn default(member: &Member) -> Result<TokenStream, Wrong> {
    let Some(attribute) = member.attribute("config") else { return Ok(fill("::core::option::Option::None", &[])) };
    let value = match attribute.arguments.as_slice() {
        [TokenTree::Ident(word)] if word.to_string() == "default" => fill("::core::default::Default::default()", &[]),
        [TokenTree::Ident(word), TokenTree::Punct(equals), value @ ..]
            if word.to_string() == "default" && equals.as_char() == '=' && !value.is_empty() =>
        {
            value.iter().cloned().collect()
        }
        _ => return Err(Wrong::at(attribute.name.span(), "expected #[config(default)] or #[config(default = value)]")),
    };
    Ok(fill("::core::option::Option::Some(|| VALUE)", &[("VALUE", value)]))
}

/// `#[derive(State)]`.
pub(crate) fn state(item: TokenStream) -> Result<TokenStream, Wrong> {
    let item = parse::item(item, "struct")?;
    if let Some(lifetime) = item.lifetime.and_then(|lifetime| lifetime.into_iter().next()) {
        return Err(Wrong::at(lifetime.span(), "a state owns its values"));
    }
    let (mut put, mut taken) = (TokenStream::new(), TokenStream::new());
    for member in &item.members {
        let gaps = [("NAME", tokens(member.name.clone())), ("TYPE", member.ty.clone())];
        put.extend(fill("<TYPE as ::millstream_sdk::State>::put(&self.NAME, to);", &gaps));
        taken.extend(fill("NAME: <TYPE as ::millstream_sdk::State>::take(from)?,", &gaps));
    }
    Ok(fill(
        "#[automatically_derived]
        impl ::millstream_sdk::State for ITEM {
            fn put(&self, to: &mut ::std::vec::Vec<u8>) {
                let _ = &to;
                PUT
            }

            fn take(from: &mut &[u8]) -> ::core::option::Option<Self> {
                let _ = &from;
                ::core::option::Option::Some(Self { TAKEN })
            }
        }",
        &[("ITEM", tokens(item.name)), ("PUT", put), ("TAKEN", taken)],
    ))
}

/// `#[derive(Outputs)]`.
pub(crate) fn outputs(item: TokenStream) -> Result<TokenStream, Wrong> {
    let item = parse::item(item, "enum")?;
    let mut names = TokenStream::new();
    for member in &item.members {
        let name = match member.attribute("output").map(|attribute| attribute.arguments.as_slice()) {
            None => snake(&member.name.to_string()),
            Some([name]) => parse::string(name)?,
            Some(_) => return Err(Wrong::at(member.name.span(), "expected #[output(\"name\")]")),
        };
        names.extend(fill("TEXT,", &[("TEXT", tokens(Literal::string(&name)))]));
    }
    Ok(fill(
        "#[automatically_derived]
        impl ::millstream_sdk::Outputs for ITEM {
            const NAMES: &'static [&'static str] = &[NAMES_OF];

            fn index(self) -> u32 {
                self as u32
            }
        }

        #[automatically_derived]
        impl ::core::marker::Copy for ITEM {}

        #[automatically_derived]
        impl ::core::clone::Clone for ITEM {
            fn clone(&self) -> Self {
                *self
            }
        }",
        &[("ITEM", tokens(item.name)), ("NAMES_OF", names)],
    ))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for char in name.chars() {
        if char.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(char.to_lowercase());
    }
    out
}
