//! Requests about single objects: each a change like any other, through the same engine, with the same receipt.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Json, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bad_request;
use super::body::Text;
use super::change::{ChangeRequest, EditQuery, IfMatch};
use super::documents::{DocumentFormat, document};
use super::refusals::{BadDocument, BadRequest, Guards, NotFound};
use super::schema::{AddressGroup, Document, NicDocument, Rule, SecurityGroup, Vpc};
use super::types::Receipt;
use super::{ApiError, POLICY};
use crate::document::absent;
use crate::document::{EditError, ObjectKey, Parsed, RuleEdit, RuleSelector, edit_rule, merge, put, remove};
use crate::export::export_object;
use crate::live::{ChangeRefused, Live, Target};
use crate::model::{Key, Policy};
use crate::name;

type ChangeResult = Result<Json<Receipt>, ApiError>;
/// What a path's parameters say.
type Asked<P> = Result<Path<P>, PathRejection>;

impl From<EditError> for ChangeRefused {
    fn from(error: EditError) -> ChangeRefused {
        match error {
            EditError::Bad(diagnostic) => ChangeRefused::Invalid(diagnostic.to_string()),
            EditError::NotFound(what) => ChangeRefused::NotFound(what),
            EditError::InUse(what) => ChangeRefused::InUse(what),
        }
    }
}

/// Their paths.
pub(super) fn routes() -> OpenApiRouter<Live> {
    OpenApiRouter::new()
        .routes(routes!(merge_document))
        .routes(routes!(vpcs::show, vpcs::set, vpcs::delete))
        .routes(routes!(address_groups::show, address_groups::set, address_groups::delete))
        .routes(routes!(security_groups::show, security_groups::set, security_groups::delete))
        .routes(routes!(nics::show, nics::set, nics::delete))
        .routes(routes!(add_rule))
        .routes(routes!(set_rule, delete_rule))
}

/// Names an object.
trait ObjectPath: Sized {
    fn key(self) -> Result<Key, ApiError>;

    /// The key of an extracted one.
    fn asked(path: Asked<Self>) -> Result<Key, ApiError> {
        path.map_err(|error| bad_request(error.body_text()))?.0.key()
    }
}

fn checked(what: &str, text: &str) -> Result<(), ApiError> {
    name::check(text).map_err(|why| bad_request(format!("{what}: {text:?} {why}; allowed: a name")))
}

/// A VPC's place. VPCs have no project.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct VpcPath {
    /// Its name.
    #[param(example = "web", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+$", min_length = 1, max_length = 255)]
    name: String,
}

impl ObjectPath for VpcPath {
    fn key(self) -> Result<Key, ApiError> {
        checked("name", &self.name)?;
        Ok(Key::in_default(self.name))
    }
}

fn vpc_key(key: Key) -> ObjectKey {
    ObjectKey::Vpc(key.name)
}

/// The place of an object in its project.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ProjectObjectPath {
    /// Its project.
    #[param(example = "default", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+$", min_length = 1, max_length = 255)]
    project: String,
    /// Its name.
    #[param(example = "web", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+$", min_length = 1, max_length = 255)]
    name: String,
}

impl ObjectPath for ProjectObjectPath {
    fn key(self) -> Result<Key, ApiError> {
        checked("project", &self.project)?;
        checked("name", &self.name)?;
        Ok(Key::new(self.project, self.name))
    }
}

impl ChangeRequest<EditQuery> {
    /// Makes the edit.
    async fn edit(
        self,
        edit: impl FnOnce(&Policy) -> Result<Parsed, EditError> + Send + 'static,
    ) -> ChangeResult {
        self.make(Target::Edited(Box::new(|present| Ok(edit(present)?)))).await
    }
}

/// Adds the objects of a document, or replaces those of their names
///
/// Nothing is removed.
#[utoipa::path(
    patch, path = POLICY, tag = "policy", params(EditQuery, IfMatch),
    request_body(content((Document = "application/json"), (Document = "application/yaml"))),
    responses((status = 200, description = "What became of it", body = Receipt), BadRequest, Guards, BadDocument)
)]
async fn merge_document(wish: ChangeRequest<EditQuery>, Text(text): Text) -> ChangeResult {
    let limits = wish.live.config().policy.limits;
    wish.edit(move |present| merge(present, &text, "document", &limits)).await
}

fn shown(live: &Live, object: &ObjectKey, written: DocumentFormat) -> Result<Response, ApiError> {
    let (policy, generation) = live.policy_and_generation();
    let text =
        export_object(&policy, object).ok_or_else(|| ChangeRefused::NotFound(absent(&policy, object)))?;
    Ok(document(text, generation, written))
}

