//! Reads a profile as callgrind writes it (valgrind's manual, "Callgrind Format Specification"). Pure.
//!
//! Only what is asked for here: instructions by function of one object, and calls of functions by name.

use std::collections::HashMap;

/// What one thread did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Instructions by object (a program or library) and function.
    pub(crate) instructions: HashMap<(String, String), u64>,
    /// Calls by who called and who was called.
    pub(crate) calls: HashMap<(String, String), u64>,
}

/// Names that were said once and are numbers from then on.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// `(7) name` says what 7 is, `(7)` is that again; a name without a number is itself.
    fn of(&mut self, text: &str) -> String {
        let Some((number, name)) = text.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            return text.to_owned();
        };
        if !name.trim().is_empty() {
            self.0.insert(number.to_owned(), name.trim().to_owned());
        }
        self.0.get(number).cloned().unwrap_or_default()
    }
}

impl Profile {
    /// Reads one; what it does not know it leaves out.
    pub(crate) fn parse(text: &str) -> Profile {
        let mut profile = Profile::default();
        let (mut objects, mut functions) = (Names::default(), Names::default());
        let (mut object, mut function, mut called) = (String::new(), String::new(), String::new());
        // The line after `calls=` says what the call cost, which is counted where it was spent.
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("ob=") {
                object = objects.of(name);
            } else if let Some(name) = line.strip_prefix("cob=") {
                objects.of(name);
            } else if let Some(name) = line.strip_prefix("fn=") {
                function = functions.of(name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = functions.of(name);
            } else if let Some(times) = line.strip_prefix("calls=") {
                let times = times.split(' ').next().and_then(|times| times.parse::<u64>().ok()).unwrap_or(0);
                *profile.calls.entry((function.clone(), called.clone())).or_default() += times;
                is_call = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c))
                && !std::mem::take(&mut is_call)
            {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
                *profile.instructions.entry((object.clone(), function.clone())).or_default() += cost;
            }
        }
        profile
    }

    /// Instructions in an object of that name, in whatever folder, by function, the most first.
    pub(crate) fn within(&self, object: &str) -> Vec<(String, u64)> {
        let is_it = |path: &str| path.rsplit('/').next() == Some(object);
        let mut found: Vec<(String, u64)> = self
            .instructions
            .iter()
            .filter(|((path, _), _)| is_it(path))
            .map(|((_, function), count)| (function.clone(), *count))
            .collect();
        found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found
    }

    /// Memory that was asked of mimalloc, by anybody but itself; moving it to a larger place is once more.
    pub(crate) fn allocations(&self) -> u64 {
        let is_own = |name: &str| name.starts_with("mi_") || name.starts_with("_mi_");
        let asks = |name: &str| {
            ["mi_malloc", "mi_zalloc", "mi_calloc", "mi_realloc", "mi_heap_"].iter().any(|ask| name.starts_with(ask))
        };
        self.calls.iter().filter(|((by, of), _)| asks(of) && !is_own(by)).map(|(_, times)| times).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read() {
        let text = "version: 1\nevents: Ir\nthread: 6\n\nob=(1) /x/etna\nfl=(1) a.rs\nfn=(1) ours\n12 100\n+3 5\n\
            cob=(2) /lib/libc.so.6\ncfi=(2) b.c\ncfn=(2) memcpy\ncalls=7 33\n* 999\n* 1\n\
            cfn=(3) mi_malloc_aligned\ncalls=4 1\n16 888\n-2 1\n\
            fn=(3)\n1 50\ncfn=(4) _mi_malloc_generic\ncalls=1 1\n1 40\ncfn=(5) mi_malloc\ncalls=9 9\n1 1\n\
            ob=(2)\nfn=(2)\n5 70\n";
        let profile = Profile::parse(text);
        assert_eq!(profile.within("etna"), [("ours".into(), 107), ("mi_malloc_aligned".into(), 50)]);
        assert_eq!(profile.within("libc.so.6"), [("memcpy".into(), 70)]);
        assert_eq!(profile.allocations(), 4);
        assert_eq!(
            Profile::parse("nonsense\n12\n"),
            Profile { instructions: Profile::parse("12\n").instructions, ..Profile::default() }
        );
    }
}
