//! Where a process has gone from a pod that it was forwarded to.

use http::{HeaderMap, HeaderName, HeaderValue};
use processhub_protocol::contract::HEADER_STATE;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::Peer;
use serde::{Deserialize, Serialize};

const HEADER: HeaderName = HeaderName::from_static("processhub-successor");

/// The successor of a successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Onward {
    /// The epoch at which it serves.
    pub(super) epoch: Epoch,
    /// Its sidecar.
    pub(super) to: Peer,
}

impl Onward {
    /// Says with a 503 that the request was not executed, and where it belongs.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static(HEADER_STATE), HeaderValue::from_static("Forwarding"));
        let text = serde_json::to_string(self).unwrap_or_default();
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(HEADER, value);
        }
    }

    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        serde_json::from_slice(headers.get(HEADER)?.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let to = Peer::of_this_hub("u".into(), "10.0.0.7".into(), 9710);
        let onward = Onward { epoch: Epoch(3), to };
        let mut headers = HeaderMap::new();
        assert_eq!(Onward::read(&headers), None);
        onward.write(&mut headers);
        assert_eq!(Onward::read(&headers), Some(onward));
        headers.insert(HEADER, HeaderValue::from_static("{"));
        assert_eq!(Onward::read(&headers), None);
    }
}
