//! The attribute: `#[aggregate]`.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

use crate::Wrong;
use crate::parse;
use crate::template::fill;

/// The impl with what the options say in it, and the component's exports beside it.
pub(crate) fn aggregate(options: TokenStream, item: TokenStream) -> Result<TokenStream, Wrong> {
    let (version, migrates) = versions(options)?;
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let ty = implementor(&tokens)?;
    let mut body = fill(CONSTANTS, &[("STATE", version), ("OLDER", migrates)]);
    if let Some(TokenTree::Group(group)) = tokens.pop() {
        body.extend(group.stream());
        let mut filled = Group::new(Delimiter::Brace, body);
        filled.set_span(group.span());
        tokens.push(filled.into());
    }
    let mut all: TokenStream = tokens.into_iter().collect();
    all.extend(fill("::millstream_sdk::export_aggregate!(TYPE);", &[("TYPE", ty)]));
    Ok(all)
}

const CONSTANTS: &str = "
    const NAME: &'static str = env!(\"CARGO_PKG_NAME\");
    const VERSION: &'static str = env!(\"CARGO_PKG_VERSION\");
    const STATE_VERSION: u32 = STATE;
    const MIGRATES_FROM: &'static [u32] = &[OLDER];
";

/// `version = 2` and, where it is there, what stands in `migrates = […]`.
fn versions(options: TokenStream) -> Result<(TokenStream, TokenStream), Wrong> {
    let (mut version, mut migrates) = (None, None);
    for option in parse::split(options) {
        let option: Vec<TokenTree> = option.into_iter().collect();
        match option.as_slice() {
            [name, TokenTree::Punct(equals), TokenTree::Literal(number)]
                if name.to_string() == "version" && equals.as_char() == '=' && version.is_none() =>
            {
                version = Some(TokenTree::from(number.clone()).into());
            }
            [name, TokenTree::Punct(equals), TokenTree::Group(list)]
                if name.to_string() == "migrates"
                    && equals.as_char() == '='
                    && list.delimiter() == Delimiter::Bracket
                    && migrates.is_none() =>
            {
                migrates = Some(list.stream());
            }
            _ => return Err(Wrong::at(option[0].span(), SHAPE)),
        }
    }
    let version = version.ok_or_else(|| Wrong::at(proc_macro::Span::call_site(), SHAPE))?;
    Ok((version, migrates.unwrap_or_default()))
}

const SHAPE: &str = "expected #[aggregate(version = 1)] or #[aggregate(version = 2, migrates = [1])]: the version of the \
                     states, and the older ones that `migrate` knows";

/// `Totals` of `impl Aggregate for Totals {…}`.
fn implementor(tokens: &[TokenTree]) -> Result<TokenStream, Wrong> {
    let wrong = |token: Option<&TokenTree>| {
        let span = token.map_or_else(proc_macro::Span::call_site, TokenTree::span);
        Wrong::at(span, "#[aggregate] stands above `impl Aggregate for` a type without parameters")
    };
    let word_at = |word: &str| {
        tokens.iter().position(|token| matches!(token, TokenTree::Ident(ident) if ident.to_string() == word))
    };
    let start = word_at("impl").ok_or_else(|| wrong(tokens.first()))?;
    if matches!(tokens.get(start + 1), Some(TokenTree::Punct(_))) {
        return Err(wrong(tokens.get(start + 1)));
    }
    let for_at = word_at("for").ok_or_else(|| wrong(tokens.get(start)))?;
    match tokens {
        [head @ .., TokenTree::Group(body)] if body.delimiter() == Delimiter::Brace && head.len() > for_at + 1 => {
            Ok(head[for_at + 1..].iter().cloned().collect())
        }
        _ => Err(wrong(tokens.get(for_at))),
    }
}
