//! What HTTP says around documents: in which form they are wanted, and on which condition they are written.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::ApiError;
use super::bad_request;
use crate::live::Live;
use crate::source::as_json;

/// In which form a document is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DocumentFormat {
    Yaml,
    Json,
}

impl FromRequestParts<Live> for DocumentFormat {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Live) -> Result<DocumentFormat, Infallible> {
        Ok(wanted(&parts.headers))
    }
}

/// What `Accept` asks for: JSON where it is named, and YAML not before it or with more weight.
fn wanted(headers: &HeaderMap) -> DocumentFormat {
    let asked = headers.get_all(header::ACCEPT);
    let ranges = asked.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut best = (0.0, DocumentFormat::Yaml);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let written = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" | "text/json" => DocumentFormat::Json,
            _ => DocumentFormat::Yaml,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        let weight = weight.unwrap_or(0.0);
        if weight > best.0 {
            best = (weight, written);
        }
    }
    best.1
}

/// A document with its generation.
pub(super) fn document(text: String, generation: u32, written: DocumentFormat) -> Response {
    let (kind, text) = match written {
        DocumentFormat::Yaml => ("application/yaml", text),
        DocumentFormat::Json => ("application/json", as_json(&text)),
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ETAG, format!("\"{generation}\"")),
        (header::VARY, "Accept".to_owned()),
    ];
    (headers, text).into_response()
}

/// What `If-Match` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Nothing.
    Absent,
    /// That there is something.
    Any,
    /// One of these; tags that can be no generation's are left out.
    Generations(Vec<u32>),
}

/// Reads `If-Match` as RFC 9110, 13.1.1 has it: a list of tags, which are compared strongly, so that a weak one matches
/// nothing.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Match, ApiError> {
    let values: Vec<&str> =
        headers.get_all(header::IF_MATCH).iter().map(|value| value.to_str().unwrap_or("\u{fffd}")).collect();
    if values.is_empty() {
        return Ok(Match::Absent);
    }
    let text = values.join(",");
    let bad =
        || bad_request(format!("If-Match: {text}; allowed: generations in quotes with commas between, or *"));
    let mut rest = text.trim();
    if rest == "*" {
        return Ok(Match::Any);
    }
    let (mut generations, mut is_any) = (Vec::new(), false);
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            break;
        }
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        let (tag, behind) = match tag.strip_prefix('"') {
            Some(tag) => tag.split_once('"').ok_or_else(bad)?,
            // A number without its quotes can mean nothing else.
            None if !is_weak && tag.starts_with(|c: char| c.is_ascii_digit()) => {
                tag.split_at(tag.find(|c: char| !c.is_ascii_digit()).unwrap_or(tag.len()))
            }
            None => return Err(bad()),
        };
        let behind = behind.trim_start_matches([' ', '\t']);
        if !behind.is_empty() && !behind.starts_with(',') {
            return Err(bad());
        }
        is_any = true;
        let is_canonical = |number: &u32| number.to_string() == tag;
        generations.extend(tag.parse().ok().filter(is_canonical).filter(|_| !is_weak));
        rest = behind;
    }
    if is_any { Ok(Match::Generations(generations)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn json_is_written_where_it_is_asked_for() {
        let of = |values: &[&str]| wanted(&headers(header::ACCEPT, values));
        for yaml in [
            &[][..],
            &["*/*"],
            &["application/yaml, application/json"],
            &["application/json;q=0.5, */*"],
            &["application/json;q=0"],
            &["text/html"],
        ] {
            assert_eq!(of(yaml), DocumentFormat::Yaml, "{yaml:?}");
        }
        for json in [
            &["application/json"][..],
            &["Application/JSON; charset=utf-8"],
            &["application/json, */*"],
            &["application/yaml;q=0.2, application/json;q=0.9"],
            &["text/html;q=0.1", "application/json"],
        ] {
            assert_eq!(of(json), DocumentFormat::Json, "{json:?}");
        }
    }

    #[test]
    fn tags_are_read_as_the_rfc_has_them() {
        let of = |values: &[&str]| if_match(&headers(header::IF_MATCH, values)).ok();
        let generations = |numbers: &[u32]| Some(Match::Generations(numbers.to_vec()));
        assert_eq!(of(&[]), Some(Match::Absent));
        assert_eq!(of(&[" * "]), Some(Match::Any));
        assert_eq!(of(&["\"3\""]), generations(&[3]));
        assert_eq!(of(&["\"3\", \"4\"", "\"5\""]), generations(&[3, 4, 5]));
        // Weak tags, and tags of something else, match nothing.
        assert_eq!(of(&["W/\"3\""]), generations(&[]));
        assert_eq!(of(&["\"abc\", \"03\", \"7\""]), generations(&[7]));
        assert_eq!(of(&["3, \"4\""]), generations(&[3, 4]), "without quotes it can mean nothing else");
        for bad in ["3x", "\"3", "*, \"3\"", "\"3\" \"4\"", ",", "w/\"3\"", ""] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
    }
}
