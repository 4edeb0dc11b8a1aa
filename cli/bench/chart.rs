//! Tokens per second over context as a picture: SVG, written by hand.
use super::result::{Bench, Decode, digits};
use std::fmt::Write;

/// Size of the picture.
const SIZE: (f64, f64) = (720.0, 440.0);
/// The area of the curves: left, top, right, bottom.
const AREA: (f64, f64, f64, f64) = (72.0, 84.0, 600.0, 372.0);

/// A curve: its name, colour, dashes, and what it shows of a point.
struct Curve {
    name: &'static str,
    colour: &'static str,
    dashes: &'static str,
    value: fn(&Decode) -> Option<f64>,
}

const CURVES: [Curve; 3] = [
    Curve { name: "memory limit", colour: "#767676", dashes: "6 4", value: Decode::limit_tok_s },
    Curve { name: "predicted", colour: "#c05a00", dashes: "2 4", value: |d| d.predicted_tok_s },
    Curve { name: "measured", colour: "#1259a8", dashes: "", value: |d| Some(d.tok_s) },
];

/// Where numbers lie in the picture.
struct Axes {
    /// Smallest and largest context, as logarithms.
    x: (f64, f64),
    /// Largest speed.
    y: f64,
    /// Distance of the lines of equal speed.
    step: f64,
}

impl Axes {
    fn of(points: &[Decode]) -> Axes {
        let logs = || points.iter().map(|d| log(d.ctx));
        let (low, high) = (logs().fold(f64::INFINITY, f64::min), logs().fold(f64::NEG_INFINITY, f64::max));
        let speeds = CURVES.iter().flat_map(|c| points.iter().filter_map(|d| (c.value)(d)));
        let top = speeds.fold(0.0, f64::max).max(1e-9);
        // About five lines at 1, 2 or 5 times a power of ten.
        let unit = 10f64.powf((top / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * unit).into_iter().find(|s| top / s <= 6.0);
        let step = step.expect("ten times the unit is enough");
        // One context alone stands in the middle.
        let x = if high > low { (low, high) } else { (low - 1.0, high + 1.0) };
        Axes { x, y: (top / step).ceil() * step, step }
    }

    fn x(&self, ctx: u32) -> f64 {
        AREA.0 + 12.0 + (log(ctx) - self.x.0) / (self.x.1 - self.x.0) * (AREA.2 - AREA.0 - 24.0)
    }

    fn y(&self, speed: f64) -> f64 {
        AREA.3 - speed / self.y * (AREA.3 - AREA.1)
    }
}

fn log(ctx: u32) -> f64 {
    f64::from(ctx.max(1)).log2()
}

/// The picture of a bench. Without decoding it says that there is nothing to draw.
pub fn chart(bench: &Bench) -> String {
    let mut points = bench.decode.clone();
    points.sort_by_key(|d| d.ctx);
    let mut svg = String::new();
    let mut put = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    let (width, height) = SIZE;
    put(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" fill="#222">"##
    ));
    put(format!(r##"<rect width="{width}" height="{height}" fill="#fff"/>"##));
    put(label((24.0, 34.0), "start", &bench.title, r#" font-size="17""#));
    put(label((24.0, 58.0), "start", "decoded tokens per second over tokens of context", ""));
    if points.is_empty() {
        put(label((width / 2.0, height / 2.0), "middle", "nothing was decoded", ""));
    } else {
        let axes = Axes::of(&points);
        put(frame(&axes, &points));
        put(curves(&axes, &points));
    }
    put("</svg>".to_string());
    svg
}

/// Lines of equal speed with their numbers, and the contexts.
fn frame(axes: &Axes, points: &[Decode]) -> String {
    let mut out = String::new();
    let lines = (axes.y / axes.step).round() as usize;
    for speed in (0..=lines).map(|i| i as f64 * axes.step) {
        let (y, colour) = (axes.y(speed), if speed == 0.0 { "#222" } else { "#ddd" });
        let (left, _, right, _) = AREA;
        writeln!(out, r#"<path d="M{left} {y:.1}H{right}" stroke="{colour}" fill="none"/>"#)
            .expect("a string");
        out += &label((left - 8.0, y + 4.0), "end", &digits(speed).to_string(), "");
    }
    let mut last = f64::NEG_INFINITY;
    for d in points {
        let x = axes.x(d.ctx);
        writeln!(out, r##"<path d="M{x:.1} {}v5" stroke="#222" fill="none"/>"##, AREA.3).expect("a string");
        // Contexts that lie closer than their numbers are wide go without.
        if x - last >= 56.0 {
            out += &label((x, AREA.3 + 22.0), "middle", &grouped(d.ctx), "");
            last = x;
        }
    }
    out + &label(((AREA.0 + AREA.2) / 2.0, AREA.3 + 48.0), "middle", "context, tokens (logarithmic)", "")
}

/// The curves with a dot and a number per measured point, their names at the right.
fn curves(axes: &Axes, points: &[Decode]) -> String {
    let (mut out, mut names) = (String::new(), Vec::new());
    for curve in &CURVES {
        let shown: Vec<(f64, f64, f64)> = points
            .iter()
            .filter_map(|d| (curve.value)(d).map(|speed| (axes.x(d.ctx), axes.y(speed), speed)))
            .collect();
        let Some((_, last, _)) = shown.last() else { continue };
        let path: Vec<String> = shown.iter().map(|(x, y, _)| format!("{x:.1} {y:.1}")).collect();
        let Curve { name, colour, dashes, .. } = curve;
        writeln!(
            out,
            r#"<path d="M{}" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}" fill="none"/>"#,
            path.join("L")
        )
        .expect("a string");
        for (x, y, speed) in &shown {
            writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#).expect("a string");
            if curve.name == "measured" {
                // Below its point, above it where the axis is near.
                let y = if y + 34.0 > AREA.3 { y - 10.0 } else { y + 20.0 };
                out += &label((*x, y), "middle", &digits(*speed).to_string(), "");
            }
        }
        names.push((*last, *name, *colour));
    }
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    for (y, name, colour) in names {
        let y = (y + 4.0).max(free);
        free = y + 18.0;
        out += &label((AREA.2 + 10.0, y), "start", name, &format!(r#" fill="{colour}""#));
    }
    out
}

fn label((x, y): (f64, f64), anchor: &str, text: &str, more: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{more}>{text}</text>"#) + "\n"
}

/// Digits in groups of three.
fn grouped(n: u32) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ctx: u32, tok_s: f64) -> Decode {
        Decode { ctx, tok_s, limit_share: Some(0.5), predicted_tok_s: None }
    }

    #[test]
    fn every_point_lies_inside_and_is_named() {
        let decode = vec![point(65_536, 1.5), point(64, 2.0), point(4096, 1.9)];
        let axes = Axes::of(&decode);
        for d in &decode {
            let (x, y) = (axes.x(d.ctx), axes.y(d.limit_tok_s().unwrap()));
            assert!((AREA.0..=AREA.2).contains(&x) && (AREA.1..=AREA.3).contains(&y), "{x} {y}");
        }
        let svg = chart(&Bench { title: "a<b & c".to_string(), decode, ..Bench::default() });
        for expected in ["65,536", "4,096", ">64<", "measured", "memory limit", "a&lt;b &amp; c"] {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
        assert!(!svg.contains("predicted"));
    }

    #[test]
    fn one_point_and_none_are_pictures_too() {
        for decode in [vec![], vec![point(0, 3.0)]] {
            let svg = chart(&Bench { decode, ..Bench::default() });
            assert!(
                svg.trim_end().ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
        }
    }
}
