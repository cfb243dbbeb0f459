//! The plot of a comparison: four panels, cycles and packets a second, by flows and by rules.

use std::fmt::Write;

use crate::cases::Figure;
use crate::compare::{Rates, Row};
use crate::floor::Program;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 50.0;

/// A panel: the number of things on a logarithmic axis, what it measures from zero on.
struct Panel {
    title: &'static str,
    lines: Vec<Line>,
}

/// A line of a panel.
struct Line {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// As SVG.
pub fn svg(established: &[(u32, Figure)], denied: &[(u32, Figure)], rates: &Rates) -> String {
    let points = |figures: &[(u32, Figure)], of: fn(&Figure) -> Option<f64>| -> Vec<(f64, f64)> {
        figures.iter().filter_map(|(n, figure)| Some((f64::from(*n), of(figure)?))).collect()
    };
    let engine = |figure: &Figure| Some(figure.engine);
    let by_flows = vec![
        Line { name: "engine", colour: "#0b6", points: points(established, engine) },
        Line { name: "bare lookup", colour: "#888", points: points(established, |figure| figure.bare) },
    ];
    let by_rules = vec![Line { name: "engine", colour: "#c33", points: points(denied, engine) }];
    let panels = [
        Panel { title: "cycles a packet by flows, established", lines: by_flows },
        Panel { title: "cycles a packet by rules, denied", lines: by_rules },
        Panel { title: "Mpps by flows, 50 rules", lines: lines(&rates.by_flows()) },
        Panel { title: "Mpps by rules, 10000 flows", lines: lines(&rates.by_rules()) },
    ];
    let (width, height) = (2.0 * WIDTH, 2.0 * HEIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        draw(&mut out, ((at % 2) as f64 * WIDTH, (at / 2) as f64 * HEIGHT), panel);
    }
    out + "</svg>\n"
}

fn colour(program: Program) -> &'static str {
    match program {
        Program::Portcullis => "#0b6",
        Program::Testpmd => "#888",
        Program::Ovs => "#26c",
        Program::Nftables => "#c33",
        Program::Forwarding => "#c80",
    }
}

/// A line a program that has a rate somewhere.
fn lines(rows: &[(u32, &Row)]) -> Vec<Line> {
    let line = |program: Program| Line {
        name: program.name(),
        colour: colour(program),
        points: rows.iter().filter_map(|(n, row)| Some((f64::from(*n), row.mpps(program)?))).collect(),
    };
    Program::ALL.map(line).into_iter().filter(|line| !line.points.is_empty()).collect()
}

fn draw(out: &mut String, (left, above): (f64, f64), Panel { title, lines }: &Panel) {
    let all = lines.iter().flat_map(|line| &line.points);
    let (last, top) = all.fold((10.0f64, 1.0f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
    let x = |n: f64| left + MARGIN + n.log10() / last.log10() * (WIDTH - 2.0 * MARGIN);
    let bottom = above + HEIGHT - MARGIN;
    let y = |value: f64| bottom - value / (top * 1.1) * (HEIGHT - 2.0 * MARGIN);
    // Writing to a string does not fail.
    let _ = writeln!(out, "<text x=\"{}\" y=\"{}\">{title}</text>", left + MARGIN, above + 20.0);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let _ = writeln!(
            out,
            "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#ddd\"/><text x=\"{3}\" y=\"{2:.1}\">{value:.0}</text>",
            left + MARGIN,
            left + WIDTH - MARGIN,
            y(value),
            left + 15.0
        );
    }
    let mut marks: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for n in marks {
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\">{n}</text>", x(n), bottom + 15.0);
    }
    for (row, Line { name, colour, points }) in lines.iter().enumerate() {
        let path: Vec<String> = points.iter().map(|(n, c)| format!("{:.1},{:.1}", x(*n), y(*c))).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/><text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            path.join(" "),
            left + WIDTH - MARGIN + 2.0,
            // Beside the line's end would be where others end, too.
            above + 35.0 + 14.0 * row as f64
        );
        for (n, value) in points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*n),
                y(*value)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::rates;

    #[test]
    fn a_plot_holds_every_point() {
        let figure = |engine, bare| Figure { engine, bare, ..Figure::default() };
        let cycles = [(1, figure(50.0, None)), (10_000, figure(80.0, Some(14.0)))];
        let svg = svg(&cycles, &[(50, figure(90.0, None))], &rates());
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        // Four of cycles; two programs with three numbers of flows and three of rules.
        assert_eq!(svg.matches("<circle").count(), 4 + 2 * 6);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(svg.contains(">ovs<") && !svg.contains(">nftables<"));
    }
}
