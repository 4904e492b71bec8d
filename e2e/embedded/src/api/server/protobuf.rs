//! The few messages that kubectl sends as protobuf whatever the server offers: those of `create` and of `drain`.

use crate::api::error::{ApiError, Result};
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

/// How a field becomes JSON.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Texts,
    Number,
    TextMap,
    BytesMap,
    Message(&'static [Field]),
}

type Field = (u64, &'static str, Shape);

const META: &[Field] = &[
    (1, "name", Shape::Text),
    (2, "generateName", Shape::Text),
    (3, "namespace", Shape::Text),
    (11, "labels", Shape::TextMap),
    (12, "annotations", Shape::TextMap),
];
const PRECONDITIONS: &[Field] = &[(1, "uid", Shape::Text), (2, "resourceVersion", Shape::Text)];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Shape::Number),
    (2, "preconditions", Shape::Message(PRECONDITIONS)),
    (4, "propagationPolicy", Shape::Text),
    (5, "dryRun", Shape::Texts),
];
const EVICTION: &[Field] =
    &[(1, "metadata", Shape::Message(META)), (2, "deleteOptions", Shape::Message(DELETE_OPTIONS))];
const META_ONLY: &[Field] = &[(1, "metadata", Shape::Message(META))];
const SECRET: &[Field] =
    &[(1, "metadata", Shape::Message(META)), (2, "data", Shape::BytesMap), (3, "type", Shape::Text)];
const CONFIG_MAP: &[Field] = &[(1, "metadata", Shape::Message(META)), (2, "data", Shape::TextMap)];
const ENVELOPE: &[Field] =
    &[(1, "type", Shape::Message(&[(1, "apiVersion", Shape::Text), (2, "kind", Shape::Text)]))];

/// Whether a body is in Kubernetes' protobuf envelope.
pub fn is_envelope(body: &[u8]) -> bool {
    body.starts_with(b"k8s\0")
}

/// The object in an envelope.
///
/// # Errors
/// 400 for bytes that are no such message, or a kind that is not known here; the remedy is in the message.
pub fn decode(body: &[u8]) -> Result<Value> {
    let broken = || ApiError::bad_request("the protobuf body of the request is cut short");
    let envelope = body.strip_prefix(b"k8s\0").ok_or_else(broken)?;
    let head = message(envelope, ENVELOPE).ok_or_else(broken)?;
    let kind = head["type"]["kind"].as_str().unwrap_or_default();
    let fields = match kind {
        "Eviction" => EVICTION,
        "DeleteOptions" => DELETE_OPTIONS,
        "Namespace" | "ServiceAccount" => META_ONLY,
        "Secret" => SECRET,
        "ConfigMap" => CONFIG_MAP,
        other => {
            return Err(ApiError::bad_request(format!(
                "protobuf bodies of kind {other:?} are not understood here: send JSON, for example with `kubectl apply`"
            )));
        }
    };
    let raw = entries(envelope).ok_or_else(broken)?.into_iter().find_map(|(number, part)| match part {
        Part::Bytes(bytes) if number == 2 => Some(bytes),
        _ => None,
    });
    let mut object = message(raw.unwrap_or_default(), fields).ok_or_else(broken)?;
    if kind != "DeleteOptions" {
        object["apiVersion"] = head["type"]["apiVersion"].clone();
        object["kind"] = kind.into();
    }
    Ok(object)
}

enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn entries(mut bytes: &[u8]) -> Option<Vec<(u64, Part<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, Part::Number(varint(&mut bytes)?)));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (part, rest) = bytes.split_at_checked(length)?;
        found.push((tag >> 3, Part::Bytes(part)));
        bytes = rest;
    }
    Some(found)
}

fn message(bytes: &[u8], fields: &[Field]) -> Option<Value> {
    let mut object = json!({});
    for (number, part) in entries(bytes)? {
        let Some((_, name, shape)) = fields.iter().find(|(n, _, _)| *n == number) else { continue };
        match (shape, part) {
            (Shape::Number, Part::Number(value)) => object[*name] = value.into(),
            (Shape::Message(fields), Part::Bytes(bytes)) => object[*name] = message(bytes, fields)?,
            // The encoder writes empty texts too; they mean that the field is not set.
            (Shape::Text, Part::Bytes([])) => {}
            (Shape::Text, Part::Bytes(bytes)) => object[*name] = std::str::from_utf8(bytes).ok()?.into(),
            (Shape::Texts, Part::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).ok()?;
                match &mut object[*name] {
                    Value::Array(list) => list.push(text.into()),
                    slot => *slot = json!([text]),
                }
            }
            (Shape::TextMap | Shape::BytesMap, Part::Bytes(bytes)) => {
                let (key, value) = pair(bytes)?;
                let value = match shape {
                    Shape::BytesMap => json!(ByteString(value.to_vec())),
                    _ => std::str::from_utf8(value).ok()?.into(),
                };
                if !object[*name].is_object() {
                    object[*name] = Value::Object(Map::new());
                }
                object[*name][key] = value;
            }
            _ => return None,
        }
    }
    Some(object)
}

fn pair(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for (number, part) in entries(bytes)? {
        match (number, part) {
            (1, Part::Bytes(bytes)) => key = bytes,
            (2, Part::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((std::str::from_utf8(key).ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let head = [field(1, b"policy/v1"), field(2, kind.as_bytes())].concat();
        [b"k8s\0".to_vec(), field(1, &head), field(2, raw)].concat()
    }

    #[test]
    fn an_eviction_with_its_options() {
        let options = [&[1 << 3, 30][..], &field(2, &field(1, b"uid-1")), &field(5, b"All")].concat();
        let raw =
            [field(1, &[field(1, b"pod-a"), field(2, b""), field(3, b"d")].concat()), field(2, &options)];
        let decoded = decode(&envelope("Eviction", &raw.concat())).unwrap();
        assert_eq!(
            decoded,
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "pod-a", "namespace": "d"},
                "deleteOptions": {"gracePeriodSeconds": 30, "preconditions": {"uid": "uid-1"}, "dryRun": ["All"]}})
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(decode(&envelope("Deployment", b"")).unwrap_err().message.contains("Deployment"));
        assert!(decode(b"k8s\0\x0a\xff").is_err());
    }
}
