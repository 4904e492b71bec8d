//! Headers on their way through.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use processhub_protocol::contract::{HEADER_EPOCH, HEADER_PROCESS, HEADER_STATE};
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::TOKEN_HEADER;

/// Marks a request that a sealed source sent on; with the token of the pod that it is sent to.
pub(super) const FORWARDED: &str = "processhub-forwarded";
const PREFIX: &str = "processhub-";
/// What the kubelet's HTTP probes call themselves.
const PROBE: &str = "kube-probe/";

const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether this is a probe of the kubelet.
pub(super) fn is_probe(headers: &HeaderMap) -> bool {
    headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .is_some_and(|agent| agent.starts_with(PROBE))
}

/// Whether the client asks for another protocol on this connection.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE) && named(headers, "upgrade")
}

/// Whether the worker, or a successor that does not serve yet, said that it did not execute the request.
pub(super) fn not_executed(headers: &HeaderMap) -> bool {
    headers.contains_key(HEADER_STATE)
}

/// Removes what is meant for this connection alone, and every `ProcessHub-*`, which only sidecars may set.
pub(super) fn clean_request(headers: &mut HeaderMap, upgrade: bool) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // Chunked wins (RFC 9112, 6.1); both at once is an attempt to smuggle a request.
        headers.remove(header::CONTENT_LENGTH);
    }
    let protocol = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    clean_hop(headers);
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    // Answered here, as soon as the body is read.
    headers.remove(header::EXPECT);
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Removes what is meant for the connection to the worker alone.
pub(super) fn clean_response(headers: &mut HeaderMap, switched: bool) {
    let protocol = headers.get(header::UPGRADE).cloned().filter(|_| switched);
    clean_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// What the worker is told of its owner.
pub(super) fn for_worker(headers: &mut HeaderMap, process: &str, epoch: Epoch) {
    if let Ok(process) = HeaderValue::from_str(process) {
        headers.insert(HeaderName::from_static(HEADER_PROCESS), process);
    }
    headers.insert(HeaderName::from_static(HEADER_EPOCH), HeaderValue::from(epoch.0));
}

/// What shows the successor who sends this.
pub(super) fn for_successor(headers: &mut HeaderMap, token: &str) {
    headers.insert(HeaderName::from_static(FORWARDED), HeaderValue::from_static("1"));
    if let Ok(token) = HeaderValue::from_str(token) {
        headers.insert(HeaderName::from_static(TOKEN_HEADER), token);
    }
}

/// The client is to open a new connection for its next request.
pub(super) fn close(headers: &mut HeaderMap) {
    if !headers.contains_key(header::UPGRADE) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn clean_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

fn named(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn nobody_outside_sets_our_headers() {
        let mut seen = headers(&[
            ("processhub-epoch", "99"),
            ("processhub-forwarded", "1"),
            ("processhub-token", "00"),
            ("accept", "*/*"),
        ]);
        clean_request(&mut seen, false);
        for_worker(&mut seen, "cart-0", Epoch(7));
        assert_eq!(
            seen,
            headers(&[("accept", "*/*"), ("processhub-process", "cart-0"), ("processhub-epoch", "7")])
        );
    }

    #[test]
    fn what_is_meant_for_one_connection_stays_on_it() {
        let mut seen = headers(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-other", "1"),
        ]);
        clean_request(&mut seen, false);
        assert_eq!(seen, headers(&[("x-other", "1")]));
    }

    #[test]
    fn a_length_beside_chunks_is_dropped_and_a_lone_one_cannot_be() {
        let mut seen = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        clean_request(&mut seen, false);
        assert!(seen.is_empty());
        let mut seen =
            headers(&[("connection", "content-length, host"), ("content-length", "5"), ("host", "a")]);
        clean_request(&mut seen, false);
        assert_eq!(seen, headers(&[("content-length", "5"), ("host", "a")]));
    }

    #[test]
    fn an_upgrade_is_passed_on_as_one() {
        let mut seen = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert!(wants_upgrade(&seen));
        clean_request(&mut seen, true);
        assert_eq!(seen, headers(&[("upgrade", "websocket"), ("connection", "upgrade")]));
        assert!(!wants_upgrade(&headers(&[("upgrade", "websocket")])));
    }

    #[test]
    fn a_probe_is_known_by_its_agent() {
        assert!(is_probe(&headers(&[("user-agent", "kube-probe/1.35")])));
        assert!(!is_probe(&headers(&[("user-agent", "curl/8 kube-probe/")])));
    }
}
