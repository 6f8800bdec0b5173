//! The matchers by name: how many arguments each takes, and an example for those who wrote it wrongly.

/// A matcher's name.
pub(super) struct Name {
    pub(super) name: &'static str,
    /// Fewest arguments.
    pub(super) least: usize,
    /// Most arguments.
    pub(super) most: usize,
    /// A correct use.
    pub(super) example: &'static str,
}

/// The matcher of that name; case matters, as in vulcand.
pub(super) fn find(name: &str) -> Option<&'static Name> {
    NAMES.iter().find(|known| known.name == name)
}

/// What to write instead of a name that there is not.
pub(super) fn hint(name: &str) -> String {
    match nearest(name) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            let names: Vec<&str> = NAMES.iter().map(|known| known.name).collect();
            format!("use one of {}", names.join(", "))
        }
    }
}

impl Name {
    /// What it takes, in words.
    pub(super) fn takes(&self) -> String {
        match (self.least, self.most) {
            (1, 1) => "1 argument".to_owned(),
            (least, most) if least == most => format!("{least} arguments"),
            (least, most) => format!("{least} to {most} arguments"),
        }
    }
}

/// The matcher whose name differs least, if it differs little.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let names = NAMES.iter().map(|known| (distance(&lower, &known.name.to_ascii_lowercase()), known.name));
    names.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= 2).map(|(_, name)| name)
}

/// Levenshtein's distance of two short words; of a longer one only the beginning counts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(LONGEST).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const fn name(name: &'static str, least: usize, most: usize, example: &'static str) -> Name {
    Name { name, least, most, example }
}

const NAMES: &[Name] = &[
    name("Host", 1, 1, r#"Host("example.com")"#),
    name("HostRegexp", 1, 1, r"HostRegexp(`^[a-z]+\.example\.com$`)"),
    name("Path", 1, 1, r#"Path("/shop/<int:id>")"#),
    name("PathPrefix", 1, 1, r#"PathPrefix("/shop")"#),
    name("PathRegexp", 1, 1, r#"PathRegexp("^/shop/.*")"#),
    name("Method", 1, 1, r#"Method("GET")"#),
    name("MethodRegexp", 1, 1, r#"MethodRegexp("^(GET|HEAD)$")"#),
    name("Header", 2, 2, r#"Header("X-Version", "2")"#),
    name("HeaderRegexp", 2, 2, r#"HeaderRegexp("User-Agent", "curl/.*")"#),
    name("Query", 1, 2, r#"Query("page") or Query("page", "2")"#),
    name("QueryOnly", 2, 2, r#"QueryOnly("action", "view")"#),
    name("QueryRegexp", 2, 2, r#"QueryRegexp("page", "^[0-9]+$")"#),
    name("Cookie", 1, 2, r#"Cookie("session") or Cookie("beta", "yes")"#),
    name("CookieRegexp", 1, 1, r#"CookieRegexp("^wordpress_logged_in_")"#),
    name("ClientIP", 1, MANY, r#"ClientIP("10.0.0.0/8", "2001:db8::1")"#),
    name("Segment", 1, MANY, r#"Segment("wp-admin", "wp-login.php")"#),
    name("LastSegment", 1, MANY, r#"LastSegment("admin-ajax.php")"#),
];
const MANY: usize = 64;
const LONGEST: usize = 32;
