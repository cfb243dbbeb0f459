//! Requests that change the policy as a whole, and those that look at its generations.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{Json, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::body::Text;
use super::documents::{DocumentFormat, Match, document, if_match};
use super::refusals::{BadDocument, BadRequest, Guards, NotFound, Unanswered};
use super::schema::Document;
use super::types::{Receipt, Record};
use super::{ApiError, POLICY, Peer};
use super::{bad_request, internal};
use crate::document::parse_policy;
use crate::export::export;
use crate::live::{Author, Change, LONGEST_CONFIRMATION, Live, Target};

/// The longest time that a change may await its confirmation, in seconds.
const MAX_CONFIRM: u64 = LONGEST_CONFIRMATION.as_secs();
/// How long a request waits for the workers, in seconds.
const MAX_WAIT: u64 = 60;

/// How an edit is made.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EditQuery {
    /// Only tell what would happen.
    dry_run: bool,
    /// Refuse to disconnect more live connections than this.
    #[param(value_type = u64, required = false, maximum = 9_007_199_254_740_991_u64)]
    max_disconnect: Option<u64>,
    /// Roll back by itself unless it is confirmed within so many seconds.
    #[param(value_type = u64, required = false, minimum = 1, maximum = 86_400)]
    confirm: Option<u64>,
}

/// How a document is applied.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DocumentQuery {
    /// Only tell what would happen.
    dry_run: bool,
    /// Refuse to disconnect more live connections than this.
    #[param(value_type = u64, required = false, maximum = 9_007_199_254_740_991_u64)]
    max_disconnect: Option<u64>,
    /// Roll back by itself unless it is confirmed within so many seconds.
    #[param(value_type = u64, required = false, minimum = 1, maximum = 86_400)]
    confirm: Option<u64>,
    /// Accept an empty document, or one without NICs where there are some.
    allow_empty: bool,
    /// What refusals call the document.
    #[param(value_type = String, required = false)]
    file: Option<String>,
}

/// How a rollback is made.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RollbackQuery {
    /// The generation to go back to, one of the history.
    #[param(example = 1, maximum = 4_294_967_295_u32)]
    generation: u32,
    /// Only tell what would happen.
    #[serde(default)]
    dry_run: bool,
    /// Refuse to disconnect more live connections than this.
    #[param(value_type = u64, required = false, maximum = 9_007_199_254_740_991_u64)]
    max_disconnect: Option<u64>,
    /// Roll back by itself unless it is confirmed within so many seconds.
    #[param(value_type = u64, required = false, minimum = 1, maximum = 86_400)]
    confirm: Option<u64>,
}

/// What all changes have in common.
pub(super) trait ChangeOptions {
    /// Whether it is a dry run, what it may disconnect at most, how long it awaits its confirmation in seconds.
    fn common(&self) -> (bool, Option<u64>, Option<u64>);

    /// Whether nothing may be left.
    fn allows_empty(&self) -> bool {
        true
    }
}

impl ChangeOptions for EditQuery {
    fn common(&self) -> (bool, Option<u64>, Option<u64>) {
        (self.dry_run, self.max_disconnect, self.confirm)
    }
}

impl ChangeOptions for DocumentQuery {
    fn common(&self) -> (bool, Option<u64>, Option<u64>) {
        (self.dry_run, self.max_disconnect, self.confirm)
    }

    fn allows_empty(&self) -> bool {
        self.allow_empty
    }
}

impl ChangeOptions for RollbackQuery {
    fn common(&self) -> (bool, Option<u64>, Option<u64>) {
        (self.dry_run, self.max_disconnect, self.confirm)
    }
}

/// The header of a change that is meant for one generation alone.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by hand: see `if_generation`")]
pub(super) struct IfMatch {
    /// Generations in quotes, as `ETag` has them: refused unless one of them is the present one. `*` is any, of an object that is there.
    #[param(rename = "If-Match", value_type = String, required = false, pattern = r#"^(\*|"(0|[1-9][0-9]{0,8})"(, *"(0|[1-9][0-9]{0,8})")*)$"#)]
    generation: Option<String>,
}

