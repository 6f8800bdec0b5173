//! The charts of growth: what a request costs, against what there is more and more of. One small chart a scenario.

use crate::rounds::{Done, Measured};
use crate::statistics::Spread;
use crate::svg::{Anchor, Svg};
use crate::verdict::values;

/// Draws them; `None` where nothing grows.
pub(crate) fn draw(done: &Done, said: &str) -> Option<String> {
    let growing: Vec<(&Measured, &str)> =
        done.scenarios.iter().filter_map(|measured| Some((measured, measured.scenario.about().grows_with?))).collect();
    if growing.is_empty() {
        return None;
    }
    let mut svg = Svg::new(WIDTH);
    svg.text((20.0, 28.0), Anchor::Start, "head", "CPU µs/request as things grow");
    svg.text((WIDTH - 20.0, 28.0), Anchor::End, "soft", said);
    for (number, (measured, what)) in growing.iter().enumerate() {
        let (column, line) = (number % 2, number / 2);
        one(&mut svg, (column as f64 * WIDTH / 2.0 + 20.0, 56.0 + line as f64 * HEIGHT), measured, what);
    }
    Some(svg.done(60.0 + growing.len().div_ceil(2) as f64 * HEIGHT, "CPU per request as things grow"))
}

fn one(svg: &mut Svg, (left, top): (f64, f64), measured: &Measured, what: &str) {
    let points: Vec<(&str, f64, Spread)> = measured
        .rows
        .iter()
        .filter_map(|row| {
            let number: f64 = row.entrant.name.replace(',', "").parse().ok()?;
            Some((row.entrant.name, number.ln(), Spread::of(values(row, 0).into_iter().flatten())?))
        })
        .collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let most = points.iter().map(|(_, _, spread)| spread.most).fold(0.0, f64::max) * 1.15;
    let (begin, end, bottom) = (left + 40.0, left + WIDTH / 2.0 - 50.0, top + HEIGHT - 60.0);
    let x = |at: f64| {
        begin + INSET + (at - first.1) / (last.1 - first.1).max(f64::MIN_POSITIVE) * (end - begin - 2.0 * INSET)
    };
    let y = |value: f64| bottom - value / most.max(f64::MIN_POSITIVE) * (bottom - top - 20.0);
    let step = step(most);
    let mut tick = 0.0;
    while tick <= most {
        svg.line((begin, y(tick)), (end, y(tick)), "rule");
        svg.text((begin - 8.0, y(tick) + 4.0), Anchor::End, "soft", &format!("{tick:.0}"));
        tick += step;
    }
    svg.text((begin, top + 6.0), Anchor::Start, "", &format!("more {what} ({})", measured.scenario.about().id));
    let line: Vec<(f64, f64)> = points.iter().map(|(_, at, spread)| (x(*at), y(spread.median))).collect();
    svg.lines(&line, "line");
    for (name, at, spread) in &points {
        svg.line((x(*at), y(spread.least)), (x(*at), y(spread.most)), "");
        svg.dot((x(*at), y(spread.median)), 4.0, "dot");
        svg.text((x(*at), y(spread.most) - 8.0), Anchor::Middle, "", &format!("{:.1}", spread.median));
        svg.text((x(*at), bottom + 18.0), Anchor::Middle, "soft", name);
    }
}

/// 1, 2 or 5 and zeros, so that there are at most six.
fn step(most: f64) -> f64 {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(most.max(1.0))
}

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 230.0;
/// Between the first point and the axis.
const INSET: f64 = 28.0;
