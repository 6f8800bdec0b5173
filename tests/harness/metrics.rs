//! Reads the Prometheus text format, as far as tests ask.

use std::collections::BTreeMap;

/// Samples by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads a page; panics at a line that is none of the format.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics { samples: lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect() }
    }

    /// The sum of all samples of a name that have these labels; `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has =
            |sample: &Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value));
        let found: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && has(sample))
            .map(|sample| sample.value)
            .collect();
        if found.is_empty() { None } else { Some(found.iter().sum()) }
    }

    /// Every name there is.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let (text, after) = quoted(after)?;
        labels.insert(key.to_owned(), text);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_and_sums_series() {
        let metrics = Metrics::parse("# HELP x y\nx{a=\"1\",b=\"q\\\"}\"} 2\nx{a=\"1\"} 3.5\ny 4\n");
        assert_eq!(metrics.sum("x", &[("a", "1")]), Some(5.5));
        assert_eq!(metrics.sum("x", &[("b", "q\"}")]), Some(2.0));
        assert_eq!(metrics.sum("y", &[]), Some(4.0));
        assert_eq!(metrics.sum("z", &[]), None);
        assert_eq!(metrics.names(), ["x", "y"]);
    }
}
