//! The shapes of Rust that the macros read: structs with named fields, enums of names, functions.

use std::iter::Peekable;

use proc_macro::token_stream::IntoIter;
use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use crate::Wrong;

/// `#[name]` or `#[name(arguments)]`.
pub(crate) struct Attribute {
    pub(crate) name: Ident,
    pub(crate) arguments: Vec<TokenTree>,
}

/// A field of a struct, or a variant of an enum (which has no type).
pub(crate) struct Member {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) name: Ident,
    pub(crate) ty: TokenStream,
}

impl Member {
    /// The attribute of that name.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name.to_string() == name)
    }
}

/// A struct with named fields, or an enum of names.
pub(crate) struct Item {
    pub(crate) name: Ident,
    /// `'a` of `struct In<'a>`.
    pub(crate) lifetime: Option<TokenStream>,
    pub(crate) members: Vec<Member>,
}

/// Reads an item of that kind: `struct` or `enum`.
pub(crate) fn item(tokens: TokenStream, kind: &str) -> Result<Item, Wrong> {
    let mut tokens = tokens.into_iter().peekable();
    attributes(&mut tokens)?;
    visibility(&mut tokens);
    let found = ident(&mut tokens, kind)?;
    if found.to_string() != kind {
        return Err(Wrong::at(
            found.span(),
            "this derive is for ".to_owned() + if kind == "enum" { "an enum" } else { "a struct" },
        ));
    }
    let name = ident(&mut tokens, "a name")?;
    let lifetime = lifetime(&mut tokens)?;
    match tokens.next() {
        Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
            let members = split(body.stream()).into_iter().map(|tokens| member(tokens, kind == "struct"));
            Ok(Item { name, lifetime, members: members.collect::<Result<_, _>>()? })
        }
        Some(TokenTree::Punct(semicolon)) if semicolon.as_char() == ';' => {
            Ok(Item { name, lifetime, members: Vec::new() })
        }
        other => Err(Wrong::at(other.map_or(name.span(), |token| token.span()), "this derive needs fields with names")),
    }
}

fn member(tokens: TokenStream, typed: bool) -> Result<Member, Wrong> {
    let mut tokens = tokens.into_iter().peekable();
    let attributes = attributes(&mut tokens)?;
    visibility(&mut tokens);
    let name = ident(&mut tokens, "a name")?;
    let next = tokens.next();
    if typed == matches!(&next, Some(TokenTree::Punct(colon)) if colon.as_char() == ':') && (typed || next.is_none()) {
        return Ok(Member { attributes, name, ty: tokens.collect() });
    }
    let wanted = if typed { "a field with a name and a type" } else { "a name without fields or value" };
    Err(Wrong::at(name.span(), format!("this derive needs {wanted}")))
}

/// A function's head.
pub(crate) struct Function {
    pub(crate) visibility: TokenStream,
    pub(crate) name: Ident,
    /// What stands between `<` and `>`.
    pub(crate) generics: TokenStream,
    /// The types of the parameters.
    pub(crate) parameters: Vec<TokenStream>,
    pub(crate) returns: TokenStream,
}

/// Reads the head of a function.
pub(crate) fn function(tokens: TokenStream) -> Result<Function, Wrong> {
    let mut tokens = tokens.into_iter().peekable();
    attributes(&mut tokens)?;
    let visibility = visibility(&mut tokens);
    let keyword = ident(&mut tokens, "a function")?;
    if keyword.to_string() != "fn" {
        return Err(Wrong::at(keyword.span(), "#[plugin] is for a plain function"));
    }
    let name = ident(&mut tokens, "a name")?;
    let generics = generics(&mut tokens);
    let Some(TokenTree::Group(list)) = tokens.next() else {
        return Err(Wrong::at(name.span(), "#[plugin] is for a plain function"));
    };
    let parameters = split(list.stream()).into_iter().map(parameter).collect::<Result<_, _>>()?;
    let mut returns = TokenStream::new();
    for token in tokens {
        match &token {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => break,
            TokenTree::Ident(word) if word.to_string() == "where" => break,
            _ => returns.extend([token]),
        }
    }
    // What is left begins with `->`.
    let returns = returns.into_iter().skip(2).collect();
    Ok(Function { visibility, name, generics, parameters, returns })
}

