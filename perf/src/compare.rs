//! What `scripts/compare` puts side by side beyond the cycle cases: packets a second, and a plot.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::cases::Figure;
use crate::floor::{Rate, in_turn, median};

/// Flows of the rate comparison.
const FLOWS: u32 = 10_000;

/// Packets a second on two `net_pcap` ports and one core: medians of rounds in turn.
pub struct Floor {
    /// The appliance's, in millions.
    pub ours: f64,
    /// `dpdk-testpmd --forward-mode=5tswap`'s.
    pub testpmd: f64,
}

impl Floor {
    /// Measures both, in turn.
    pub fn measure(binary: &Path, directory: &Path, rounds: u32, time: Duration) -> io::Result<Floor> {
        let (ours, floor) = in_turn(binary, directory, rounds, time, FLOWS)?;
        let mpps = |rates: &[Rate]| median(&rates.iter().map(|rate| rate.mpps).collect::<Vec<_>>());
        Ok(Floor { ours: mpps(&ours), testpmd: mpps(&floor) })
    }

    /// The appliance's part of its floor.
    pub fn ratio(&self) -> f64 {
        self.ours / self.testpmd
    }
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 50.0;

/// A line of a plot.
struct Line {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// Two plots beside each other: cycles against flows, with the bare lookup's, and against rules.
pub fn svg(established: &[(u32, Figure)], denied: &[(u32, Figure)]) -> String {
    let points = |figures: &[(u32, Figure)], of: fn(&Figure) -> Option<f64>| -> Vec<(f64, f64)> {
        figures.iter().filter_map(|(n, figure)| Some((f64::from(*n), of(figure)?))).collect()
    };
    let engine = |figure: &Figure| Some(figure.engine);
    let plots = [
        (
            "flows, established",
            vec![
                Line { name: "engine", colour: "#0b6", points: points(established, engine) },
                Line {
                    name: "bare lookup",
                    colour: "#888",
                    points: points(established, |figure| figure.bare),
                },
            ],
        ),
        ("rules, denied", vec![Line { name: "engine", colour: "#c33", points: points(denied, engine) }]),
    ];
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n",
        2.0 * WIDTH
    );
    for (at, (title, lines)) in plots.iter().enumerate() {
        plot(&mut out, at as f64 * WIDTH, title, lines);
    }
    out + "</svg>\n"
}

/// One plot: the number of things on a logarithmic axis, cycles from zero on.
fn plot(out: &mut String, left: f64, title: &str, lines: &[Line]) {
    let all = lines.iter().flat_map(|line| &line.points);
    let (last, top) = all.fold((10.0f64, 10.0f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
    let x = |n: f64| left + MARGIN + n.log10() / last.log10() * (WIDTH - 2.0 * MARGIN);
    let y = |cycles: f64| HEIGHT - MARGIN - cycles / (top * 1.1) * (HEIGHT - 2.0 * MARGIN);
    // Writing to a string does not fail.
    let _ = writeln!(out, "<text x=\"{}\" y=\"20\">cycles a packet by {title}</text>", left + MARGIN);
    for step in 0..=4 {
        let cycles = top * f64::from(step) / 4.0;
        let _ = writeln!(
            out,
            "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\" stroke=\"#ddd\"/><text x=\"{3}\" y=\"{2}\">{cycles:.0}</text>",
            left + MARGIN,
            left + WIDTH - MARGIN,
            y(cycles),
            left + 15.0
        );
    }
    for (row, Line { name, colour, points }) in lines.iter().enumerate() {
        let path: Vec<String> = points.iter().map(|(n, c)| format!("{:.1},{:.1}", x(*n), y(*c))).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/><text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            path.join(" "),
            left + WIDTH - 2.0 * MARGIN,
            35.0 + 14.0 * row as f64
        );
        for (n, cycles) in points {
            let _ = writeln!(
                out,
                "<circle cx=\"{0:.1}\" cy=\"{1:.1}\" r=\"3\" fill=\"{colour}\"/><text x=\"{0:.1}\" y=\"{2}\">{n}</text>",
                x(*n),
                y(*cycles),
                HEIGHT - MARGIN + 15.0
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_every_point() {
        let figure = |engine, bare| Figure { engine, bare, ..Figure::default() };
        let svg =
            svg(&[(1, figure(50.0, None)), (10_000, figure(80.0, Some(14.0)))], &[(50, figure(90.0, None))]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
