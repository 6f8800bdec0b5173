//! What people and programs read: aligned tables or JSON on stdout, complaints on stderr.
//!
//! Colour only on terminals, and not where `NO_COLOR` is set. Text that came from elsewhere cannot control a terminal.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::cli::Format;

/// Where results go, and how.
pub(crate) struct Output {
    format: Format,
    colour: bool,
}

/// What a text means to its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Needs a look.
    Bad,
    /// Beside the point.
    Faint,
}

impl Output {
    /// Writes to stdout.
    pub(crate) fn new(format: Format) -> Output {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Output { format, colour }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes a value as JSON.
    pub(crate) fn json(&self, value: &Value) {
        print(&format!("{value:#}\n"));
    }

    /// Writes a table; an empty one says so.
    pub(crate) fn table(&self, header: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            complain_softly("none");
            return;
        }
        print(&table(header, rows));
    }

    /// Writes lines of a name and a text, aligned. Only the tone of a text is ours: the text itself is cleaned.
    pub(crate) fn facts(&self, facts: &[(String, String, Option<Tone>)]) {
        let width = facts.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let line = |(name, text, tone): &(String, String, Option<Tone>)| {
            let name = format!("{:width$}", clean(name));
            let text = clean(text);
            let text = tone.map_or(text.clone(), |tone| self.toned(tone, &text));
            format!("{}  {text}\n", self.toned(Tone::Faint, &name))
        };
        print(&facts.iter().map(line).collect::<String>());
    }

    /// A text in the colour of its meaning.
    pub(crate) fn toned(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Writes to stdout. A reader that has left (`| head`) is no error.
pub(crate) fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// The same for bytes.
pub(crate) fn print_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Writes an error to stderr.
pub(crate) fn complain(message: &str) {
    let red = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let start = if red { "\u{1b}[31metnactl:\u{1b}[0m" } else { "etnactl:" };
    let _ = writeln!(std::io::stderr(), "{start} {}", clean(message));
}

/// Writes a remark to stderr.
pub(crate) fn complain_softly(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}", clean(message));
}

/// A JSON value in one cell of a table.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The leaves of a JSON object as names and texts: `Settings.Timeouts.Read`, `5s`.
pub(crate) fn leaves(value: &Value) -> Vec<(String, String)> {
    fn walk(name: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (field, value) in fields {
                    let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                    walk(&name, value, leaves);
                }
            }
            other => leaves.push((name.to_owned(), cell(other))),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}

fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clip(&clean(cell))).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let head = line(&mut header.iter().copied());
    rows.iter().fold(head, |text, row| text + &line(&mut row.iter().map(String::as_str)))
}

/// A cell that leaves room for others; JSON output has all of it.
fn clip(cell: &str) -> String {
    if cell.chars().count() <= WIDEST {
        return cell.to_owned();
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

/// Text without what controls a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if is_harmful(c) { c.escape_unicode().collect() } else { vec![c] }).collect()
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

const WIDEST: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let rows = vec![vec!["a".into(), "long text".into()], vec!["bbb\u{1b}".into(), "x".into()]];
        assert_eq!(table(&["ID", "TEXT"], &rows), "ID         TEXT\na          long text\nbbb\\u{1b}  x\n");
    }

    #[test]
    fn a_wide_cell_is_cut() {
        let text = table(&["A", "B"], &[vec!["x".repeat(500), "y".into()]]);
        assert_eq!(text.lines().last(), Some(format!("{}…  y", "x".repeat(79)).as_str()));
    }

    #[test]
    fn leaves_have_their_whole_name() {
        let object = json!({ "Id": "b", "Settings": { "Timeouts": { "Read": "5s" }, "TLS": null, "Empty": {} } });
        let leaves = leaves(&object);
        assert!(leaves.contains(&("Settings.Timeouts.Read".into(), "5s".into())));
        assert!(leaves.contains(&("Settings.TLS".into(), "-".into())));
        assert!(leaves.contains(&("Settings.Empty".into(), "{}".into())));
    }

    #[test]
    fn cells_are_plain() {
        assert_eq!(cell(&json!(["a", 1])), "a, 1");
        assert_eq!(cell(&json!("")), "-");
        assert_eq!(cell(&json!(true)), "true");
    }
}
