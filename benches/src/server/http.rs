//! A small HTTP client for measuring: one connection kept alive, nothing hidden between the call and the wire.

use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that is kept alive.
#[derive(Debug)]
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
    address: SocketAddr,
    token: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Bytes of a body, of which only the length is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length(pub(super) u64);

const PIECE: usize = 256 << 10;

impl Connection {
    pub(super) fn open(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self {
            reader: BufReader::with_capacity(PIECE, stream),
            address,
            token: token.to_owned(),
        })
    }

    /// Sends a request with a small body, and takes the whole answer.
    pub(super) fn call(
        &mut self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let mut request = self.head(method, path);
        if let Some(content_type) = content_type {
            request.push_str(&format!(
                "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.reader.get_mut().write_all(&bytes)?;
        let (status, length) = self.answer_head()?;
        let mut body = vec![0; usize::try_from(length)?];
        self.reader.read_exact(&mut body)?;
        Ok(Answer { status, body })
    }

    /// Uploads so many bytes, piece by piece as `fill` makes them.
    pub(super) fn upload(
        &mut self,
        path: &str,
        length: u64,
        mut fill: impl FnMut(u64, &mut [u8]),
    ) -> anyhow::Result<u16> {
        let mut request = self.head("PUT", path);
        request.push_str(&format!(
            "Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        ));
        self.reader.get_mut().write_all(request.as_bytes())?;
        let mut piece = vec![0; PIECE];
        let mut offset = 0;
        while offset < length {
            let now = usize::try_from((length - offset).min(PIECE as u64))?;
            let piece = piece.get_mut(..now).context("a piece is at most a piece")?;
            fill(offset, piece);
            self.reader.get_mut().write_all(piece)?;
            offset += now as u64;
        }
        let (status, length) = self.answer_head()?;
        std::io::copy(&mut (&mut self.reader).take(length), &mut std::io::sink())?;
        Ok(status)
    }

    /// Downloads a body and drops it.
    pub(super) fn download(&mut self, path: &str) -> anyhow::Result<Length> {
        let mut request = self.head("GET", path);
        request.push_str("\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (status, length) = self.answer_head()?;
        if status != 200 {
            bail!("GET {path} answered {status}");
        }
        let mut left = length;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let read = self.reader.read(&mut piece)?;
            if read == 0 {
                bail!("GET {path}: {left} of {length} bytes are missing");
            }
            left = left.saturating_sub(read as u64);
        }
        Ok(Length(length))
    }

    /// Begins a download and returns the connection with the answer's head read and its body unread.
    pub(super) fn begin_download(mut self, path: &str) -> anyhow::Result<Self> {
        let mut request = self.head("GET", path);
        request.push_str("\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (status, _) = self.answer_head()?;
        if status != 200 {
            bail!("GET {path} answered {status}");
        }
        Ok(self)
    }

    fn head(&self, method: &str, path: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nX-Auth-Token: {}\r\nAccept: application/json\r\n",
            self.address, self.token
        )
    }

    /// Reads the status and the length of the body: it must be said, these requests have no chunked answers.
    fn answer_head(&mut self) -> anyhow::Result<(u16, u64)> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("no status line: {line:?}"))?;
        let mut length = (status == 204).then_some(0);
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        Ok((
            status,
            length.context("the answer does not say its length")?,
        ))
    }
}
