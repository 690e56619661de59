//! What a client says the MD5 of a body is (`Content-MD5`), held against what comes.

use crate::error::ApiError;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, HeaderName};
use md5::{Digest, Md5};
use std::fmt::Write as _;
use std::io::{self, Read};

/// Of a download it is the MD5 of the whole image, in hexadecimal; of an upload that of the bytes sent.
pub(crate) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

const MD5_BYTES: usize = 16;

/// What a request's head says: the MD5 in hexadecimal, lower case.
///
/// # Errors
/// 400 if it is neither base64 (RFC 1864) nor hexadecimal (as downloads have it), or said twice.
pub(crate) fn announced(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(CONTENT_MD5).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::bad_request("Content-MD5: it is there twice"));
    }
    let text = value.to_str().unwrap_or_default();
    let is_hexadecimal =
        text.len() == 2 * MD5_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hexadecimal {
        return Ok(Some(text.to_ascii_lowercase()));
    }
    match BASE64_STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == MD5_BYTES => Ok(Some(hexadecimal(&bytes))),
        _ => Err(ApiError::bad_request(format!(
            "Content-MD5: found {value:?}, expected the MD5 of the body in base64 or hexadecimal"
        ))),
    }
}

/// Bytes that are hashed as they are read, if there is something to compare with: what ends with another MD5 fails instead
/// of ending.
#[derive(Debug)]
pub(crate) struct Checked<R> {
    source: R,
    expected: Option<(Md5, String)>,
    wrong: Option<ApiError>,
}

impl<R: Read> Checked<R> {
    pub(crate) fn new(source: R, announced: Option<String>) -> Self {
        Self {
            source,
            expected: announced.map(|md5| (Md5::new(), md5)),
            wrong: None,
        }
    }

    /// What is to be answered to bytes with another MD5, once they were read to their end.
    pub(crate) fn wrong(self) -> Option<ApiError> {
        self.wrong
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        if length > 0 || buffer.is_empty() {
            if let Some((hasher, _)) = &mut self.expected {
                hasher.update(buffer.get(..length).unwrap_or_default());
            }
        } else if let Some((hasher, expected)) = self.expected.take() {
            let found = hexadecimal(&hasher.finalize());
            if found != expected {
                self.wrong = Some(ApiError::bad_request(format!(
                    "Content-MD5: the bytes that came have the MD5 {found}, not {expected}"
                )));
            }
        }
        match self.wrong {
            None => Ok(length),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("because a string takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_MD5, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn an_md5_is_taken_in_base64_and_in_hexadecimal() {
        // RFC 1321, A.5: the MD5 of "abc".
        let hexadecimal = "900150983cd24fb0d6963f7d28e17f72";
        for text in [
            "kAFQmDzST7DWlj99KOF/cg==",
            hexadecimal,
            "900150983CD24FB0D6963F7D28E17F72",
        ] {
            let found = announced(&head(&[text])).unwrap();
            assert_eq!(found.as_deref(), Some(hexadecimal), "{text}");
        }
        assert_eq!(announced(&head(&[])).unwrap(), None);
        for wrong in [
            "",
            "kAFQmDzST7DWlj99KOF/cg",
            "900150983cd24fb0d6963f7d28e17f7",
            "YWJj",
            "é",
        ] {
            assert!(announced(&head(&[wrong])).is_err(), "{wrong}");
        }
        assert!(announced(&head(&[hexadecimal, hexadecimal])).is_err());
    }

    #[test]
    fn bytes_of_another_md5_do_not_end() {
        let read = |announced: Option<&str>| {
            let mut checked = Checked::new(&b"abc"[..], announced.map(str::to_owned));
            let mut bytes = Vec::new();
            let ended = checked.read_to_end(&mut bytes).is_ok();
            assert_eq!(bytes, b"abc");
            (ended, checked.wrong().is_some())
        };
        assert_eq!(read(None), (true, false));
        assert_eq!(
            read(Some("900150983cd24fb0d6963f7d28e17f72")),
            (true, false)
        );
        assert_eq!(
            read(Some("900150983cd24fb0d6963f7d28e17f73")),
            (false, true)
        );
    }
}
