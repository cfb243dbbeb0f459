//! Listings in pages: who asks for one holds no more than that in memory, here and there.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiError;
use super::bad_request;
use crate::live::{Page, WrittenFilter};
use crate::model::Key;

/// Milliseconds of a page at most.
const LONGEST: u32 = 10_000;
/// Characters of a name at most.
const LONGEST_NAME: usize = 255;
/// Elements of a page at most.
const LARGEST: usize = 100_000;

/// A part of a listing.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// So many elements at most; all, if left out.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100_000)]
    limit: Option<u32>,
    /// Those behind this name, in the order of projects and names, whether or not it is there: the last of the page before.
    #[param(value_type = String, required = false, example = "web-1", pattern = r"^[^/#\x00-\x1f\x7f-\x9f]+(/[^/#\x00-\x1f\x7f-\x9f]+)?$", min_length = 1, max_length = 255)]
    after: Option<String>,
    /// Those with this text in their name, or, of NICs, in an address; of rules, in their group's name.
    #[param(value_type = String, required = false, example = "web", max_length = 255)]
    contains: Option<String>,
}

/// What part of a listing by names is asked for.
pub(super) struct Part {
    pub after: Option<Key>,
    pub limit: usize,
    pub contains: String,
}

/// A part of the history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// So many generations at most; all, if left out.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100_000)]
    limit: Option<u32>,
    /// Those before this generation: the last of the page before.
    #[param(value_type = u32, required = false, maximum = 4_294_967_295u32)]
    after: Option<u32>,
}

fn limit(asked: Option<u32>) -> Result<usize, ApiError> {
    match asked.map(|asked| asked as usize) {
        None => Ok(usize::MAX),
        Some(limit) if (1..=LARGEST).contains(&limit) => Ok(limit),
        Some(_) => Err(bad_request(format!("limit: allowed: 1 to {LARGEST}"))),
    }
}

fn read<Q>(query: Result<Query<Q>, QueryRejection>) -> Result<Q, ApiError> {
    query.map(|Query(query)| query).map_err(|error| bad_request(error.body_text()))
}

/// Behind which name, how many, and with what in their names.
pub(super) fn by_name(query: Result<Query<PageQuery>, QueryRejection>) -> Result<Part, ApiError> {
    let PageQuery { limit: asked, after, contains } = read(query)?;
    let contains = contains.unwrap_or_default();
    if contains.chars().count() > LONGEST_NAME {
        return Err(bad_request(format!("contains: allowed: up to {LONGEST_NAME} characters")));
    }
    let after = after
        .map(|name| {
            let key = Key::parse(&name);
            key.ok_or_else(|| {
                bad_request(format!("after: {name:?} is no name; allowed: NAME or PROJECT/NAME"))
            })
        })
        .transpose()?;
    Ok(Part { after, limit: limit(asked)?, contains })
}

/// Which connections of all that fit.
pub(super) fn of_connections(written: &WrittenFilter) -> Result<Page, ApiError> {
    let (limit_asked, after) = (written.limit, written.after.as_deref());
    let within = match written.within {
        Some(within @ 1..=LONGEST) => Some(Duration::from_millis(within.into())),
        Some(within) => {
            return Err(bad_request(format!("within: {within}; allowed: 1 to {LONGEST} milliseconds")));
        }
        None => None,
    };
    let place = |id: &str| {
        let (worker, place) = id.split_once('-')?;
        Some((worker.parse::<usize>().ok()?, place.parse::<u32>().ok()?.checked_add(1)?))
    };
    let (worker, place) = match after {
        None => (0, 0),
        Some(id) => place(id).ok_or_else(|| {
            bad_request(format!(
                "after: {id:?} is no connection's id; allowed: WORKER-PLACE, as in a listing"
            ))
        })?,
    };
    Ok(Page { worker, place, limit: limit(limit_asked)?, within })
}

/// Before which generation, and how many.
pub(super) fn by_generation(
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<(Option<u32>, usize), ApiError> {
    let HistoryQuery { limit: asked, after } = read(query)?;
    Ok((after, limit(asked)?))
}
