//! The patterns of a property protection file: Python's, given to a matcher that takes linear time.
//!
//! A pattern is searched anywhere in a name, as Python's `re.search` does. The `regex` crate reads nearly the same language,
//! and this makes up for the rest, so that a pattern means what it means in Python or is refused:
//!
//! | Python | here |
//! |---|---|
//! | lookaround `(?=…)` `(?!…)` `(?<=…)` `(?<!…)`, backreferences `\1` `(?P=…)`, conditions `(?(…)…)` | refused: they cannot be matched in linear time |
//! | atomic groups `(?>…)`, possessive `a++`, verbose `(?x)`, comments `(?#…)` | refused |
//! | octal `\07`, an unescaped `[`, `&&`, `--`, `~~` in a set (Python warns that their meaning will change) | refused: write `\x07`, `\[`, `\&\&`, … |
//! | `\Z`; `\<` and `\>`; `{,n}`; a `{` that begins no repetition | the end; the characters; `{0,n}`; the character |
//! | `\w`, `\W` | letters, digits and `_` of Unicode; no combining marks, which `regex` would take in |
//! | `$` | the end. Python also takes it before a last line feed, which no name has |
//! | `\b` | as `regex` has it: beside combining marks, joiners and digits like `²` it may stand elsewhere than in Python |
//! | `\d`, `\s`, `(?i)` | of Unicode, as there |

use regex::{Regex, RegexBuilder};

/// The memory one pattern may take when compiled.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What `\w` is in Python.
const WORD: &str = r"\p{L}\p{N}_";

/// A pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` {what}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub what: String,
}

/// Compiles a pattern.
///
/// # Errors
/// [`BadPattern`].
pub(super) fn compile(pattern: &str) -> Result<Regex, BadPattern> {
    let bad = |what| BadPattern {
        pattern: pattern.to_owned(),
        what,
    };
    let translated = Translator::new(pattern).translate().map_err(bad)?;
    RegexBuilder::new(&translated)
        .size_limit(COMPILED_BYTES_MAX)
        .nest_limit(64)
        .build()
        .map_err(|error| bad(describe(&error)))
}

/// The last line of an error of `regex` says what is wrong; those above it draw the place.
fn describe(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("takes more than {limit} bytes of memory")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!(
                "is no regular expression: {}",
                last.trim_start_matches("error: ")
            )
        }
    }
}

/// What the character before can be repeated by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It was not repeated yet.
    Open,
    /// It was, and a `?` would make that lazy.
    Repeated,
    /// It was, lazily.
    Lazy,
}

struct Translator {
    pattern: Vec<char>,
    at: usize,
    translated: String,
}

impl Translator {
    fn new(pattern: &str) -> Self {
        Self {
            pattern: pattern.chars().collect(),
            at: 0,
            translated: String::with_capacity(pattern.len()),
        }
    }

    fn translate(mut self) -> Result<String, String> {
        let mut repeat = Repeat::Open;
        while let Some(character) = self.peek(0) {
            if let Some(repetition) = self.repetition() {
                repeat = match (repeat, character) {
                    (Repeat::Open, _) => Repeat::Repeated,
                    (Repeat::Repeated, '?') => Repeat::Lazy,
                    _ => {
                        return Err(self.refused("repeats what is repeated (Python's possessive repetition is not supported)"));
                    }
                };
                let (text, length) = repetition;
                self.translated.push_str(&text);
                self.at += length;
                continue;
            }
            repeat = Repeat::Open;
            match character {
                '\\' => self.escape(false)?,
                '[' => self.set()?,
                '(' => self.group()?,
                '{' => {
                    self.translated.push_str(r"\{");
                    self.at += 1;
                }
                _ => self.copy(1),
            }
        }
        Ok(self.translated)
    }

    /// The repetition that begins here, in the words of `regex`, and how many characters it takes.
    fn repetition(&self) -> Option<(String, usize)> {
        match self.peek(0)? {
            character @ ('*' | '+' | '?') => Some((character.to_string(), 1)),
            '{' => {
                let rest: String = self.pattern.get(self.at + 1..)?.iter().collect();
                let (inside, _) = rest.split_once('}')?;
                let (least, comma, most) = match inside.split_once(',') {
                    Some((least, most)) => (least, ",", most),
                    None => (inside, "", ""),
                };
                let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
                if !digits(least) || !digits(most) || (least.is_empty() && comma.is_empty()) {
                    return None;
                }
                let least = if least.is_empty() { "0" } else { least };
                Some((format!("{{{least}{comma}{most}}}"), inside.len() + 2))
            }
            _ => None,
        }
    }

    fn escape(&mut self, in_set: bool) -> Result<(), String> {
        match self.peek(1) {
            Some('1'..='9') if !in_set => {
                return Err(self.refused("refers back to a group, which is not supported"));
            }
            Some('0'..='9') => {
                return Err(
                    self.refused("has an octal escape, which is not supported: write \\xHH")
                );
            }
            Some('Z') if !in_set => self.translated.push_str(r"\z"),
            Some(character @ ('<' | '>')) => self.translated.push(character),
            Some('w') => self.translated.push_str(&format!("[{WORD}]")),
            Some('W') => self.translated.push_str(&format!("[^{WORD}]")),
            _ => {
                self.copy(2);
                return Ok(());
            }
        }
        self.at += 2;
        Ok(())
    }