/// A change that somebody asks for, but for what it leads to.
pub(super) struct ChangeRequest<Q> {
    pub live: Live,
    pub query: Q,
    if_generation: Option<u32>,
    /// Only if what it replaces is there.
    pub if_there: bool,
    who: String,
}

impl<Q: DeserializeOwned + Send> FromRequestParts<Live> for ChangeRequest<Q> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, live: &Live) -> Result<ChangeRequest<Q>, ApiError> {
        let query = Query::try_from_uri(&parts.uri)
            .map_err(|error: QueryRejection| bad_request(error.body_text()))?;
        let ConnectInfo(Peer(who)) = ConnectInfo::from_request_parts(parts, live)
            .await
            .map_err(|error| internal(error.body_text()))?;
        let matched = if_match(&parts.headers)?;
        let if_there = matched == Match::Any;
        let if_generation = match matched {
            Match::Absent | Match::Any => None,
            Match::Generations(known) => {
                let present = live.generation();
                let known = if known.contains(&present) { Some(present) } else { known.first().copied() };
                // Tags that are nobody's match nothing.
                Some(known.ok_or_else(|| {
                    ApiError::new(
                        StatusCode::PRECONDITION_FAILED,
                        format!("If-Match: no such generation; it is {present} now"),
                    )
                })?)
            }
        };
        Ok(ChangeRequest { live: live.clone(), query: query.0, if_generation, if_there, who })
    }
}

impl<Q: ChangeOptions> ChangeRequest<Q> {
    /// Makes the change.
    pub async fn make(self, target: Target) -> Result<Json<Receipt>, ApiError> {
        let ChangeRequest { live, query, if_generation, who, .. } = self;
        let (dry_run, max_disconnect, confirm) = query.common();
        if confirm.is_some_and(|seconds| !(1..=MAX_CONFIRM).contains(&seconds)) {
            return Err(bad_request(format!("confirm: allowed: 1 to {MAX_CONFIRM} seconds")));
        }
        let change = Change {
            dry_run,
            max_disconnect,
            allow_empty: query.allows_empty(),
            confirm: confirm.map(Duration::from_secs),
            if_generation,
            ..Change::new(target, Author::client(who))
        };
        // On a task of its own: a client that hangs up must not leave a change without its end.
        let applied = tokio::spawn(async move { live.apply(change).await }).await;
        Ok(Json(applied.map_err(internal)??))
    }
}

/// Makes a document the policy
///
/// As a whole, in one transaction: what the document lacks is removed. JSON or YAML, whatever the content type says.
#[utoipa::path(
    post, path = POLICY, tag = "policy", params(DocumentQuery, IfMatch),
    request_body(content((Document = "application/json"), (Document = "application/yaml"))),
    responses((status = 200, description = "What became of it", body = Receipt), BadRequest, Guards, BadDocument)
)]
pub(super) async fn apply(
    wish: ChangeRequest<DocumentQuery>,
    Text(text): Text,
) -> Result<Json<Receipt>, ApiError> {
    let file = wish.query.file.clone().unwrap_or_else(|| "document".to_owned());
    let limits = wish.live.config().policy.limits;
    // A large document takes a while to read: not on the thread that everybody else waits for.
    let read = tokio::task::spawn_blocking(move || {
        parse_policy(&text, &file, &limits).map_err(|diagnostic| diagnostic.to_string())
    });
    let document = read
        .await
        .map_err(internal)?
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    wish.make(Target::Document(document)).await
}

/// Goes back to the policy of an earlier generation
///
/// What only later changes disconnected is live again (semantics 5.7).
#[utoipa::path(
    post, path = "/v1/rollback", tag = "generations", params(RollbackQuery, IfMatch),
    responses((status = 200, description = "What became of it", body = Receipt), BadRequest, NotFound, Guards)
)]
pub(super) async fn rollback(wish: ChangeRequest<RollbackQuery>) -> Result<Json<Receipt>, ApiError> {
    let generation = wish.query.generation;
    wish.make(Target::Generation(generation)).await
}

