//! The little of SVG that charts need, with a background of its own, so that it can be read on a light page and on a
//! dark one.

/// A picture as it grows.
pub(crate) struct Svg {
    width: f64,
    text: String,
}

/// Where a text begins, or else ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty one.
    pub(crate) fn new(width: f64) -> Svg {
        Svg { width, text: String::new() }
    }

    /// A text of a class.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.text +=
            &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>\n");
    }

    /// A line of a class.
    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.text += &format!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" class=\"{class}\"/>\n");
    }

    /// Lines from point to point.
    pub(crate) fn lines(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        self.text += &format!("<path d=\"M{}\" class=\"{class}\"/>\n", points.join("L"));
    }

    /// A rectangle, by its corner, width and height.
    pub(crate) fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        self.text += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>\n"
        );
    }

    /// A disc.
    pub(crate) fn dot(&mut self, (x, y): (f64, f64), radius: f64, class: &str) {
        self.text += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{class}\"/>\n");
    }

    /// The whole file.
    pub(crate) fn done(self, height: f64, title: &str) -> String {
        let (width, text) = (self.width, self.text);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" class=\"page\"/>\n{text}</svg>\n"
        )
    }
}

const STYLE: &str = "
svg{--page:#fff;--ink:#1f2328;--soft:#656d76;--rule:#d8dee4;--met:#2f7d4f;--missed:#c4622d;--line:#2b62b5}
@media (prefers-color-scheme:dark){svg{--page:#12161c;--ink:#e6edf3;--soft:#9aa4af;--rule:#333b45;--met:#46a76d;\
--missed:#dd8452;--line:#6ea8fe}}
text{font:12px system-ui,sans-serif;fill:var(--ink)}
text.head{font-size:15px;font-weight:600}
text.soft{fill:var(--soft)}
path{fill:none;stroke:var(--ink);stroke-width:1.2}
path.rule{stroke:var(--rule);stroke-width:1}
path.even{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
path.target{stroke-width:2.5}
path.line{stroke:var(--line);stroke-width:2}
.page{fill:var(--page)}
.met{fill:var(--met)}
.missed{fill:var(--missed)}
.floor{fill:var(--page);stroke:var(--soft);stroke-width:1.5}
.dot{fill:var(--line)}
";