    /// Takes `[…]`.
    fn set(&mut self) -> Result<(), String> {
        self.copy(1);
        if self.peek(0) == Some('^') {
            self.copy(1);
        }
        // The first bracket stands for itself.
        if self.peek(0) == Some(']') {
            self.translated.push_str(r"\]");
            self.at += 1;
        }
        while let Some(character) = self.peek(0) {
            match character {
                ']' => {
                    self.copy(1);
                    return Ok(());
                }
                '\\' => self.escape(true)?,
                '[' => return Err(self.refused("has an unescaped `[` in a set: write `\\[`")),
                '&' | '-' | '~' if self.peek(1) == Some(character) => {
                    return Err(self.refused(
                        "has a doubled `&`, `-` or `~` in a set: write `\\` before each",
                    ));
                }
                _ => self.copy(1),
            }
        }
        Err("has a `[` without its `]`".to_owned())
    }

    /// Takes the beginning of a group.
    fn group(&mut self) -> Result<(), String> {
        if self.peek(1) != Some('?') {
            self.copy(1);
            return Ok(());
        }
        let refused = match (self.peek(2), self.peek(3)) {
            (Some('=' | '!'), _) | (Some('<'), Some('=' | '!')) => "looks ahead or behind",
            (Some('P'), Some('=')) => "refers back to a group",
            (Some('('), _) => "has a condition",
            (Some('>'), _) => "has an atomic group",
            (Some('#'), _) => "has a comment",
            _ => {
                let flags: String = self
                    .pattern
                    .get(self.at + 2..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|character| character.is_ascii_lowercase() || **character == '-')
                    .collect();
                if flags.contains('x') {
                    "is verbose"
                } else {
                    self.copy(2);
                    // So that the question mark is not taken for a repetition.
                    return Ok(());
                }
            }
        };
        Err(self.refused(&format!("{refused}, which is not supported")))
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.pattern.get(self.at + ahead).copied()
    }

