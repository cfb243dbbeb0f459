//! Which refusals a request can meet: with their status, each a [`Refusal`].

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::types::Refusal;

/// One refusal, by its name among the description's components.
fn component(set: &str, status: StatusCode) -> String {
    format!("{set}{}", status.as_str())
}

fn reference(set: &str, status: StatusCode) -> (String, RefOr<Response>) {
    (status.as_str().to_owned(), Ref::from_response_name(component(set, status)).into())
}

fn response(why: &str) -> RefOr<Response> {
    let content = Content::new(Some(Ref::from_schema_name(Refusal::name())));
    ResponseBuilder::new().description(why).content("application/json", content).build().into()
}

/// Sets of refusals, to be named among the responses of a path; and all of them, by their names.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident { $($status:ident: $why:literal,)+ })+) => {
        $(
            $(#[$doc])*
            pub(super) enum $name {}

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    BTreeMap::from([$(reference(stringify!($name), StatusCode::$status)),+])
                }
            }
        )+

        /// Every refusal, for the components of the description.
        pub(super) fn components() -> BTreeMap<String, RefOr<Response>> {
            BTreeMap::from([
                $($((component(stringify!($name), StatusCode::$status), response($why)),)+)+
            ])
        }
    };
}

refusals! {
    /// Of whatever takes parameters.
    BadRequest {
        BAD_REQUEST: "The request makes no sense: a parameter or header is not what is allowed",
    }
    /// Of whatever asks for something by its name or number.
    NotFound {
        NOT_FOUND: "It is not there",
    }
    /// Of every change.
    Guards {
        CONFLICT: "A guard refused the change, or something else needs what it would take away; nothing was applied",
        PRECONDITION_FAILED: "The generation of `If-Match` is not the present one; nothing was applied",
        INTERNAL_SERVER_ERROR: "A fault of the control side",
        SERVICE_UNAVAILABLE: "A worker does not say what the change would do to its connections; nothing was applied",
        INSUFFICIENT_STORAGE: "The store does not take the change; nothing was applied",
    }
    /// Of every request with a document.
    BadDocument {
        REQUEST_TIMEOUT: "The body does not come",
        SERVICE_UNAVAILABLE: "Other bodies take all memory, or a worker does not answer; nothing was applied",
        PAYLOAD_TOO_LARGE: "The body is longer than is allowed",
        UNPROCESSABLE_ENTITY: "What the body says is not allowed; nothing was applied",
    }
    /// Of questions that workers answer.
    Unanswered {
        INTERNAL_SERVER_ERROR: "A fault of the control side",
        SERVICE_UNAVAILABLE: "A worker does not answer",
    }
    /// Of whoever wants to watch packets.
    TooManyReaders {
        TOO_MANY_REQUESTS: "As many watch as may",
    }
    /// Of questions about what was decided.
    NoHistory {
        CONFLICT: "The configuration keeps no decisions",
        INTERNAL_SERVER_ERROR: "A fault of the control side",
    }
    /// Of all requests, over TCP with tokens.
    Unauthorized {
        UNAUTHORIZED: "No token, or an unknown one: only over TCP, where tokens are asked for",
        FORBIDDEN: "A page of another site asks, or the token may only look: only over TCP",
    }
}

/// The refusal's own schema, which the responses refer to.
pub(super) fn schemas() -> Vec<(String, RefOr<utoipa::openapi::Schema>)> {
    let mut schemas = vec![(Refusal::name().into_owned(), Refusal::schema())];
    Refusal::schemas(&mut schemas);
    schemas
}
