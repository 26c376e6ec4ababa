//! Code with gaps: a text of Rust in which some names stand for tokens.

use proc_macro::{Group, TokenStream, TokenTree};

/// The text as tokens, with those of `gaps` in place of the names that they go by.
///
/// Names of gaps are written in capitals: `NAME`, `TYPE`.
pub(crate) fn fill(text: &str, gaps: &[(&str, TokenStream)]) -> TokenStream {
    match text.parse::<TokenStream>() {
        Ok(tokens) => replace(tokens, gaps),
        Err(problem) => panic!("a template of the SDK is no Rust: {problem}: {text}"),
    }
}

fn replace(tokens: TokenStream, gaps: &[(&str, TokenStream)]) -> TokenStream {
    let mut out = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Group(group) => {
                let mut filled = Group::new(group.delimiter(), replace(group.stream(), gaps));
                filled.set_span(group.span());
                out.extend([TokenTree::from(filled)]);
            }
            // `'LIFE`: the name of a lifetime is a gap too, apostrophe and all.
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                match tokens.peek().and_then(|next| gap(next, gaps)) {
                    Some(lifetime) => {
                        tokens.next();
                        out.extend(lifetime);
                    }
                    None => out.extend([token]),
                }
            }
            _ => match gap(&token, gaps) {
                Some(tokens) => out.extend(tokens),
                None => out.extend([token]),
            },
        }
    }
    out
}

fn gap(token: &TokenTree, gaps: &[(&str, TokenStream)]) -> Option<TokenStream> {
    let TokenTree::Ident(ident) = token else { return None };
    let name = ident.to_string();
    gaps.iter().find(|(gap, _)| *gap == name).map(|(_, tokens)| tokens.clone())
}