    fn copy(&mut self, characters: usize) {
        let end = (self.at + characters).min(self.pattern.len());
        self.translated
            .extend(self.pattern.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    fn refused(&self, what: &str) -> String {
        format!("{what} (at character {})", self.at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_python() {
        // A pattern, names that Python 3.11 finds it in (`re.search`), and names it does not.
        type Case = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
        );
        #[rustfmt::skip]
        let cases: &[Case] = &[
            ("x_", &["x_ro", "x_ro_", "x_ro_a", "ax_ro_b", "x_owner_foo", "x_owner_a,b"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^x_ro_.*", &["x_ro_", "x_ro_a"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^x_ro_.*$", &["x_ro_", "x_ro_a"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            (".*", &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"], &[]),
            ("", &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"], &[]),
            ("_ro_", &["x_ro_", "x_ro_a", "ax_ro_b"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^a$", &["a"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            (r"\Aa\Z", &["a"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            (r"^\w+$", &["\u{e9}", "\u{130}", "\u{131}", "a", "A", "b"], &["\u{301}", "\u{200b}", "\u{1f4bf}", "-", "/", "a{"]),
            (r"^\W$", &["\u{301}", "\u{200b}", "\u{1f4bf}", "-", "/"], &["\u{e9}", "\u{130}", "\u{131}", "a", "A", "b"]),
            (r"[\w-]+$", &["\u{e9}", "\u{130}", "\u{131}", "a", "A", "b"], &["\u{301}", "\u{200b}", "\u{1f4bf}", "/", "a{", "a]"]),
            (r"^[^\w]+$", &["\u{301}", "\u{200b}", "\u{1f4bf}", "-", "/", "~/"], &["\u{e9}", "\u{130}", "\u{131}", "a", "A", "b"]),
            (r"^\d+$", &["\u{ff11}", "\u{663}"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            (r"\ba\b", &["a\u{200b}", "a", "a{", "a]", "a ", " a"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            ("a{,2}b$", &["b", "ab", "aab", "a[b", "a-b", "a.b"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "\u{131}"]),
            ("^a{2}$", &["aa"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^a{2,}$", &["aa", "aaa"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^a{1,2}?$", &["a", "aa"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            ("a{", &["a{", "a{x}"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("a{x}", &["a{x}"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^{a}$", &["{a}"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^a??$", &["a"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            (r"\<a\>", &["<a>"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("[]a]$", &["a", "aa", "a]", " a", "aaa", "x_ro_a"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            ("[^]a]", &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"], &["a", "aa", "a]", "aaa"]),
            (r"[a\[b]$", &["a", "b", "aa", "ab", " a", "aaa"], &["\u{e9}", "\u{301}", "\u{130}", "A", "\u{131}", "K"]),
            ("(?i)^ADMIN$", &["admin", "Admin"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("(?i)k", &["K", "hw:disk", "hw_disk"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^hw[:_.]", &["hw:disk", "hw_disk"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^trait:[A-Z_]+$", &["trait:HW_CPU"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^(?P<n>a|b)c$", &["ac"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^(?:a|b)c$", &["ac"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("é", &["\u{e9}"], &["\u{301}", "\u{130}", "\u{131}", "a", "A", "b"]),
            ("^.$", &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"], &["e\u{301}", "i\u{307}", "a\u{200b}", "aa", "ab", "ac"]),
            ("^..$", &["e\u{301}", "i\u{307}", "a\u{200b}", "aa", "ab", "ac"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("^x_owner_[^,]*$", &["x_owner_foo"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            (r"\.", &["a.b"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("a|b|", &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"], &[]),
            ("^(a|ab)(c|bcd)$", &["ac", "abcd"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            (r"\x41", &["A", "Admin", "X_RO_A"], &["\u{e9}", "\u{301}", "\u{130}", "a", "b", "\u{131}"]),
            (r"\u0130", &["\u{130}"], &["\u{e9}", "\u{301}", "\u{131}", "a", "A", "b"]),
            ("(?s)^.$", &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"], &["e\u{301}", "i\u{307}", "a\u{200b}", "aa", "ab", "ac"]),
            (r"a\-b", &["a-b"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            (r"[a\-z]$", &["a", "-", "aa", " a", "aaa", "x_ro_a"], &["\u{e9}", "\u{301}", "\u{130}", "A", "b", "\u{131}"]),
            (r"\/", &["/", "~/"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("~", &["~/"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            ("[!-~]+$", &["a", "A", "b", "K", "_", "-"], &["\u{e9}", "\u{301}", "\u{130}", "\u{131}", "\u{200b}", "\u{ff41}"]),
            (r"^\s", &[" a"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
            (r"\S$", &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"], &["a "]),
            ("(?i:x)Y", &["xY", "XY"], &["\u{e9}", "\u{301}", "\u{130}", "a", "A", "b"]),
        ];
        for (pattern, found, not_found) in cases {
            let regex = compile(pattern).unwrap_or_else(|error| panic!("{error}"));
            for name in *found {
                assert!(regex.is_match(name), "{pattern} in {name:?}");
            }
            for name in *not_found {
                assert!(!regex.is_match(name), "{pattern} in {name:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_matched_in_linear_time_or_means_another_thing_is_refused() {
        let cases = [
            (
                "a(?=b)",
                "looks ahead or behind, which is not supported (at character 2)",
            ),
            (
                "(?!os_)",
                "looks ahead or behind, which is not supported (at character 1)",
            ),
            (
                "(?<=a)b",
                "looks ahead or behind, which is not supported (at character 1)",
            ),
            (
                "(?<!a)b",
                "looks ahead or behind, which is not supported (at character 1)",
            ),
            (
                r"(a)\1",
                "refers back to a group, which is not supported (at character 4)",
            ),
            (
                "(?P<n>a)(?P=n)",
                "refers back to a group, which is not supported (at character 9)",
            ),
            (
                "(a)?(?(1)b|c)",
                "has a condition, which is not supported (at character 5)",
            ),
            (
                "(?>a+)b",
                "has an atomic group, which is not supported (at character 1)",
            ),
            (
                "(?#x)a",
                "has a comment, which is not supported (at character 1)",
            ),
            (
                "(?ix)a b",
                "is verbose, which is not supported (at character 1)",
            ),
            (
                "a++",
                "repeats what is repeated (Python's possessive repetition is not supported) (at character 3)",
            ),
            (
                "a{2}{3}",
                "repeats what is repeated (Python's possessive repetition is not supported) (at character 5)",
            ),
            (
                r"\07",
                r"has an octal escape, which is not supported: write \xHH (at character 1)",
            ),
            (
                r"[\1]",
                r"has an octal escape, which is not supported: write \xHH (at character 2)",
            ),
            (
                "[[:alpha:]]",
                r"has an unescaped `[` in a set: write `\[` (at character 2)",
            ),
            (
                "[a&&b]",
                r"has a doubled `&`, `-` or `~` in a set: write `\` before each (at character 3)",
            ),
            ("[a", "has a `[` without its `]`"),
            ("(a", "is no regular expression: unclosed group"),
            (
                "*a",
                "is no regular expression: repetition operator missing expression",
            ),
            (
                "(?P<n>a{1000}{2})",
                "repeats what is repeated (Python's possessive repetition is not supported) (at character 14)",
            ),
            (
                "((a{99}){99}){99}",
                "takes more than 1048576 bytes of memory",
            ),
        ];
        for (pattern, what) in cases {
            match compile(pattern) {
                Err(error) => assert_eq!(error.what, what, "{pattern}"),
                Ok(_) => panic!("{pattern} is accepted"),
            }
        }
        let nested = "(".repeat(200) + "a" + &")".repeat(200);
        assert!(compile(&nested).is_err());
    }
}
