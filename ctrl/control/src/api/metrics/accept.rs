//! Which format a client wants, by RFC 9110 (12.5.1).

use axum::http::{HeaderMap, header};

use super::Format;

/// What `Accept` prefers; OpenMetrics where it says nothing, prefers none, or takes neither.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<&str> = accept.flat_map(|value| value.split(',')).collect();
    let open = quality(&ranges, "application", "openmetrics-text");
    let classic = quality(&ranges, "text", "plain");
    if classic > open { Format::Classic } else { Format::OpenMetrics }
}

/// The weight of a type: of the closest ranges that hold it, the greatest. Versions and other parameters are not looked at.
fn quality(ranges: &[&str], kind: &str, subtype: &str) -> f32 {
    let weighed = ranges.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (of, sub) = parts.next()?.split_once('/')?;
        let closeness = match (of, sub) {
            ("*", "*") => 0,
            (of, "*") if of.eq_ignore_ascii_case(kind) => 1,
            (of, sub) if of.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
        });
        Some((closeness, weight.unwrap_or(1.0_f32)))
    });
    let closest = weighed.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    closest.map_or(0.0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, is_classic) in [
            ("", false),
            ("*/*", false),
            ("text/plain", true),
            ("TEXT/PLAIN; version=0.0.4", true),
            ("text/*", true),
            ("application/json", false),
            (prometheus, false),
            ("application/openmetrics-text;q=0.1, text/plain;q=0.2", true),
            ("text/plain;q=0.5, application/openmetrics-text; version=1.0.0", false),
            ("text/plain;q=0, */*", false),
            ("application/openmetrics-text;q=0, */*;q=0.5", true),
            ("application/*;q=0.3, text/plain;q=0.4", true),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(format(&headers) == Format::Classic, is_classic, "{accept}");
        }
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT, "text/plain;q=0.5".parse().unwrap());
        headers.append(header::ACCEPT, "application/openmetrics-text;q=0.9".parse().unwrap());
        assert_eq!(format(&headers), Format::OpenMetrics, "two fields are one list");
    }
}
