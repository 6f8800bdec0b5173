//! Prometheus' text format, version 0.0.4: how metrics are written. Which metrics there are is said in `metrics.rs`.

use std::fmt::{Display, Write as _};

/// What kind of metric it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

/// Writes the head of a metric: once, before its samples.
pub(super) fn family(out: &mut String, name: &str, help: &str, kind: Kind) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a String cannot fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Writes one sample.
pub(super) fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        escape(out, text);
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_escaped() {
        let mut out = String::new();
        family(&mut out, "a", "two\nlines \\", Kind::Gauge);
        sample(&mut out, "a", &[("x", "q\"b\\s\nn"), ("y", "ü")], 1.5);
        sample(&mut out, "a", &[], 2);
        assert_eq!(out, "# HELP a two\\nlines \\\\\n# TYPE a gauge\na{x=\"q\\\"b\\\\s\\nn\",y=\"ü\"} 1.5\na 2\n");
    }
}
