//! The exports of the component.

use std::sync::OnceLock;

use crate::bindings::millstream::plugin::types::{Batch, Processed};
use crate::{Descriptor, Output, Rows, Transform};

/// A plugin that was started.
#[derive(Debug)]
pub struct Started<T> {
    plugin: T,
    descriptor: Descriptor,
}

/// The export `describe`.
pub fn describe<T: Transform>(config: &str) -> Result<Descriptor, String> {
    Ok(T::from_config(config)?.describe())
}

/// The export `start`.
pub fn start<T: Transform>(place: &OnceLock<Started<T>>, config: &str) -> Result<(), String> {
    log_panics();
    let plugin = T::from_config(config)?;
    let descriptor = plugin.describe();
    place.set(Started { plugin, descriptor }).map_err(|_| "the plugin was started twice".into())
}

/// The export `process`.
pub fn process<T: Transform>(place: &OnceLock<Started<T>>, batch: Batch) -> Processed {
    match place.get() {
        Some(Started { plugin, descriptor }) => run(plugin, descriptor, &Rows::new(batch)),
        None => panic!("the host calls start before process"),
    }
}

/// Processes rows, natively too.
pub fn run<T: Transform>(plugin: &T, descriptor: &Descriptor, rows: &Rows) -> Processed {
    let mut output = Output::new(descriptor, rows.len());
    plugin.process(rows, &mut output);
    output.finish(descriptor, rows)
}

/// A trap says where, in numbers; the message is lost unless it is logged first.
pub(crate) fn log_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
}

/// Makes a [`Transform`] the component's; `#[plugin]` does it for its function.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        // Natively there is no component, and the exports' names would meet those of other plugins.
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, missing_docs, unreachable_pub)]
        const _: () = {
            static STARTED: ::std::sync::OnceLock<$crate::guest::Started<$plugin>> = ::std::sync::OnceLock::new();

            struct Component;

            impl $crate::bindings::Guest for Component {
                fn describe(config: String) -> Result<$crate::Descriptor, String> {
                    $crate::guest::describe::<$plugin>(&config)
                }

                fn start(config: String) -> Result<(), String> {
                    $crate::guest::start(&STARTED, &config)
                }

                fn process(rows: $crate::bindings::Batch) -> $crate::bindings::Processed {
                    $crate::guest::process(&STARTED, rows)
                }
            }

    $crate::bindings::export_transform!(Component with_types_in $crate::bindings);

            // SAFETY: the host calls it as the canonical ABI says.
            #[unsafe(export_name = "cabi_realloc")]
            unsafe extern "C" fn cabi_realloc(start: *mut u8, length: usize, align: usize, wanted: usize) -> *mut u8 {
                unsafe { $crate::rt::cabi_realloc(start, length, align, wanted) }
            }
        };
    };
}
