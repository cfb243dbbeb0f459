//! The API's own description, made of the very routes that are served.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::IntoResponses;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, Header, InfoBuilder, LicenseBuilder, Object, OpenApi, OpenApiBuilder, PathItem, RefOr, Type,
};
use utoipa_axum::router::OpenApiRouter;

use super::refusals::{self, Unauthorized};
use super::{NOTICE, described};
use crate::live::Live;

/// Where it is served; the first is also among the others' paths.
const PATHS: [&str; 2] = ["/v1/openapi.json", "/openapi.json"];
/// The scheme of tokens, by its name in the description.
const BEARER: &str = "token";

/// The description as it is served and stands in `docs/openapi.json`: JSON, indented, with a newline at its end.
///
/// # Panics
/// Never: it holds nothing that JSON could not.
pub fn openapi() -> String {
    let (_, routes) = described().split_for_parts();
    text(&completed(routes))
}

fn text(description: &OpenApi) -> String {
    description.to_pretty_json().expect("texts, numbers, lists and mappings serialise") + "\n"
}

/// The routes with their description beside them.
pub(super) fn with_description(routes: OpenApiRouter<Live>) -> Router<Live> {
    let (router, description) = routes.split_for_parts();
    let text = text(&completed(description));
    PATHS.into_iter().fold(router, |router, path| {
        let text = text.clone();
        router.route(path, get(move || served(text)))
    })
}

/// This description
///
/// Also at `/openapi.json`.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "state", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn served(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// What all paths have in common.
fn completed(routes: OpenApi) -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Portcullis")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Changes of the policy in force, and what it does. Over the appliance's unix socket, and over TCP where \
             the configuration says so. Every refusal is one line of what was found and what is allowed.",
        ))
        .license(Some(license))
        .build();
    let mut description = OpenApiBuilder::new().info(info).build();
    description.merge(routes);
    let own: &PathItem =
        &PathItem::new(utoipa::openapi::HttpMethod::Get, <__path_served as utoipa::Path>::operation());
    description.paths.paths.insert(PATHS[0].to_owned(), own.clone());
    for operation in description.paths.paths.values_mut().flat_map(operations) {
        complete(operation);
    }
    let components = description.components.get_or_insert_with(Components::new);
    components.schemas.extend(refusals::schemas());
    components.responses.extend(refusals::components());
    components.add_security_scheme(BEARER, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    // Over the socket, and over TCP without tokens, nobody has to show one.
    let none = SecurityRequirement::default();
    description.security = Some(vec![none, SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    description
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

fn complete(operation: &mut Operation) {
    operation.responses.responses.extend(Unauthorized::responses());
    if let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200") {
        let mut notice = Header::new(Object::with_type(Type::String));
        notice.description = Some("Settings that are on and let pass what the defaults would not".to_owned());
        response.headers.insert(NOTICE.to_owned(), notice.into());
    }
}
