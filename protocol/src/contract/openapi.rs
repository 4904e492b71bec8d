//! Schemas of the types that have a form of their own on the wire.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{MAX_INTEGER, Name, PartName};
use crate::id::Epoch;

fn pattern(pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

impl PartialSchema for PartName {
    fn schema() -> RefOr<Schema> {
        pattern("^[a-z0-9._-]{1,63}$")
    }
}

impl ToSchema for PartName {}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        pattern("^[A-Za-z0-9_-]{1,64}$")
    }
}

impl ToSchema for Name {}

impl PartialSchema for Epoch {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(MAX_INTEGER))
            .description(Some("Counts changes of ownership of one process; 0 stands for none yet."))
            .into()
    }
}

impl ToSchema for Epoch {}
