//! Requests as they go over the wire, and what is expected of the answers.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::time::Duration;

/// One case's conversation with a server, in a namespace of its own.
pub struct Talk {
    client: Client,
    namespace: String,
}

/// What a server answered.
pub struct Answer {
    request: String,
    code: u16,
    headers: HeaderMap,
    body: Value,
    lines: Vec<Value>,
}

impl Talk {
    /// Begins a case; the namespace must not exist.
    pub async fn begin(client: Client, case: &str) -> Self {
        let talk = Self { client, namespace: format!("conformance-{}", case.replace('_', "-")) };
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": talk.namespace}});
        talk.post("/api/v1/namespaces", namespace).await.is(201);
        talk
    }

    /// Ends the case.
    pub async fn end(self) {
        self.delete(&format!("/api/v1/namespaces/{}", self.namespace), json!({})).await;
    }

    /// The path of something in the case's namespace, for example `v1/pods` or `x.io/v1/things/a/status`.
    pub fn at(&self, place: &str) -> String {
        let (root, rest) = match place.strip_prefix("v1/") {
            Some(rest) => ("/api/v1".to_owned(), rest),
            None => {
                let mut parts = place.splitn(3, '/');
                let (group, version) = (parts.next().unwrap(), parts.next().unwrap());
                (format!("/apis/{group}/{version}"), parts.next().unwrap())
            }
        };
        format!("{root}/namespaces/{}/{rest}", self.namespace)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], Some(body.clone())).await
    }

    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        self.send(Method::DELETE, path, &[("content-type", "application/json")], Some(options)).await
    }

    /// `how`: json, merge, strategic-merge or apply.
    pub async fn patch(&self, how: &str, path: &str, body: Value) -> Answer {
        let content_type = match how {
            "apply" => "application/apply-patch+yaml".to_owned(),
            other => format!("application/{other}-patch+json"),
        };
        self.send(Method::PATCH, path, &[("content-type", &content_type)], Some(body)).await
    }

    /// Repeats a GET until its answer has the code.
    pub async fn until(&self, path: &str, code: u16) -> Answer {
        for _ in 0..600 {
            let answer = self.get(path).await;
            if answer.code == code {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("GET {path} never answered {code}");
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(method.clone()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = body.as_ref().map(Value::to_string).unwrap_or_default();
        let request = request.body(Body::from(sent.clone().into_bytes())).unwrap();
        let response = self.client.send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes: Bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        Answer {
            request: format!("{method} {path} {sent}"),
            code: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::String(text.into_owned())),
            lines,
        }
    }
}

impl Answer {
    /// Expects this HTTP status.
    #[track_caller]
    pub fn is(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{}\nanswered {}", self.request, self.body);
        self
    }

    /// Expects a refusal with this status and reason.
    #[track_caller]
    pub fn refused(self, code: u16, reason: &str) -> Self {
        self.is(code).has(json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code}))
    }

    /// Expects everything that `part` says; lists must be equal in length.
    #[track_caller]
    pub fn has(self, part: Value) -> Self {
        if let Err(path) = contains(&self.body, &part, "") {
            panic!("{}\nanswered {}\nbut {path} of {part} was expected", self.request, self.body);
        }
        self
    }

    /// Expects nothing at a JSON pointer.
    #[track_caller]
    pub fn lacks(self, pointer: &str) -> Self {
        assert_eq!(self.body.pointer(pointer), None, "{}\nanswered {}", self.request, self.body);
        self
    }

    /// Expects a text in the refusal's message.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        let message = self.body["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{}\nanswered {message:?}\nwithout {words:?}", self.request);
        self
    }

    /// The fields that the refusal names, in order.
    pub fn fields(&self) -> Vec<String> {
        let causes = self.body.pointer("/details/causes").and_then(Value::as_array);
        causes.into_iter().flatten().filter_map(|c| c["field"].as_str()).map(str::to_owned).collect()
    }

    /// The types of a watch's events.
    pub fn events(&self) -> Vec<String> {
        self.lines.iter().filter_map(|l| l["type"].as_str()).map(str::to_owned).collect()
    }

    /// A watch's events.
    pub fn lines(&self) -> &[Value] {
        &self.lines
    }

    /// The warnings in the header.
    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    }

    /// The body.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// A text of the body.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {}", self.body))
            .to_owned()
    }
}

fn contains(whole: &Value, part: &Value, path: &str) -> Result<(), String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().try_for_each(|(k, v)| {
            let path = format!("{path}/{k}");
            whole.get(k).map_or(Err(path.clone()), |w| contains(w, v, &path))
        }),
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => whole
            .iter()
            .zip(part)
            .enumerate()
            .try_for_each(|(i, (w, p))| contains(w, p, &format!("{path}/{i}"))),
        (whole, part) if whole == part => Ok(()),
        _ => Err(path.to_owned()),
    }
}
