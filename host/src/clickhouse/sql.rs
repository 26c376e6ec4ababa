//! Small parts of SQL, and of what is derived from it.

use sha2::{Digest, Sha256};

/// A name in backticks.
pub(super) fn name(text: &str) -> String {
    format!("`{}`", text.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A string in quotes.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The first 16 hexadecimal digits of the SHA-256 over `parts`, each after its length.
pub(super) fn short_digest(parts: &[&[u8]]) -> String {
    let mut digest = digest(parts);
    digest.truncate(16);
    digest
}

/// The SHA-256 over `parts`, each after its length, in hexadecimal digits. Servers remember it: it must never change.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(name(r"a`b\"), r"`a\`b\\`");
    }

    #[test]
    fn a_digest_tells_where_its_parts_end() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(short_digest(&[b"a"]).len(), 16);
    }

    #[test]
    fn a_digest_is_what_servers_remember() {
        let known = "8dde1de775d55d2f10283c17e31ab1decbdb1cd548bf18dc4121cd70553c8d91";
        assert_eq!(digest(&[b"CREATE TABLE t", b"SELECT 1"]), known);
    }
}