fn parameter(tokens: TokenStream) -> Result<TokenStream, Wrong> {
    let span = tokens.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
    let mut tokens = tokens.into_iter();
    for token in tokens.by_ref() {
        if matches!(&token, TokenTree::Punct(colon) if colon.as_char() == ':') {
            return Ok(tokens.collect());
        }
    }
    Err(Wrong::at(span, "#[plugin] is for a plain function, without self"))
}

type Tokens = Peekable<IntoIter>;

fn ident(tokens: &mut Tokens, what: &str) -> Result<Ident, Wrong> {
    match tokens.next() {
        Some(TokenTree::Ident(ident)) => Ok(ident),
        other => Err(Wrong::at(other.map_or_else(Span::call_site, |token| token.span()), format!("expected {what}"))),
    }
}

fn attributes(tokens: &mut Tokens) -> Result<Vec<Attribute>, Wrong> {
    let mut all = Vec::new();
    while matches!(tokens.peek(), Some(TokenTree::Punct(hash)) if hash.as_char() == '#') {
        tokens.next();
        let Some(TokenTree::Group(group)) = tokens.next() else { break };
        all.extend(attribute(&group));
    }
    Ok(all)
}

/// Attributes of other shapes (documentation, paths) are none of ours.
fn attribute(group: &Group) -> Option<Attribute> {
    let mut tokens = group.stream().into_iter();
    let Some(TokenTree::Ident(name)) = tokens.next() else { return None };
    match tokens.next() {
        None => Some(Attribute { name, arguments: Vec::new() }),
        Some(TokenTree::Group(arguments)) => {
            Some(Attribute { name, arguments: arguments.stream().into_iter().collect() })
        }
        Some(_) => None,
    }
}

fn visibility(tokens: &mut Tokens) -> TokenStream {
    let mut all = TokenStream::new();
    if matches!(tokens.peek(), Some(TokenTree::Ident(word)) if word.to_string() == "pub") {
        all.extend(tokens.next());
        if matches!(tokens.peek(), Some(TokenTree::Group(of)) if of.delimiter() == Delimiter::Parenthesis) {
            all.extend(tokens.next());
        }
    }
    all
}

fn generics(tokens: &mut Tokens) -> TokenStream {
    let mut all = TokenStream::new();
    if !matches!(tokens.peek(), Some(TokenTree::Punct(open)) if open.as_char() == '<') {
        return all;
    }
    let mut depth = 0;
    for token in tokens.by_ref() {
        depth += angle(&token);
        all.extend([token]);
        if depth == 0 {
            break;
        }
    }
    let inner = all.clone().into_iter().count().saturating_sub(2);
    all.into_iter().skip(1).take(inner).collect()
}

fn lifetime(tokens: &mut Tokens) -> Result<Option<TokenStream>, Wrong> {
    let found: Vec<TokenTree> = generics(tokens).into_iter().collect();
    match found.as_slice() {
        [] => Ok(None),
        [TokenTree::Punct(tick), TokenTree::Ident(_)] if tick.as_char() == '\'' => {
            Ok(Some(found.into_iter().collect()))
        }
        [first, ..] => Err(Wrong::at(first.span(), "this derive takes one lifetime and no other parameter")),
    }
}

/// Cuts at the commas that stand outside of `<…>`.
pub(crate) fn split(tokens: TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![Vec::new()];
    let mut depth = 0;
    let mut arrow = false;
    for token in tokens {
        // The `>` of `->` closes nothing.
        depth += if arrow { 0 } else { angle(&token) };
        arrow = matches!(&token, TokenTree::Punct(dash) if dash.as_char() == '-');
        match (&token, parts.last_mut()) {
            (TokenTree::Punct(comma), _) if comma.as_char() == ',' && depth == 0 => parts.push(Vec::new()),
            (_, Some(part)) => part.push(token),
            (_, None) => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.into_iter().map(|part| part.into_iter().collect()).collect()
}

fn angle(token: &TokenTree) -> i32 {
    match token {
        TokenTree::Punct(punct) if punct.as_char() == '<' => 1,
        TokenTree::Punct(punct) if punct.as_char() == '>' => -1,
        _ => 0,
    }
}

/// The text of a string literal without escapes, such as a path.
pub(crate) fn string(token: &TokenTree) -> Result<String, Wrong> {
    let text = token.to_string();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(text.into()),
        _ => Err(Wrong::at(token.span(), "expected a string in plain quotes, without escapes")),
    }
}