/// Keeps the change that awaits its confirmation
#[utoipa::path(
    post, path = "/v1/confirm", tag = "generations",
    responses((status = 200, description = "The change that stays", body = Record), Guards)
)]
pub(super) async fn confirm(
    State(live): State<Live>,
    ConnectInfo(Peer(who)): ConnectInfo<Peer>,
) -> Result<Json<Record>, ApiError> {
    // On a task of its own: a client that hangs up must not leave it half done.
    let confirmed = tokio::spawn(async move { live.confirm().await }).await;
    let record = confirmed.map_err(internal)??;
    tracing::info!("generation {} is confirmed by {who} (api)", record.generation);
    Ok(Json(record))
}

/// The present policy as a document
///
/// Applying it changes nothing.
#[utoipa::path(
    get, path = POLICY, tag = "policy",
    responses((
        status = 200, description = "The document, in JSON where `Accept` asks for it",
        content((Document = "application/yaml"), (Document = "application/json")),
        headers(("ETag" = String, description = "The generation, in quotes"))
    ))
)]
pub(super) async fn policy(State(live): State<Live>, written: DocumentFormat) -> Result<Response, ApiError> {
    let (policy, generation) = live.policy_and_generation();
    let text = tokio::task::spawn_blocking(move || export(&policy)).await.map_err(internal)?;
    Ok(document(text, generation, written))
}

/// Which generation, as the path says.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "extracted as a number: this is its description")]
pub(super) struct GenerationPath {
    /// Its number.
    #[param(example = 1, maximum = 4_294_967_295_u32)]
    generation: u32,
}

type Asked = Result<Path<u32>, PathRejection>;

fn asked(path: Asked) -> Result<u32, ApiError> {
    path.map(|Path(generation)| generation).map_err(|error| bad_request(error.body_text()))
}

/// The policy of a generation as a document
#[utoipa::path(
    get, path = "/v1/generations/{generation}/policy", tag = "generations", params(GenerationPath),
    responses(
        (
            status = 200, description = "The document, in JSON where `Accept` asks for it",
            content((Document = "application/yaml"), (Document = "application/json")),
            headers(("ETag" = String, description = "The generation, in quotes"))
        ),
        BadRequest, NotFound
    )
)]
pub(super) async fn policy_at(
    State(live): State<Live>,
    path: Asked,
    written: DocumentFormat,
) -> Result<Response, ApiError> {
    let generation = asked(path)?;
    let policy = live.policy_at(generation)?;
    let text = tokio::task::spawn_blocking(move || export(&policy)).await.map_err(internal)?;
    Ok(document(text, generation, written))
}

/// Whether to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// Answer when every worker judges by it.
    #[param(value_type = Wait, required = false, inline)]
    wait: Option<Wait>,
    /// For so many seconds at most; 60 if left out.
    #[param(value_type = u64, required = false, maximum = 60)]
    timeout: Option<u64>,
}

/// For what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Wait {
    Acknowledged,
}

/// One generation of the history
#[utoipa::path(
    get, path = "/v1/generations/{generation}", tag = "generations", params(GenerationPath, WaitQuery),
    responses((status = 200, description = "Its record", body = Record), BadRequest, NotFound, Unanswered)
)]
pub(super) async fn generation(
    State(live): State<Live>,
    path: Asked,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Json<Record>, ApiError> {
    let generation = asked(path)?;
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    if query.timeout.is_some_and(|seconds| seconds > MAX_WAIT) {
        return Err(bad_request(format!("timeout: allowed: 0 to {MAX_WAIT} seconds")));
    }
    if query.wait == Some(Wait::Acknowledged) {
        let patience = Duration::from_secs(query.timeout.unwrap_or(MAX_WAIT));
        live.wait_acknowledged(generation, patience).await?;
    }
    Ok(Json(live.record(generation)?))
}
