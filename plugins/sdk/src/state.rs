//! What an aggregate keeps of the rows that it folded, as bytes and back.

use std::collections::{BTreeMap, BTreeSet};

use crate::Timestamp;

/// A value that a state is made of; `#[derive(State)]` makes a struct one whose fields are.
///
/// The form is compact and always the same for the same value: numbers take as many bytes as they need, a map is in the
/// order of its keys. It holds no names and no types, so that a struct whose fields change needs a new version of the
/// state, in `#[aggregate(version = 2, migrates = [1])]`.
///
/// ```
/// use millstream_sdk::State;
///
/// #[derive(State, Default, Debug, PartialEq)]
/// struct Totals {
///     count: u64,
///     largest: Option<f64>,
///     countries: std::collections::BTreeSet<String>,
/// }
///
/// let totals = Totals { count: 3, largest: Some(2.5), countries: ["AT".to_owned()].into() };
/// assert_eq!(Totals::from_bytes(&totals.to_bytes()), Some(totals));
/// ```
///
/// ```compile_fail
/// #[derive(millstream_sdk::State)]
/// struct Totals {
///     countries: std::collections::HashSet<String>, // Its order differs from run to run; a BTreeSet's does not.
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be part of a state",
    label = "not a type of states",
    note = "use bool, an integer, f64, String, Timestamp, Vec<u8>; an Option, Vec, BTreeMap, BTreeSet or tuple of them; \
            or a struct that derives State"
)]
pub trait State: Sized {
    /// Appends the value's bytes.
    fn put(&self, to: &mut Vec<u8>);

    /// Takes a value off the front of `from`; `None` where there is none.
    fn take(from: &mut &[u8]) -> Option<Self>;

    /// All bytes of the value.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        bytes
    }

    /// The value that has exactly these bytes.
    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        Self::take(&mut bytes).filter(|_| bytes.is_empty())
    }
}

impl State for bool {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl State for u8 {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(*self);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (first, rest) = from.split_first()?;
        *from = rest;
        Some(*first)
    }
}

/// Seven bits a byte, the lowest first; the eighth says that there are more.
impl State for u64 {
    #[inline]
    fn put(&self, to: &mut Vec<u8>) {
        let mut left = *self;
        while left >= 0x80 {
            to.push(left as u8 | 0x80);
            left >>= 7;
        }
        to.push(left as u8);
    }

    #[inline]
    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u8::take(from)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Small whether negative or not: 0, -1, 1, -2 and so on.
impl State for i64 {
    #[inline]
    fn put(&self, to: &mut Vec<u8>) {
        ((self << 1) ^ (self >> 63)).cast_unsigned().put(to);
    }

    #[inline]
    fn take(from: &mut &[u8]) -> Option<Self> {
        let folded = u64::take(from)?;
        Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }
}

/// A smaller integer, which goes as a larger one.
macro_rules! small {
    ($($type:ty as $large:ty),*) => {$(
        impl State for $type {
            fn put(&self, to: &mut Vec<u8>) {
                <$large>::from(*self).put(to);
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                <$large>::take(from)?.try_into().ok()
            }
        }
    )*};
}
small!(u16 as u64, u32 as u64, i32 as i64);

impl State for f64 {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_le_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(Self::from_le_bytes(*bytes))
    }
}

impl State for Timestamp {
    fn put(&self, to: &mut Vec<u8>) {
        self.micros().put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        i64::take(from).map(Self::from_micros)
    }
}

impl State for String {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u64).put(to);
        to.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::take(from)?).ok()?;
        let (bytes, rest) = from.split_at_checked(length)?;
        *from = rest;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl<T: State> State for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

/// The number of items, and all of them.
fn put_all<'i, T: State + 'i>(items: impl ExactSizeIterator<Item = &'i T>, to: &mut Vec<u8>) {
    (items.len() as u64).put(to);
    items.for_each(|item| item.put(to));
}

/// As many items as there are said to be; their number is not trusted with memory.
fn take_all<T: State, C: Extend<T> + Default>(from: &mut &[u8]) -> Option<C> {
    let count = u64::take(from)?;
    let mut all = C::default();
    for _ in 0..count {
        // Items without bytes could be any number of them.
        if from.is_empty() && size_of::<T>() > 0 {
            return None;
        }
        all.extend([T::take(from)?]);
    }
    Some(all)
}

impl<T: State> State for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        put_all(self.iter(), to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        take_all(from)
    }
}

impl<T: State + Ord> State for BTreeSet<T> {
    fn put(&self, to: &mut Vec<u8>) {
        put_all(self.iter(), to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        take_all(from)
    }
}

impl<K: State + Ord, V: State> State for BTreeMap<K, V> {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u64).put(to);
        for (key, value) in self {
            key.put(to);
            value.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        take_all::<(K, V), _>(from)
    }
}

/// Values one behind the other.
macro_rules! tuple {
    ($($name:ident),+) => {
        impl<$($name: State),+> State for ($($name,)+) {
            #[allow(non_snake_case)]
            fn put(&self, to: &mut Vec<u8>) {
                let ($($name,)+) = self;
                $($name.put(to);)+
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(($($name::take(from)?,)+))
            }
        }
    };
}
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
