//! The contract as an OpenAPI document, from the routes that serve it. `UPDATE_GENERATED=1` rewrites the file.

use std::path::Path;

use processhub_protocol::contract;
use utoipa::OpenApi;

use crate::control;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ProcessHub worker contract",
        version = "1",
        description = "What the sidecar asks of a worker."
    ),
    paths(
        control::info,
        control::consent,
        control::suspend,
        control::resume,
        control::capture,
        control::read_part,
        control::delete_capture,
        control::put_part,
        control::apply,
        control::delete_import,
        control::change_code,
        control::activate,
    )
)]
struct Document;

#[test]
fn the_published_document_is_the_code_s() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi/worker.json");
    let generated = format!("{}\n", Document::openapi().to_pretty_json().unwrap());
    if std::env::var_os("UPDATE_GENERATED").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &generated).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == generated,
        "docs/openapi/worker.json is stale: run this test with UPDATE_GENERATED=1"
    );
}

#[test]
fn every_call_of_the_contract_is_in_the_document() {
    let document = Document::openapi();
    let paths: Vec<_> = document.paths.paths.keys().map(String::as_str).collect();
    for path in [
        contract::PATH_INFO,
        contract::PATH_SUSPEND,
        contract::PATH_RESUME,
        contract::PATH_CAPTURE,
        contract::PATH_ACTIVATE,
        contract::PATH_CONSENT,
        contract::PATH_CODE_CHANGE,
        "/v1/capture/{id}",
        "/v1/capture/{id}/{part}",
        "/v1/import/{id}",
        "/v1/import/{id}/{part}",
        "/v1/import/{id}/apply",
    ] {
        assert!(paths.contains(&path), "{path} of {paths:?}");
    }
    assert_eq!(paths.len(), 12);
    let text = serde_json::to_value(&document).unwrap();
    for (path, calls) in text["paths"].as_object().unwrap() {
        for call in calls.as_object().unwrap().values() {
            let mut answers = call["responses"].as_object().unwrap().values();
            assert!(answers.all(|answer| answer["description"].is_string()), "{path}");
        }
    }
}
