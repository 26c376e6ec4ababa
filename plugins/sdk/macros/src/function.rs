//! The attribute: `#[plugin]`.

use proc_macro::{Ident, TokenStream, TokenTree};

use crate::Wrong;
use crate::parse::{self, Function};
use crate::template::fill;

/// What stands beside the function: a `Transform`, and the component's exports.
pub(crate) fn plugin(options: TokenStream, item: TokenStream) -> Result<TokenStream, Wrong> {
    let tombstones = tombstones(options)?;
    let function = parse::function(item)?;
    let (config, row, outputs) = parameters(&function)?;
    let call = match (config.is_some(), outputs.is_some()) {
        (true, true) => "FUNCTION(&self.0, row, emit)",
        (true, false) => "FUNCTION(&self.0, row)",
        (false, true) => "FUNCTION(row, emit)",
        (false, false) => "FUNCTION(row)",
    };
    let name = function.name.to_string();
    let returns = if function.returns.is_empty() { fill("()", &[]) } else { function.returns };
    let gaps = [
        ("PLUGIN", TokenTree::from(Ident::new(&format!("{}Plugin", camel(&name)), function.name.span())).into()),
        ("VISIBILITY", function.visibility),
        ("CONFIG", config.unwrap_or_else(|| fill("()", &[]))),
        ("GENERICS", function.generics),
        ("ROW", row),
        ("RETURNS", returns),
        ("OUTPUTS", outputs.unwrap_or_else(|| fill("::millstream_sdk::NoOutputs", &[]))),
        ("TOMBSTONES", fill(if tombstones { "true" } else { "false" }, &[])),
        ("CALL", fill(call, &[("FUNCTION", TokenTree::from(function.name).into())])),
    ];
    Ok(fill(TEMPLATE, &gaps))
}

const TEMPLATE: &str = "
    /// The plugin that the function makes.
    #[allow(missing_debug_implementations)]
    VISIBILITY struct PLUGIN(CONFIG);

    #[automatically_derived]
    impl ::millstream_sdk::ConfigValue for PLUGIN {
        fn from_json(value: &::millstream_sdk::json::Value) -> ::core::result::Result<Self, ::std::string::String> {
            <CONFIG as ::millstream_sdk::ConfigValue>::from_json(value).map(Self)
        }
    }

    #[automatically_derived]
    impl ::millstream_sdk::Transform for PLUGIN {
        fn describe(&self) -> ::millstream_sdk::Descriptor {
            fn describe<GENERICS>() -> ::millstream_sdk::Descriptor {
                ::millstream_sdk::describe_rows::<ROW, RETURNS, OUTPUTS>(
                    env!(\"CARGO_PKG_NAME\"),
                    env!(\"CARGO_PKG_VERSION\"),
                )
            }
            let mut descriptor = describe();
            descriptor.tombstones = TOMBSTONES;
            descriptor
        }

        fn process(&self, rows: &::millstream_sdk::Rows, output: &mut ::millstream_sdk::Output) {
            ::millstream_sdk::each_row(
                rows,
                output,
                |row, emit: &mut ::millstream_sdk::Emit<'_, OUTPUTS>| {
                    let _ = &emit;
                    CALL
                },
            );
        }
    }

    ::millstream_sdk::export!(PLUGIN);
";

fn tombstones(options: TokenStream) -> Result<bool, Wrong> {
    let options: Vec<TokenTree> = options.into_iter().collect();
    match options.as_slice() {
        [] => Ok(false),
        [word] if word.to_string() == "tombstones" => Ok(true),
        [first, ..] => Err(Wrong::at(first.span(), "the only option is #[plugin(tombstones)]")),
    }
}

/// Types of the configuration, the row, and the outputs that records are emitted to.
type Parameters = (Option<TokenStream>, TokenStream, Option<TokenStream>);

fn parameters(function: &Function) -> Result<Parameters, Wrong> {
    let mut config = None;
    let mut row = None;
    let mut outputs = None;
    for ty in &function.parameters {
        let tokens: Vec<TokenTree> = ty.clone().into_iter().collect();
        let borrowed = matches!(tokens.first(), Some(TokenTree::Punct(and)) if and.as_char() == '&');
        let mutable = tokens.iter().take(4).any(|token| token.to_string() == "mut");
        match (borrowed, mutable) {
            (true, true) if row.is_some() && outputs.is_none() => outputs = Some(last_argument(&tokens)?),
            (true, false) if row.is_none() && config.is_none() => config = Some(without_reference(&tokens)),
            (false, _) if row.is_none() => row = Some(ty.clone()),
            _ => return Err(shape(function)),
        }
    }
    row.map(|row| (config, row, outputs)).ok_or_else(|| shape(function))
}

fn shape(function: &Function) -> Wrong {
    let message = "a plugin's function is fn name(config: &Config, row: In<'_>, emit: &mut Emit<'_, Side>) -> …, of which \
                   config and emit may be left out";
    Wrong::at(function.name.span(), message)
}

/// `Config` of `&Config` and `&'a Config`.
fn without_reference(tokens: &[TokenTree]) -> TokenStream {
    let lifetime = matches!(tokens.get(1), Some(TokenTree::Punct(tick)) if tick.as_char() == '\'');
    tokens.iter().skip(if lifetime { 3 } else { 1 }).cloned().collect()
}

/// `Side` of `&mut Emit<'_, Side>`.
fn last_argument(tokens: &[TokenTree]) -> Result<TokenStream, Wrong> {
    let open = tokens.iter().position(|token| token.to_string() == "<").unwrap_or(tokens.len());
    let inner = tokens.iter().skip(open + 1).take(tokens.len().saturating_sub(open + 2)).cloned();
    let span = tokens[0].span();
    parse::split(inner.collect()).pop().ok_or_else(|| Wrong::at(span, "expected &mut Emit<'_, Side>"))
}

fn camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.trim_start_matches("r#").split('_') {
        let mut chars = word.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(chars.as_str());
    }
    out
}
