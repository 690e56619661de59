//! The file's outer form: the INI dialect of Python's `configparser`, as far as protection files need it.
//!
//! Sections and keys keep their order and line. A line that begins with `#` or `;` is a comment; there are none behind a value.
//! `key = value` or `key: value`; keys in any case. A line indented deeper than its key goes on with the value.
//! Unlike there, nothing is put into values (`%` is refused), `[DEFAULT]` gives nothing to other sections (it is refused),
//! and text behind a section's `]` is refused.

/// The longest file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// What stands in the brackets.
    pub(super) name: String,
    /// Its line, from 1.
    pub(super) line: usize,
    /// Its keys.
    pub(super) keys: Vec<Key>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// The key, in lower case.
    pub(super) name: String,
    /// The value without space around it; lines that go on with it are joined by line feeds.
    pub(super) value: String,
    /// Its line, from 1.
    pub(super) line: usize,
}

/// What is wrong in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLine {
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) what: String,
}

/// Reads the sections of a file.
pub(super) fn parse(text: &str) -> Result<Vec<Section>, BadLine> {
    if text.len() > FILE_BYTES_MAX {
        return Err(BadLine {
            line: 1,
            what: format!(
                "the file has {} bytes; at most {FILE_BYTES_MAX} are allowed",
                text.len()
            ),
        });
    }
    let mut sections: Vec<Section> = Vec::new();
    // How deep the last key is indented; none if there is none in this section yet.
    let mut key_indent = None;
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let bad = |what: String| BadLine { line, what };
        let content = raw.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if content.contains('\0') {
            return Err(bad("it contains a NUL".to_owned()));
        }
        let indent = raw
            .chars()
            .take_while(|character| character.is_whitespace())
            .count();
        if key_indent.is_some_and(|key| indent > key) {
            let key = sections
                .last_mut()
                .and_then(|section| section.keys.last_mut());
            let key = key.expect("because its indent is known");
            check_value(content).map_err(bad)?;
            if !key.value.is_empty() {
                key.value.push('\n');
            }
            key.value.push_str(content);
        } else if content.starts_with('[') {
            let name = section_name(content).map_err(bad)?;
            if let Some(earlier) = sections.iter().find(|section| section.name == name) {
                return Err(bad(format!(
                    "section [{name}] stands in line {} already",
                    earlier.line
                )));
            }
            sections.push(Section {
                name: name.to_owned(),
                line,
                keys: Vec::new(),
            });
            key_indent = None;
        } else {
            let Some(section) = sections.last_mut() else {
                return Err(bad(format!("`{content}` stands before the first section")));
            };
            let (name, value) = key_and_value(content).map_err(bad)?;
            if let Some(earlier) = section.keys.iter().find(|key| key.name == name) {
                return Err(bad(format!(
                    "`{name}` of [{}] stands in line {} already",
                    section.name, earlier.line
                )));
            }
            section.keys.push(Key { name, value, line });
            key_indent = Some(indent);
        }
    }
    Ok(sections)
}

/// The name is what stands up to the last bracket, since a pattern may contain some itself.
fn section_name(content: &str) -> Result<&str, String> {
    let (name, rest) = content
        .strip_prefix('[')
        .and_then(|inner| inner.rsplit_once(']'))
        .ok_or_else(|| format!("`{content}` has no `]`"))?;
    let rest = rest.trim();
    if !rest.is_empty() && !rest.starts_with([';', '#']) {
        return Err(format!("`{rest}` stands behind the section's `]`"));
    }
    // `[a] ; see [b]` would be a section of the name `a] ; see [b`.
    if name.contains("] ;") || name.contains("] #") {
        return Err("a comment behind a section's `]` must not contain one".to_owned());
    }
    match name {
        "" => Err("the section has no name".to_owned()),
        "DEFAULT" => {
            Err("[DEFAULT] is not supported: give each section its own four keys".to_owned())
        }
        name => Ok(name),
    }
}

fn key_and_value(content: &str) -> Result<(String, String), String> {
    let (name, value) = content
        .split_once(['=', ':'])
        .ok_or_else(|| format!("`{content}` is neither a section nor `key = value`"))?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err(format!("`{content}` has no key"));
    }
    check_value(value)?;
    Ok((name.to_lowercase(), value.to_owned()))
}

fn check_value(value: &str) -> Result<(), String> {
    if value.contains('%') {
        return Err(format!(
            "`{value}` contains `%`, which would put another value in: not supported"
        ));
    }
    // `read = @ ; everyone` would be a role of the name `@ ; everyone`.
    if [" ;", " #", "\t;", "\t#"]
        .iter()
        .any(|comment| value.contains(comment))
    {
        return Err(format!(
            "`{value}` has a comment behind it: comments have lines of their own"
        ));
    }
    Ok(())
}
