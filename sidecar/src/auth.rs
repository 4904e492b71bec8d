//! The one place that decides who is calling, and what a caller shows: so that another identity can replace it.
//!
//! Operator and sidecars of one hub share the hub's key. A command carries the HMAC of the UID of the pod that it is
//! addressed to, so that what is sent to one pod is worth nothing at another. A sidecar of another hub, between which and
//! this one a process is transferred, has another key: what that one pod takes is told with its address.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use processhub_protocol::id::PodUid;
use processhub_protocol::wire::{Peer, TOKEN_HEADER};
use sha2::Sha256;

/// Who sent a request that was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The operator or another sidecar of the hub: both hold the key.
    Hub,
}

/// The hub's key. Its bytes are never shown.
#[derive(Clone)]
pub struct Credentials {
    mac: Hmac<Sha256>,
}

impl Credentials {
    /// From the key in hexadecimal; `None` unless it is at least 16 bytes.
    #[must_use]
    pub fn from_hex(key: &str) -> Option<Self> {
        let key = decode(key.trim())?;
        if key.len() < 16 {
            return None;
        }
        Some(Self { mac: Hmac::new_from_slice(&key).ok()? })
    }

    /// The token that a request to `pod` carries in [`TOKEN_HEADER`].
    #[must_use]
    pub fn for_pod(&self, pod: &PodUid) -> String {
        let mut mac = self.mac.clone();
        mac.update(pod.0.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The token that a request to this sidecar carries, whichever its hub.
    #[must_use]
    pub fn for_peer(&self, peer: &Peer) -> String {
        peer.token.as_ref().map_or_else(|| self.for_pod(&peer.pod), |token| token.0.clone())
    }

    /// Who sent a request with these headers to `pod`, which is this one. Compares in constant time.
    #[must_use]
    pub fn authenticate(&self, pod: &PodUid, headers: &HeaderMap) -> Option<Caller> {
        let token = decode(headers.get(TOKEN_HEADER)?.to_str().ok()?)?;
        let mut mac = self.mac.clone();
        mac.update(pod.0.as_bytes());
        mac.verify_slice(&token).ok().map(|()| Caller::Hub)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use processhub_protocol::wire::Token;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn a_token_is_good_for_its_pod_and_key_only() {
        let credentials = Credentials::from_hex(KEY).unwrap();
        let (mine, other) = (PodUid::from("a"), PodUid::from("b"));
        let mut headers = HeaderMap::new();
        assert_eq!(credentials.authenticate(&mine, &headers), None);
        headers.insert(TOKEN_HEADER, credentials.for_pod(&mine).parse().unwrap());
        assert_eq!(credentials.authenticate(&mine, &headers), Some(Caller::Hub));
        assert_eq!(credentials.authenticate(&other, &headers), None);
        let stranger = Credentials::from_hex("ffffffffffffffffffffffffffffffff").unwrap();
        assert_eq!(stranger.authenticate(&mine, &headers), None);
        for bad in ["", "0", "zz", &credentials.for_pod(&mine)[..62]] {
            headers.insert(TOKEN_HEADER, bad.parse().unwrap());
            assert_eq!(credentials.authenticate(&mine, &headers), None, "{bad}");
        }
    }

    #[test]
    fn a_sidecar_of_another_hub_is_shown_what_was_told_of_it() {
        let (ours, theirs) = (KEY, "ffffffffffffffffffffffffffffffff");
        let [ours, theirs] = [ours, theirs].map(|key| Credentials::from_hex(key).unwrap());
        let mut peer = Peer::of_this_hub("a".into(), "10.0.0.1".into(), 9710);
        assert_eq!(ours.for_peer(&peer), ours.for_pod(&peer.pod));
        peer.token = Some(Token(theirs.for_pod(&peer.pod)));
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_HEADER, ours.for_peer(&peer).parse().unwrap());
        assert_eq!(theirs.authenticate(&peer.pod, &headers), Some(Caller::Hub));
        assert_eq!(format!("{:?}", peer.token), "Some(Token)", "it is not shown");
    }

    #[test]
    fn a_short_or_malformed_key_is_refused() {
        for bad in ["", "00", "xyz", &KEY[..30]] {
            assert!(Credentials::from_hex(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_token_is_the_documented_hmac() {
        // Computed with: printf a | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102030405060708090a0b0c0d0e0f
        let token = Credentials::from_hex(KEY).unwrap().for_pod(&PodUid::from("a"));
        assert_eq!(token, GOLDEN);
    }

    const GOLDEN: &str = "c48c3eee999ca88165b7353de77e8b62961203f895542b3fbd742d2e419a35e3";
}
