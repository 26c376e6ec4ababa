//! The derives and the attribute of `millstream-sdk`.
//!
//! They read the few shapes of Rust that a plugin is made of by themselves, so that a plugin builds without a registry.
//! Everything that they make is a [`template`] with the user's own tokens in it, so that the compiler's errors point at
//! the user's types.

mod aggregate;
mod function;
mod parse;
mod structs;
mod template;

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// What is wrong, and where.
struct Wrong {
    span: Span,
    message: String,
}

impl Wrong {
    fn at(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }

    /// The tokens of `compile_error!("…");`, all of them at the place that is wrong.
    fn tokens(self) -> TokenStream {
        let mut text = Literal::string(&self.message);
        text.set_span(self.span);
        let mut group = Group::new(Delimiter::Parenthesis, TokenTree::from(text).into());
        group.set_span(self.span);
        let punct = |char| {
            let mut punct = Punct::new(char, Spacing::Alone);
            punct.set_span(self.span);
            TokenTree::from(punct)
        };
        let name = TokenTree::from(Ident::new("compile_error", self.span));
        [name, punct('!'), group.into(), punct(';')].into_iter().collect()
    }
}

fn made(result: Result<TokenStream, Wrong>) -> TokenStream {
    result.unwrap_or_else(Wrong::tokens)
}

/// Makes `ReadRow` of a struct: `#[field("/path")]`, `#[field("/path", epoch_ms)]`, `#[key]`, `#[value]`, `#[headers]`,
/// `#[timestamp]`, `#[joined("table", on = "/path", column = "/path")]` or `#[lookup("table", "/path")]` on each of its fields.
#[proc_macro_derive(Read, attributes(field, joined, key, value, headers, lookup, timestamp))]
pub fn read(item: TokenStream) -> TokenStream {
    made(structs::read(item))
}

/// Makes `WriteRow` of a struct: `#[field("/path")]`, `#[field("/path", epoch_ms)]`, `#[key]`, `#[value]`, `#[headers]` or
/// `#[timestamp]` on each of its fields.
#[proc_macro_derive(Write, attributes(field, key, value, headers, timestamp))]
pub fn write(item: TokenStream) -> TokenStream {
    made(structs::write(item))
}

/// Makes `ConfigValue` of a struct: `#[config(default)]` and `#[config(default = expression)]` on fields that may be missing.
#[proc_macro_derive(Config, attributes(config))]
pub fn config(item: TokenStream) -> TokenStream {
    made(structs::config(item))
}

/// Makes `Outputs` of an enum of names: `LateOrders` is the output `late_orders`, unless `#[output("…")]` says otherwise.
#[proc_macro_derive(Outputs, attributes(output))]
pub fn outputs(item: TokenStream) -> TokenStream {
    made(structs::outputs(item))
}

/// Makes `State` of a struct whose fields are all states.
#[proc_macro_derive(State)]
pub fn state(item: TokenStream) -> TokenStream {
    made(structs::state(item))
}

/// Makes a plugin of an `impl Aggregate for …`: `#[aggregate(version = 2, migrates = [1])]` says which version its states
/// have, and which older ones it migrates.
#[proc_macro_attribute]
pub fn aggregate(options: TokenStream, item: TokenStream) -> TokenStream {
    aggregate::aggregate(options, item.clone()).unwrap_or_else(|wrong| {
        // The impl is kept, so that there is one error and not one more for each use.
        item.into_iter().chain(wrong.tokens()).collect()
    })
}

/// Makes a plugin of a function: `fn name(config: &Config, row: In<'_>, emit: &mut Emit<'_, Side>) -> …`, of which the
/// first and the last parameter may be left out.
///
/// The function stays as it is. Beside it stands a `Transform` by its name, such as `ValidatePlugin`, for tests.
/// `#[plugin(tombstones)]` asks for records without a value too.
#[proc_macro_attribute]
pub fn plugin(options: TokenStream, item: TokenStream) -> TokenStream {
    // The function is kept when something is wrong with it, so that there is one error and not one more for each use.
    let mut all = item.clone();
    all.extend(made(function::plugin(options, item)));
    all
}
