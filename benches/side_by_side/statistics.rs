//! Medians, and how peers compare round by round. Pure.

/// The middle of some values, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { median, least, most })
    }
}

/// What that share of a part's sorted values is below, of the median part: what happens in few parts does not show in it.
pub(crate) fn usual(parts: &[Vec<u64>], share: f64) -> Option<f64> {
    let of = |part: &Vec<u64>| part.get((part.len() as f64 * share) as usize).map(|value| *value as f64);
    Some(Spread::of(parts.iter().filter_map(of))?.median)
}

/// Value by value, `values` ÷ the least that a rival had in the same round. Rounds without either are left out.
pub(crate) fn against_best(values: &[Option<f64>], rivals: &[&[Option<f64>]]) -> Vec<f64> {
    let best =
        |round: usize| rivals.iter().filter_map(|rival| rival.get(round).copied().flatten()).min_by(f64::total_cmp);
    values
        .iter()
        .enumerate()
        .filter_map(|(round, value)| Some(value.as_ref()? / best(round).filter(|best| *best > 0.0)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_in_one_part_is_not_usual() {
        let calm: Vec<u64> = (0..100).collect();
        let stalled = vec![1_000_000; 100];
        let parts = [calm.clone(), stalled.clone(), Vec::new(), calm];
        assert_eq!((usual(&parts, 0.5), usual(&parts, 0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(usual(&[stalled], 0.99), Some(1e6));
        assert_eq!(usual(&[], 0.99), None);
    }

    #[test]
    fn medians() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
    }

    #[test]
    fn each_round_has_its_own_best() {
        let (ours, one, two) =
            ([Some(9.0), Some(10.0), None], [Some(10.0), Some(20.0), Some(1.0)], [None, Some(8.0), None]);
        assert_eq!(against_best(&ours, &[&one, &two]), [0.9, 1.25]);
        assert_eq!(against_best(&ours, &[]), Vec::<f64>::new());
    }
}
