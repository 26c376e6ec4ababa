//! Whether a component may be swapped in: a swap is code execution, sandboxed or not.

use crate::config::TrustConfig;
use crate::plugin::digest_of;

/// Checks a component before anything looks into it: it has a trusted digest, or a trusted key has signed its bytes
/// (Ed25519, RFC 8032). The error says what would help.
pub(super) fn check(trust: &TrustConfig, bytes: &[u8], signature: Option<&[u8]>) -> Result<(), String> {
    let digest = digest_of(bytes);
    if trust.digests.contains(&digest) {
        return Ok(());
    }
    let Some(signature) = signature else {
        return Err(format!("the digest {digest} is not in `swap.trust.digests`, and there is no signature"));
    };
    let signature = ed25519_compact::Signature::from_slice(signature)
        .map_err(|_| "the signature is no Ed25519 signature of 64 bytes".to_owned())?;
    let signed = |key: &[u8; 32]| ed25519_compact::PublicKey::new(*key).verify(bytes, &signature).is_ok();
    if trust.keys.iter().any(signed) {
        return Ok(());
    }
    Err(format!("the signature of {digest} is by none of `swap.trust.keys`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_compact::{KeyPair, Seed};

    #[test]
    fn a_digest_or_a_signature_by_a_trusted_key_is_enough_and_nothing_else() {
        let [ours, other] = [1, 2].map(|byte| KeyPair::from_seed(Seed::new([byte; 32])));
        let trust = TrustConfig { digests: vec![digest_of(b"known")], keys: vec![*ours.pk] };
        let sign = |pair: &KeyPair, bytes: &[u8]| pair.sk.sign(bytes, None).to_vec();
        check(&trust, b"known", None).expect("a trusted digest");
        check(&trust, b"new", Some(&sign(&ours, b"new"))).expect("a trusted key");
        for (bytes, signature) in [
            (&b"new"[..], None),
            (b"new", Some(sign(&other, b"new"))),
            (b"new", Some(sign(&ours, b"old"))),
            (b"new", Some(vec![0; 64])),
            (b"new", Some(Vec::new())),
        ] {
            check(&trust, bytes, signature.as_deref()).expect_err("not to be trusted");
        }
    }
}
