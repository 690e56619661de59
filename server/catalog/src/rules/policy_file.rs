//! A `policy.yaml`: one mapping of the names of rules to their texts.
//!
//! Read as events of a YAML parser and not as data, so that every name keeps its line, and so that what YAML makes of a text
//! that was not meant so is refused and not obeyed: a rule without a text (which oslo.policy would let everyone pass), one
//! named twice (of which it would take the last), `!` without quotes (a tag), `true` or `10` (no texts), lists, anchors and
//! aliases, a second document. An empty file, or one of comments only, changes nothing. JSON is YAML too.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

/// A rule of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleText {
    /// Its name.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
    /// The line of its name, from 1.
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

/// Reads the rules of a file, in its order.
pub(super) fn parse(text: &str) -> Result<Vec<RuleText>, BadLine> {
    let mut events =
        Parser::new_from_str(text).map(|event| event.map_err(|error| not_yaml(&error)));
    let mut rules: Vec<RuleText> = Vec::new();
    let mut begun = false;
    // Between the start and the end of the one document there is one mapping, or a scalar that is nothing.
    while let Some((event, span)) = events.next().transpose()? {
        match event {
            Event::MappingStart(anchor, tag) if !begun => {
                refuse_extras(anchor, tag.is_some(), &span)?;
                begun = true;
                while let Some(rule) = next_rule(&mut events)? {
                    if let Some(earlier) = rules.iter().find(|earlier| earlier.name == rule.name) {
                        let what =
                            format!("rule {} stands in line {} already", rule.name, earlier.line);
                        return Err(bad(rule.line, what));
                    }
                    rules.push(rule);
                }
            }
            Event::Scalar(value, ScalarStyle::Plain, 0, None) if !begun && is_null(&value) => {}
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
            Event::DocumentStart(_) if !begun => {}
            Event::DocumentStart(_) => return Err(bad_at(&span, "a second document begins")),
            _ => {
                return Err(bad_at(
                    &span,
                    "expected `NAME: TEXT`, the name of a rule and its text",
                ));
            }
        }
    }
    Ok(rules)
}

type Events<'e, 'text> = dyn Iterator<Item = Result<(Event<'text>, Span), BadLine>> + 'e;

/// The next rule, or none at the end of the mapping.
fn next_rule(events: &mut Events<'_, '_>) -> Result<Option<RuleText>, BadLine> {
    let (line, name) = match events.next().transpose()? {
        Some((Event::Scalar(value, style, anchor, tag), span)) => {
            refuse_extras(anchor, tag.is_some(), &span)?;
            refuse_other_types(&value, style, &span, "the name of a rule")?;
            (line_of(span.start), value.into_owned())
        }
        Some((Event::MappingEnd, _)) | None => return Ok(None),
        Some((_, span)) => return Err(bad_at(&span, "expected the name of a rule")),
    };
    match events.next().transpose()? {
        Some((Event::Scalar(value, style, anchor, tag), span)) => {
            if style == ScalarStyle::Plain && is_null(&value) && anchor == 0 && tag.is_none() {
                let what = format!(
                    "rule {name} has no text: write \"\" if everyone may, \"!\" if no one may"
                );
                return Err(bad(line, what));
            }
            refuse_extras(anchor, tag.is_some(), &span)?;
            refuse_other_types(&value, style, &span, &format!("the text of rule {name}"))?;
            let text = value.into_owned();
            Ok(Some(RuleText { name, text, line }))
        }
        Some((Event::SequenceStart(..), _)) => Err(bad(
            line,
            format!(
                "rule {name} is a list, which is not supported: write its text with `and` and `or`"
            ),
        )),
        Some((Event::Alias(_), span)) => refuse_extras(1, false, &span).map(|()| None),
        _ => Err(bad(line, format!("rule {name} has no text"))),
    }
}

fn refuse_extras(anchor: usize, tag: bool, span: &Span) -> Result<(), BadLine> {
    if tag {
        return Err(bad_at(
            span,
            "a tag, which is not supported: write \"!\" in quotes if it was meant to be no one",
        ));
    }
    if anchor != 0 {
        return Err(bad_at(
            span,
            "an anchor or an alias, which is not supported",
        ));
    }
    Ok(())
}

/// Refuses what YAML 1.1 or 1.2 takes for something else than a text.
fn refuse_other_types(
    value: &str,
    style: ScalarStyle,
    span: &Span,
    what: &str,
) -> Result<(), BadLine> {
    const WORDS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "y", "n"];
    let lower = value.to_ascii_lowercase();
    let other = is_null(value) || WORDS.contains(&lower.as_str()) || value.parse::<f64>().is_ok();
    if style == ScalarStyle::Plain && other {
        return Err(bad_at(
            span,
            &format!("`{value}` is no text as {what}: write it in quotes"),
        ));
    }
    Ok(())
}

fn is_null(value: &str) -> bool {
    value.is_empty() || value == "~" || value.eq_ignore_ascii_case("null")
}

fn line_of(marker: Marker) -> usize {
    marker.line()
}

fn not_yaml(error: &ScanError) -> BadLine {
    bad(
        line_of(*error.marker()),
        format!("this is not YAML: {}", error.info()),
    )
}

fn bad_at(span: &Span, what: &str) -> BadLine {
    bad(line_of(span.start), what.to_owned())
}

const fn bad(line: usize, what: String) -> BadLine {
    BadLine { line, what }
}
