//! What the generated bindings lean on, in place of a crate: flags, memory for the host, nothing else.

use std::alloc::{Layout, alloc, dealloc, realloc};

/// A set of named bits.
macro_rules! flags {
    ($(#[$outer:meta])* pub struct $name:ident : $bits:ty { $(const $flag:ident = $value:expr;)* }) => {
        $(#[$outer])*
        pub struct $name($bits);

        impl $name {
            $(pub const $flag: Self = Self($value);)*

            pub const fn empty() -> Self {
                Self(0)
            }

            pub const fn from_bits_retain(bits: $bits) -> Self {
                Self(bits)
            }

            pub const fn bits(&self) -> $bits {
                self.0
            }

            pub const fn contains(&self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl ::core::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }
    };
}
pub(crate) use flags as bitflags;

/// Frees a list that the bindings had to allocate for the host, unless told to forget it.
#[derive(Debug)]
pub struct Cleanup {
    start: *mut u8,
    layout: Layout,
}

impl Cleanup {
    /// Memory of that layout, and its owner; none for an empty layout.
    #[allow(unsafe_code)]
    pub fn new(layout: Layout) -> (*mut u8, Option<Self>) {
        if layout.size() == 0 {
            return (std::ptr::without_provenance_mut(layout.align()), None);
        }
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        (start, Some(Self { start, layout }))
    }

    /// Leaves the memory to the host, which frees it by the export's post-return function.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Cleanup {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout, and nobody else owns it.
        unsafe { dealloc(self.start, self.layout) }
    }
}

/// Gives the host memory for its arguments: the canonical ABI's `cabi_realloc`.
///
/// # Safety
/// `start` must be null or of this allocator, with that length and alignment.
#[allow(unsafe_code)]
pub unsafe fn cabi_realloc(start: *mut u8, length: usize, align: usize, wanted: usize) -> *mut u8 {
    if wanted == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    let Ok(layout) = Layout::from_size_align(if length == 0 { wanted } else { length }, align) else {
        std::process::abort()
    };
    // SAFETY: the layout is not empty, and is that of `start` where there is one: the caller's promise.
    let memory = unsafe { if length == 0 { alloc(layout) } else { realloc(start, layout, wanted) } };
    if memory.is_null() {
        std::process::abort()
    }
    memory
}

/// The generated code asks for it; Rust has no constructors to run.
#[cfg(target_arch = "wasm32")]
pub fn run_ctors_once() {}

/// The generated code asks for it; [`crate::export`] exports `cabi_realloc` itself.
pub fn maybe_link_cabi_realloc() {}
