//! The chart of targets: a bar for each, as long as what came out, and a mark where it has to end.
//!
//! Above what is compared with the best rival, below what has a target of its own, in parts of that target.

use crate::peer::Kind;
use crate::rounds::{Done, Measured};
use crate::scenario::{Against, Of};
use crate::statistics::Spread;
use crate::svg::{Anchor, Svg};
use crate::verdict::{Verdict, ratios, verdicts};

/// Draws it; `None` where nothing has a target.
pub(crate) fn draw(done: &Done, said: &str) -> Option<String> {
    let all: Vec<(&Measured, Verdict)> = done
        .scenarios
        .iter()
        .flat_map(|measured| verdicts(measured).into_iter().map(move |verdict| (measured, verdict)))
        .filter(|(_, verdict)| verdict.came.is_some())
        .collect();
    let (compared, own): (Vec<_>, Vec<_>) = all.into_iter().partition(|(measured, verdict)| {
        verdict.target.of == Of::Ratio && measured.scenario.about().against == Against::BestRival
    });
    if compared.is_empty() && own.is_empty() {
        return None;
    }
    let mut svg = Svg::new(WIDTH);
    let mut y = 28.0;
    svg.text((LEFT, y), Anchor::Start, "head", "Etna side by side");
    svg.text((WIDTH - LEFT, y), Anchor::End, "soft", said);
    if !compared.is_empty() {
        y = panel(
            &mut svg,
            y + 34.0,
            "÷ the best of HAProxy, nginx, Caddy; 1 is that one, less is better",
            &compared,
            |v| (1.0, format!("{:.2}", v.median)),
        );
    }
    if !own.is_empty() {
        y = panel(&mut svg, y + 34.0, "in parts of its target; less is better", &own, |_| (0.0, String::new()));
    }
    legend(&mut svg, y + 24.0, compared.iter().any(|(measured, verdict)| floor(measured, verdict).is_some()));
    Some(svg.done(y + 44.0, "Etna side by side"))
}

/// A headed group of bars; where it ends. `scale` says of a verdict's spread what a part of 0 stands for: its target.
fn panel(
    svg: &mut Svg,
    top: f64,
    head: &str,
    rows: &[(&Measured, Verdict)],
    scale: impl Fn(&Spread) -> (f64, String),
) -> f64 {
    svg.text((LEFT, top), Anchor::Start, "soft", head);
    let (first, last) = (top + 22.0, top + 22.0 + rows.len() as f64 * ROW);
    for tick in 0..=4 {
        let at = f64::from(tick) / 2.0;
        svg.line((x(at), first - 4.0), (x(at), last), if tick == 2 { "even" } else { "rule" });
        svg.text((x(at), first - 9.0), Anchor::Middle, "soft", &format!("{at:.1}"));
    }
    for (number, (measured, verdict)) in rows.iter().enumerate() {
        let Some(came) = verdict.came else { continue };
        let y = first + number as f64 * ROW;
        let (whole, label) = scale(&came);
        let is_compared = whole > 0.0;
        let whole = if is_compared { whole } else { verdict.target.most };
        let part = |value: f64| {
            if whole > 0.0 {
                value / whole
            } else if value > 0.0 {
                MOST
            } else {
                0.0
            }
        };
        let label = if is_compared { label } else { own_label(verdict, &came) };
        let class = if verdict.is_met() { "met" } else { "missed" };
        svg.text((BEGIN - 10.0, y + 14.0), Anchor::End, "", &name(measured, verdict, is_compared));
        svg.bar((BEGIN, y + 4.0), (x(part(came.median)) - BEGIN, ROW - 10.0), class);
        let (middle, ends) = (y + ROW / 2.0 - 1.0, (x(part(came.least)), x(part(came.most))));
        if ends.1 > ends.0 {
            svg.line((ends.0, middle), (ends.1, middle), "");
        }
        if let Some(floor) = floor(measured, verdict) {
            svg.dot((x(floor), middle), 4.0, "floor");
        }
        let target = x(if is_compared { verdict.target.most } else { 1.0 });
        svg.line((target, y + 1.0), (target, y + ROW - 3.0), "target");
        svg.text((WIDTH - LEFT, y + 14.0), Anchor::End, "", &label);
    }
    last
}

fn name(measured: &Measured, verdict: &Verdict, is_compared: bool) -> String {
    let id = measured.scenario.about().id.to_uppercase();
    if is_compared {
        format!("{id}  {}", verdict.figure)
    } else {
        format!("{id}  {}: {}", verdict.target.entrant, verdict.figure)
    }
}

fn own_label(verdict: &Verdict, came: &Spread) -> String {
    let digits = verdict.digits;
    format!("{:.digits$} of {:.digits$}", came.median, verdict.target.most)
}

/// What the relay had, compared in the same way.
fn floor(measured: &Measured, verdict: &Verdict) -> Option<f64> {
    if verdict.target.of != Of::Ratio {
        return None;
    }
    let row = measured.rows.iter().find(|row| row.entrant.peer == Kind::Floor)?;
    Spread::of(ratios(measured, row, verdict.target.figure)).map(|spread| spread.median)
}

fn legend(svg: &mut Svg, y: f64, has_floor: bool) {
    let mut at = LEFT;
    for (class, what) in [("met", "target met"), ("missed", "target missed")] {
        svg.bar((at, y - 9.0), (18.0, 10.0), class);
        svg.text((at + 24.0, y), Anchor::Start, "soft", what);
        at += 125.0;
    }
    svg.line((at + 4.0, y - 11.0), (at + 4.0, y + 3.0), "target");
    svg.text((at + 14.0, y), Anchor::Start, "soft", "the target");
    at += 100.0;
    svg.line((at, y - 4.0), (at + 18.0, y - 4.0), "");
    svg.text((at + 24.0, y), Anchor::Start, "soft", "least to most of the rounds");
    at += 210.0;
    if has_floor {
        svg.dot((at + 4.0, y - 4.0), 4.0, "floor");
        svg.text((at + 14.0, y), Anchor::Start, "soft", "a relay that looks at no byte");
    }
}

/// Where a part is drawn; what is beyond the edge is drawn there.
fn x(part: f64) -> f64 {
    BEGIN + part.clamp(0.0, MOST) / MOST * (END - BEGIN)
}

const WIDTH: f64 = 920.0;
const LEFT: f64 = 20.0;
/// Where bars begin, and where the longest ends.
const BEGIN: f64 = 390.0;
const END: f64 = 780.0;
/// The greatest part that is drawn: beyond the last tick, so that more than that is seen to be more.
const MOST: f64 = 2.15;
const ROW: f64 = 22.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Row;
    use crate::scenario::SCENARIOS;

    #[test]
    fn every_target_gets_a_bar() {
        let measured = SCENARIOS.iter().map(|scenario| {
            let samples = vec![Ok(vec![1.0; scenario.about().figures.len()])];
            let rows = scenario.entrants().into_iter().map(|entrant| Row { entrant, samples: samples.clone() });
            Measured { scenario: *scenario, rows: rows.collect() }
        });
        let done = Done { peers: Vec::new(), scenarios: measured.collect() };
        let chart = draw(&done, "now").unwrap();
        let targets: usize = SCENARIOS.iter().map(|scenario| scenario.about().targets.len()).sum();
        // One more as background, two in the legend.
        assert_eq!(chart.matches("<rect").count(), targets + 3);
        assert!(draw(&Done { peers: Vec::new(), scenarios: Vec::new() }, "now").is_none());
    }
}
