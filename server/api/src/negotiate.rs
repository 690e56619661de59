//! Which form of an error a caller wants: HTML, JSON or plain text, by its `Accept`.

use http::{HeaderMap, StatusCode};
use serde_json::json;

/// A form of an error's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
    Plain,
}

/// The form that the caller likes most. Between HTML and JSON it likes as much, HTML; if it likes neither, plain text.
pub(crate) fn form(headers: &HeaderMap) -> Form {
    let accept: Vec<&str> = headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let html = quality(&accept, "text", "html");
    let json = quality(&accept, "application", "json");
    if html <= 0.0 && json <= 0.0 {
        Form::Plain
    } else if json > html {
        Form::Json
    } else {
        Form::Html
    }
}

/// How much a media type is liked: the `q` of the most specific range that it is in, 0 if it is in none.
fn quality(accept: &[&str], main: &str, sub: &str) -> f32 {
    accept
        .iter()
        .filter_map(|range| {
            let mut pieces = range.split(';').map(str::trim);
            let (range_main, range_sub) = pieces.next()?.split_once('/')?;
            let specific = match (range_main, range_sub) {
                ("*", "*") => 0,
                (range_main, "*") if range_main.eq_ignore_ascii_case(main) => 1,
                (range_main, range_sub)
                    if range_main.eq_ignore_ascii_case(main)
                        && range_sub.eq_ignore_ascii_case(sub) =>
                {
                    2
                }
                _ => return None,
            };
            let q = pieces
                .find_map(|parameter| parameter.strip_prefix("q="))
                .map_or(Some(1.0), |q| q.parse().ok())?;
            Some((specific, q))
        })
        .max_by_key(|(specific, _)| *specific)
        .map_or(0.0, |(_, q)| q)
}

/// The body of an error and its content type.
pub(crate) fn render(form: Form, status: StatusCode, message: &str) -> (String, &'static str) {
    let title = status.canonical_reason().unwrap_or("Error");
    let code = format!("{} {title}", status.as_u16());
    match form {
        Form::Json => (
            json!({"message": message, "code": code, "title": title}).to_string(),
            "application/json",
        ),
        Form::Plain => (
            format!("{code}\n\n{message}\n"),
            "text/plain; charset=UTF-8",
        ),
        Form::Html => (
            format!(
                "<html>\n <head>\n  <title>{code}</title>\n </head>\n <body>\n  <h1>{code}</h1>\n  {}\n </body>\n</html>\n",
                escape(message)
            ),
            "text/html; charset=UTF-8",
        ),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_most_specific_range_decides() {
        for (accept, expected) in [
            ("", Form::Plain),
            ("text/plain", Form::Plain),
            ("*/*", Form::Html),
            ("text/html", Form::Html),
            ("application/json", Form::Json),
            ("application/*", Form::Json),
            ("text/html;q=0.5, application/json", Form::Json),
            ("application/json;q=0.1, */*;q=0", Form::Json),
            ("application/octet-stream", Form::Plain),
            ("application/json;q=x", Form::Plain),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(form(&headers), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Form::Plain);
    }

    #[test]
    fn messages_in_html_are_text() {
        let (body, _) = render(Form::Html, StatusCode::BAD_REQUEST, "<script>&\"");
        assert!(body.contains("&lt;script&gt;&amp;&quot;") && !body.contains("<script>"));
        let (body, _) = render(Form::Json, StatusCode::NOT_FOUND, "no \"x\"");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["code"], "404 Not Found");
        assert_eq!(value["title"], "Not Found");
        assert_eq!(value["message"], "no \"x\"");
    }
}