/// One kind of objects: shown, set and deleted under one path.
macro_rules! objects {
    ($module:ident, $path:literal, $what:literal, $place:ident, $written:ident, $key:expr) => {
        mod $module {
            use super::*;

            #[utoipa::path(
                get, path = $path, tag = "objects", operation_id = concat!("show_", stringify!($module)),
                summary = concat!("One ", $what, ", as it stands in a document"), params($place),
                responses(
                    (
                        status = 200, description = "The object, in JSON where `Accept` asks for it",
                        content(($written = "application/yaml"), ($written = "application/json")),
                        headers(("ETag" = String, description = "The generation, in quotes"))
                    ),
                    BadRequest, NotFound
                )
            )]
            pub async fn show(
                State(live): State<Live>,
                place: Asked<$place>,
                written: DocumentFormat,
            ) -> Result<Response, ApiError> {
                shown(&live, &$key($place::asked(place)?), written)
            }

            #[utoipa::path(
                put, path = $path, tag = "objects", operation_id = concat!("set_", stringify!($module)),
                summary = concat!("Puts a ", $what, " in the place of that of its name, or beside the others"),
                params($place, EditQuery, IfMatch),
                request_body(content(($written = "application/json"), ($written = "application/yaml"))),
                responses(
                    (status = 200, description = "What became of it", body = Receipt), BadRequest, Guards, BadDocument
                )
            )]
            pub async fn set(
                wish: ChangeRequest<EditQuery>,
                place: Asked<$place>,
                Text(text): Text,
            ) -> ChangeResult {
                let object = $key($place::asked(place)?);
                let limits = wish.live.config().policy.limits;
                // `If-Match: *` is for what is there (RFC 9110, 13.1.1).
                if wish.if_there {
                    shown(&wish.live, &object, DocumentFormat::Yaml)
                        .map_err(|_| ApiError::new(StatusCode::PRECONDITION_FAILED, "If-Match: *: it is not there"))?;
                }
                wish.edit(move |present| put(present, &object, &text, &limits)).await
            }

            #[utoipa::path(
                delete, path = $path, tag = "objects", operation_id = concat!("delete_", stringify!($module)),
                summary = concat!("Takes a ", $what, " away that nothing uses"), params($place, EditQuery, IfMatch),
                responses(
                    (status = 200, description = "What became of it", body = Receipt), BadRequest, NotFound, Guards
                )
            )]
            pub async fn delete(wish: ChangeRequest<EditQuery>, place: Asked<$place>) -> ChangeResult {
                let object = $key($place::asked(place)?);
                wish.edit(move |present| Ok(remove(present, &object)?.into())).await
            }
        }
    };
}

objects!(vpcs, "/v1/vpcs/{name}", "VPC", VpcPath, Vpc, vpc_key);
objects!(
    address_groups,
    "/v1/address-groups/{project}/{name}",
    "address group",
    ProjectObjectPath,
    AddressGroup,
    ObjectKey::AddressGroup
);
objects!(
    security_groups,
    "/v1/security-groups/{project}/{name}",
    "security group",
    ProjectObjectPath,
    SecurityGroup,
    ObjectKey::SecurityGroup
);
objects!(nics, "/v1/nics/{project}/{name}", "NIC", ProjectObjectPath, NicDocument, ObjectKey::Nic);

/// A rule of a group.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct RulePath {
    /// The group's project.
    #[param(example = "default", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+$", min_length = 1, max_length = 255)]
    project: String,
    /// The group's name.
    #[param(example = "web", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+$", min_length = 1, max_length = 255)]
    name: String,
    /// The rule's position in the group, from 0, or its identity.
    #[param(example = "0", pattern = "^([0-9]{1,9}|r-[0-9a-f]{10})$")]
    rule: String,
}

/// The group and the place in it of an extracted path.
fn rule_place(path: Asked<RulePath>) -> Result<(Key, RuleSelector), ApiError> {
    let Path(RulePath { project, name, rule }) = path.map_err(|error| bad_request(error.body_text()))?;
    let place = rule.parse().map_err(|()| {
        bad_request(format!(
            "rule: {rule:?}; allowed: a position from 0, or an identity such as r-0123456789"
        ))
    })?;
    Ok((ProjectObjectPath { project, name }.key()?, place))
}

async fn edit_rules(wish: ChangeRequest<EditQuery>, group: Key, what: RuleEdit) -> ChangeResult {
    let limits = wish.live.config().policy.limits;
    wish.edit(move |present| edit_rule(present, &group, &what, &limits)).await
}

/// Adds a rule at the end of a group's list
#[utoipa::path(
    post, path = "/v1/security-groups/{project}/{name}/rules", tag = "objects", params(ProjectObjectPath, EditQuery, IfMatch),
    request_body(content((Rule = "application/json"), (Rule = "application/yaml"))),
    responses((status = 200, description = "What became of it", body = Receipt), BadRequest, NotFound, Guards, BadDocument)
)]
async fn add_rule(
    wish: ChangeRequest<EditQuery>,
    place: Asked<ProjectObjectPath>,
    Text(text): Text,
) -> ChangeResult {
    let group = ProjectObjectPath::asked(place)?;
    edit_rules(wish, group, RuleEdit::Add(text.to_owned())).await
}

/// Puts a rule in the place of another
#[utoipa::path(
    put, path = "/v1/security-groups/{project}/{name}/rules/{rule}", tag = "objects", params(RulePath, EditQuery, IfMatch),
    request_body(content((Rule = "application/json"), (Rule = "application/yaml"))),
    responses((status = 200, description = "What became of it", body = Receipt), BadRequest, NotFound, Guards, BadDocument)
)]
async fn set_rule(wish: ChangeRequest<EditQuery>, place: Asked<RulePath>, Text(text): Text) -> ChangeResult {
    let (group, place) = rule_place(place)?;
    edit_rules(wish, group, RuleEdit::Set(place, text.to_owned())).await
}

/// Takes a rule away; those behind it move up
#[utoipa::path(
    delete, path = "/v1/security-groups/{project}/{name}/rules/{rule}", tag = "objects", params(RulePath, EditQuery, IfMatch),
    responses((status = 200, description = "What became of it", body = Receipt), BadRequest, NotFound, Guards)
)]
async fn delete_rule(wish: ChangeRequest<EditQuery>, place: Asked<RulePath>) -> ChangeResult {
    let (group, place) = rule_place(place)?;
    edit_rules(wish, group, RuleEdit::Delete(place)).await
}
