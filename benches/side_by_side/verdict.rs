//! How a scenario's entrants compare, and whether its targets are met. Pure.

use std::fmt::{Display, Formatter};

use crate::rounds::{Measured, Row};
use crate::scenario::{About, Against, Of, Target};
use crate::statistics::{Spread, against_best};

/// With whom is compared, in words.
pub(crate) fn against(about: &About) -> &'static str {
    match about.against {
        Against::BestRival => "best rival",
        Against::Entrant(name) => name,
    }
}

/// The values of one figure, round by round.
pub(crate) fn values(row: &Row, figure: usize) -> Vec<Option<f64>> {
    row.samples.iter().map(|sample| sample.as_ref().ok()?.get(figure).copied()).collect()
}

/// A row's figure ÷ the one that it is compared with, for each round that has both.
pub(crate) fn ratios(measured: &Measured, row: &Row, figure: usize) -> Vec<f64> {
    let is_rival = |row: &&Row| match measured.scenario.about().against {
        Against::BestRival => row.entrant.peer.is_rival(),
        Against::Entrant(name) => row.entrant.name == name,
    };
    let rivals: Vec<Vec<Option<f64>>> = measured.rows.iter().filter(is_rival).map(|row| values(row, figure)).collect();
    let rivals: Vec<&[Option<f64>]> = rivals.iter().map(Vec::as_slice).collect();
    against_best(&values(row, figure), &rivals)
}

/// A target, and what came out.
pub(crate) struct Verdict {
    pub(crate) target: Target,
    /// The figure's name.
    pub(crate) figure: &'static str,
    /// With whom it is compared, if it is.
    against: Option<&'static str>,
    pub(crate) digits: usize,
    pub(crate) came: Option<Spread>,
}

impl Verdict {
    /// Whether the median is no more than was wanted.
    pub(crate) fn is_met(&self) -> bool {
        self.came.is_some_and(|came| came.median <= self.target.most)
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (digits, most) = (self.digits, self.target.most);
        write!(f, "{}: {}", self.target.entrant, self.figure)?;
        if let Some(against) = self.against {
            write!(f, " ÷ {against}")?;
        }
        write!(f, " ≤ {most:.digits$}: ")?;
        match self.came {
            Some(came) => write!(f, "{:.digits$}, {}", came.median, if self.is_met() { "met" } else { "missed" }),
            None => write!(f, "not measured"),
        }
    }
}

/// The targets of a scenario, and what came out.
pub(crate) fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let about = measured.scenario.about();
    let verdict = |target: &Target| {
        let figure = about.figures.get(target.figure)?;
        let row = measured.rows.iter().find(|row| row.entrant.name == target.entrant)?;
        let (against, digits, came) = match target.of {
            Of::Value => (None, figure.digits, Spread::of(values(row, target.figure).into_iter().flatten())),
            Of::Ratio => (Some(against(&about)), 2, Spread::of(ratios(measured, row, target.figure))),
        };
        Some(Verdict { target: *target, figure: figure.name, against, digits, came })
    };
    about.targets.iter().filter_map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    #[test]
    fn every_target_is_about_something_that_is_measured() {
        for scenario in SCENARIOS {
            let samples = vec![Ok(vec![1.0; scenario.about().figures.len()])];
            let rows = scenario.entrants().into_iter().map(|entrant| Row { entrant, samples: samples.clone() });
            let measured = Measured { scenario: *scenario, rows: rows.collect() };
            let verdicts = verdicts(&measured);
            assert_eq!(verdicts.len(), scenario.about().targets.len(), "{}", scenario.about().id);
            assert!(verdicts.iter().all(|verdict| verdict.came.is_some()), "{}", scenario.about().id);
        }
    }

    #[test]
    fn a_median_decides() {
        let target = Target { entrant: "etna", figure: 0, of: Of::Value, most: 2.0 };
        let came =
            |values: [f64; 3]| Verdict { target, figure: "ms", against: None, digits: 1, came: Spread::of(values) };
        assert_eq!(came([1.0, 2.0, 9.0]).to_string(), "etna: ms ≤ 2.0: 2.0, met");
        assert_eq!(came([1.0, 3.0, 9.0]).to_string(), "etna: ms ≤ 2.0: 3.0, missed");
    }
}
