//! What proves to a sidecar that a command comes from the operator: the seam at which mutual TLS can take its place.
//!
//! Each hub has one random key, kept in the Secret `processhub-<hub>`, which its pods read as an environment variable.
//! A command carries the HMAC-SHA256 of the addressed pod's UID under that key, so that a token seen by one pod opens
//! no other.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use processhub_crds::ProcessHub;
use processhub_protocol::id::PodUid;
use sha2::Sha256;

use crate::assignments::HubKey;
use crate::call::{self, CallError};

/// Name of the entry of the Secret.
pub const KEY_ENTRY: &str = "key";
const KEY_BYTES: usize = 32;

/// Name of the Secret that holds a hub's key.
#[must_use]
pub fn secret_name(hub: &str) -> String {
    format!("processhub-{hub}")
}

/// A hub's key.
pub struct Key([u8; KEY_BYTES]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// The token for commands to this pod.
    #[must_use]
    pub fn token(&self, pod: &PodUid) -> String {
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            // HMAC takes keys of every length; an empty token is refused by every sidecar.
            return String::new();
        };
        hex(&mac.chain_update(pod.0.as_bytes()).finalize().into_bytes())
    }

    /// From the text of the Secret: 64 hexadecimal digits.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

/// The keys of all hubs, read or made on first use.
pub struct Credentials {
    client: Client,
    keys: Mutex<HashMap<HubKey, Known>>,
}

struct Known {
    /// UID of the hub that the Secret belongs to, as far as it says so.
    hub: Option<String>,
    key: Arc<Key>,
}

impl Known {
    /// Another hub of the same name has another key: this one goes with its Secret.
    fn is_of(&self, hub: &ProcessHub) -> bool {
        self.hub.is_none() || self.hub == hub.uid()
    }
}

impl Credentials {
    /// Reads and makes keys through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, keys: Mutex::default() }
    }

    /// The key of this very hub, if it was used before.
    #[must_use]
    pub fn known(&self, hub: &ProcessHub) -> Option<Arc<Key>> {
        let at = HubKey { namespace: hub.namespace().unwrap_or_default(), name: hub.name_any() };
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&at).filter(|known| known.is_of(hub)).map(|known| known.key.clone())
    }

    /// Forgets a key, because a sidecar refused it: the Secret may have been made again.
    pub fn forget(&self, hub: &HubKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(hub);
    }

    /// The key of this hub: read, or, where there is none, made and written down.
    ///
    /// # Errors
    /// Those of the API server; [`CallError::Missing`] where the Secret holds no key, or is that of a former hub of
    /// this name, with which it goes.
    pub async fn ensure(&self, hub: &ProcessHub) -> Result<Arc<Key>, CallError> {
        let at = HubKey { namespace: hub.namespace().unwrap_or_default(), name: hub.name_any() };
        self.forget(&at);
        if call::optional(self.read(&at).await)?.is_some() {
            return self.known(hub).ok_or_else(|| former(hub));
        }
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &at.namespace);
        match call::api("create key", secrets.create(&PostParams::default(), &fresh(hub)?)).await {
            // Or made by an operator that led a moment ago.
            Ok(_) | Err(CallError::Exists { .. }) => {
                self.read(&at).await?;
                self.known(hub).ok_or_else(|| former(hub))
            }
            Err(error) => Err(error),
        }
    }

    /// The key of a hub that may be gone already.
    ///
    /// # Errors
    /// Those of the API server, [`CallError::NotFound`] among them; [`CallError::Missing`] where the Secret holds no
    /// key.
    pub async fn read(&self, hub: &HubKey) -> Result<Arc<Key>, CallError> {
        if let Some(known) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(hub) {
            return Ok(known.key.clone());
        }
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &hub.namespace);
        let name = secret_name(&hub.name);
        let secret = call::api("read key", secrets.get(&name)).await?;
        let text = secret.data.as_ref().and_then(|data| data.get(KEY_ENTRY));
        let key = text.and_then(|text| Key::parse(&text.0)).ok_or_else(|| CallError::Missing {
            what: "read key",
            missing: format!("Secret {name} has no 64 hexadecimal digits under {KEY_ENTRY}; delete it"),
        })?;
        let key = Arc::new(key);
        let owner = secret.owner_references().iter().find(|owner| owner.kind == ProcessHub::kind(&()));
        let known = Known { hub: owner.map(|owner| owner.uid.clone()), key: key.clone() };
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(hub.clone(), known);
        Ok(key)
    }
}

fn former(hub: &ProcessHub) -> CallError {
    let name = secret_name(&hub.name_any());
    CallError::Missing {
        what: "read key",
        missing: format!("Secret {name} belongs to a former hub of this name and goes with it; or delete it"),
    }
}

fn fresh(hub: &ProcessHub) -> Result<Secret, CallError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|error| CallError::Missing { what: "create key", missing: error.to_string() })?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&hub.name_any())),
            namespace: hub.namespace(),
            owner_references: hub.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some([(KEY_ENTRY.to_owned(), ByteString(hex(&key).into_bytes()))].into()),
        ..Secret::default()
    })
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // infallible: writing to a String
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_the_hmac_of_the_pods_uid_under_the_hubs_key() {
        let key = Key::parse("0b".repeat(32).as_bytes()).unwrap();
        // printf '%s' 'Hi There' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b...0b
        assert_eq!(
            key.token(&"Hi There".into()),
            "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7"
        );
        assert_ne!(key.token(&"a".into()), key.token(&"b".into()));
    }

    #[test]
    fn a_key_is_not_that_of_another_hub_of_the_same_name() {
        let mut hub = ProcessHub::default();
        hub.metadata.uid = Some("new".into());
        let of =
            |hub: Option<&str>| Known { hub: hub.map(str::to_owned), key: Arc::new(Key([0; KEY_BYTES])) };
        assert!(of(Some("new")).is_of(&hub) && of(None).is_of(&hub));
        assert!(!of(Some("old")).is_of(&hub));
    }

    #[test]
    fn a_fresh_key_reads_back_and_is_never_shown() {
        let secret = fresh(&ProcessHub::default()).unwrap();
        let key = Key::parse(&secret.data.unwrap()[KEY_ENTRY].0).unwrap();
        assert_eq!(format!("{key:?}"), "Key(secret)");
        for bad in ["", "zz", &"0b".repeat(31), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(Key::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
