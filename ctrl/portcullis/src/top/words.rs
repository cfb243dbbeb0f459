//! Numbers and times as `portcullis show` prints them, and texts cut to a width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands for a number that is not known.
pub const UNKNOWN: &str = "-";
const CUT: char = '…';

/// Something by the second: small ones to a tenth.
pub fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// Bytes by the second in millions of bits.
pub fn megabits(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| UNKNOWN.to_owned(), |bytes| format!("{:.3}", bytes * 8e-6))
}

/// A share of 1. What is not all does not look like all, what is not nothing not like nothing.
pub fn percent(share: Option<f64>) -> String {
    match share {
        None => UNKNOWN.to_owned(),
        Some(share) if share > 0.0 && share < 0.01 => "<1 %".to_owned(),
        Some(share) if share < 1.0 => format!("{:.0} %", (share * 100.0).min(99.0)),
        Some(share) => format!("{:.0} %", share * 100.0),
    }
}

/// To the hundredth.
pub fn hundredths(number: Option<f64>) -> String {
    number.map_or_else(|| UNKNOWN.to_owned(), |number| format!("{number:.2}"))
}

/// A part of a whole; `None` of nothing.
pub fn share(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    part.zip(whole).filter(|(_, whole)| *whole > 0.0).map(|(part, whole)| part / whole)
}

fn formatted(seconds: i64, format: &str) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().strftime(format).to_string()
}

/// Nanoseconds since 1970 as a time of day, UTC.
pub fn clock(nanos: u64) -> String {
    formatted((nanos / 1_000_000_000) as i64, "%H:%M:%S UTC")
}

/// Seconds since 1970 as date and time, UTC.
pub fn moment(seconds: f64) -> String {
    formatted(seconds as i64, "%Y-%m-%d %H:%M:%S")
}

/// How long something lasts.
pub fn lasting(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s:02} s"),
        (0, h, m, _) => format!("{h} h {m:02} min"),
        (d, h, ..) => format!("{d} d {h:02} h"),
    }
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text in so many columns at most: what is longer ends with a sign that says so.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut short, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or_default();
        if used >= columns {
            break;
        }
        short.push(c);
    }
    if columns > 0 {
        short.push(CUT);
    }
    short
}

/// The same of a name, which is told from others by how it ends, too: what is left out was in the middle.
pub fn cut_name(name: &str, columns: usize) -> String {
    if width(name) <= columns {
        return name.to_owned();
    }
    let room = columns.saturating_sub(1);
    let (mut end, mut used) = (name.len(), 0);
    for (at, c) in name.char_indices().rev() {
        used += c.width().unwrap_or_default();
        if used > room / 2 {
            break;
        }
        end = at;
    }
    let head = cut(name, columns - width(&name[end..]));
    head + &name[end..]
}

/// The text in just so many columns.
pub fn padded(text: &str, columns: usize, to_the_right: bool) -> String {
    let short = cut(text, columns);
    let blanks = " ".repeat(columns - width(&short));
    if to_the_right { blanks + &short } else { short + &blanks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_columns_and_not_to_characters() {
        assert_eq!(cut("server-10", 9), "server-10");
        assert_eq!(cut("server-10", 8), "server-…");
        assert_eq!(cut("server-10", 1), "…");
        assert_eq!(cut("server-10", 0), "");
        // Each of these takes two columns.
        assert_eq!(cut("服务器服务器", 7), "服务器…");
        assert_eq!(cut("服务器服务器", 6), "服务…");
        assert_eq!(padded("服务器服务器", 6, false), "服务… ");
        assert_eq!(padded("7", 3, true), "  7");
        assert_eq!(cut_name("web#1", 5), "web#1");
        assert_eq!(cut_name("a-group-of-rules#17", 10), "a-gro…s#17");
        assert_eq!(cut_name("服务器服务器", 7), "服务…器");
        assert_eq!([0, 1, 2, 3].map(|columns| cut_name("web#1", columns)), ["", "…", "w…", "w…1"]);
    }

    #[test]
    fn numbers_say_what_they_do_not_know_and_what_is_hardly_there() {
        assert_eq!(
            [None, Some(0.0), Some(0.04), Some(9.94), Some(9.96), Some(12345.6)].map(rate),
            ["-", "0", "0.0", "9.9", "10", "12346"]
        );
        assert_eq!(
            [None, Some(0.0), Some(0.001), Some(0.5), Some(0.999), Some(1.0)].map(percent),
            ["-", "0 %", "<1 %", "50 %", "99 %", "100 %"]
        );
        assert_eq!(megabits(Some(125_000.0)), "1.000");
        assert_eq!(
            [3_000_000_000, 61_000_000_000, 3_661_000_000_000, 90_000_000_000_000].map(lasting),
            ["3 s", "1 min 01 s", "1 h 01 min", "1 d 01 h"]
        );
        assert_eq!(share(Some(1.0), Some(0.0)), None);
    }
}
