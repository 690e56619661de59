//! Percent-encoding (RFC 3986 §2.1) of paths and of queries (`application/x-www-form-urlencoded`).

use std::borrow::Cow;

/// Decodes a segment of a path. None if an escape is not two hexadecimal digits or the result is not UTF-8.
pub(crate) fn decode_segment(text: &str) -> Option<Cow<'_, str>> {
    decode(text, false)
}

/// Decodes the pairs of a query, in order, repeated ones included. None as for [`decode_segment`].
pub(crate) fn decode_query(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((
                decode(name, true)?.into_owned(),
                decode(value, true)?.into_owned(),
            ))
        })
        .collect()
}

/// Encodes pairs as a query.
pub(crate) fn encode_query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        encode(&mut query, name);
        query.push('=');
        encode(&mut query, value);
    }
    query
}

fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b',' => {
                into.push(char::from(byte));
            }
            byte => into.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_two_hexadecimal_digits_of_utf_8() {
        assert_eq!(decode_segment("a%2Fb+%c3%A9").as_deref(), Some("a/b+é"));
        for bad in ["%", "%2", "%2g", "%ff", "%+1"] {
            assert_eq!(decode_segment(bad), None, "{bad}");
        }
    }

    #[test]
    fn queries_keep_order_repetitions_and_empty_values() {
        let pairs = decode_query("tag=a&tag=b+c&&x&y=%3D").unwrap();
        let expected = [("tag", "a"), ("tag", "b c"), ("x", ""), ("y", "=")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let encoded = encode_query(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        assert_eq!(encoded, "tag=a&tag=b%20c&x=&y=%3D");
        assert_eq!(decode_query(&encoded).unwrap(), pairs);
    }
}
