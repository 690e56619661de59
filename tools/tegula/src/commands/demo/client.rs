//! A client of the Images API, as small as one can be: it creates an image, sends its bytes, looks at it, gets its bytes.

use super::DemoError;
use crate::output::Output;
use crate::progress::Progress;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body, SendBody};

/// How long the server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The longest document that is read.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// What is sent of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    /// All of its bytes, as any client sends them.
    Whole,
    /// A delta stream from a parent that has this `os_tree_hash`.
    Delta { parent_hash: &'a str },
}

/// Speaks with the server as its administrator.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    agent: Agent,
    service: String,
    token: String,
    output: Output,
    interrupted: &'a AtomicBool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(
        address: SocketAddr,
        token: &str,
        output: Output,
        interrupted: &'a AtomicBool,
    ) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Whatever proxy the environment names, it does not lead to this port.
            .proxy(None)
            .timeout_recv_response(Some(SILENCE_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .timeout_per_write(Some(SILENCE_MAX))
            .user_agent(concat!("tegula-demo/", env!("CARGO_PKG_VERSION")));
        Self {
            agent: config.build().into(),
            service: format!("http://{address}"),
            token: token.to_owned(),
            output,
            interrupted,
        }
    }

    /// Returns the URL of an image, as `tegula pull` takes it.
    pub(crate) fn url(&self, id: &str) -> String {
        format!("{}/{id}", self.service)
    }

    /// Creates an image without data, and returns its id.
    pub(crate) fn create(&self, name: &str, parent: Option<&str>) -> Result<String, DemoError> {
        let mut fields = serde_json::json!({
            "name": name, "disk_format": "raw", "container_format": "bare",
        });
        if let (Some(parent), Some(fields)) = (parent, fields.as_object_mut()) {
            fields.insert("os_parent_id".to_owned(), parent.into());
        }
        let what = "POST /v2/images";
        let request = self.agent.post(format!("{}/v2/images", self.service));
        let request = request.header("X-Auth-Token", &self.token);
        let request = request.header("Content-Type", "application/json");
        let answer = request.send(&fields.to_string());
        let image = document(what, expect(what, 201, answer)?)?;
        text(what, &image, "id")
    }

    /// Sends a file as an image's data.
    pub(crate) fn upload(&self, id: &str, path: &Path, form: Form<'_>) -> Result<(), DemoError> {
        let what = "PUT /v2/images/…/file";
        let file = File::open(path).map_err(DemoError::at("open", path))?;
        let length = file
            .metadata()
            .map_err(DemoError::at("look at", path))?
            .len();
        let url = format!("{}/v2/images/{id}/file", self.service);
        let mut request = self.agent.put(url).header("X-Auth-Token", &self.token);
        request = request.header("Content-Length", length.to_string());
        request = match form {
            Form::Whole => request.header("Content-Type", "application/octet-stream"),
            Form::Delta { parent_hash } => request
                .header("Content-Type", "application/vnd.tegula.delta")
                .header("If-Parent-Match", format!("\"{parent_hash}\"")),
        };
        let progress = Progress::begin(self.output, "upload");
        let mut body = Watched {
            file,
            done: 0,
            length,
            progress: &progress,
            interrupted: self.interrupted,
        };
        let answer = request.send(SendBody::from_reader(&mut body));
        self.check()?;
        expect(what, 204, answer).map(drop)
    }

    /// Returns what the server says of an image, which must be active.
    pub(crate) fn show(&self, id: &str) -> Result<Value, DemoError> {
        let what = "GET /v2/images/…";
        let url = format!("{}/v2/images/{id}", self.service);
        let request = self.agent.get(url).header("X-Auth-Token", &self.token);
        let image = document(what, expect(what, 200, request.call())?)?;
        match text(what, &image, "status")? {
            status if status == "active" => Ok(image),
            status => Err(DemoError::Answer {
                what,
                found: format!("the image is {status}"),
            }),
        }
    }

    /// Asks for an image's data, all bytes of it.
    pub(crate) fn download(&self, id: &str) -> Result<impl Read + use<>, DemoError> {
        let what = "GET /v2/images/…/file";
        let url = format!("{}/v2/images/{id}/file", self.service);
        let request = self.agent.get(url).header("X-Auth-Token", &self.token);
        Ok(expect(what, 200, request.call())?.into_body().into_reader())
    }

    fn check(&self) -> Result<(), DemoError> {
        match self.interrupted.load(Ordering::SeqCst) {
            true => Err(DemoError::Interrupted),
            false => Ok(()),
        }
    }
}

/// Returns a text of a document.
pub(crate) fn text(what: &'static str, document: &Value, key: &str) -> Result<String, DemoError> {
    let text = document.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| DemoError::Answer {
        what,
        found: format!("there is no {key} in {document}"),
    })
}

fn expect(
    what: &'static str,
    status: u16,
    answer: Result<Response<Body>, ureq::Error>,
) -> Result<Response<Body>, DemoError> {
    let mut answer = answer.map_err(|source| DemoError::Request {
        what,
        source: Box::new(source),
    })?;
    if answer.status() == status {
        return Ok(answer);
    }
    let said = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX);
    let said = said.read_to_string().unwrap_or_default();
    Err(DemoError::Answer {
        what,
        found: format!("{} {}", answer.status(), said.trim()),
    })
}

fn document(what: &'static str, mut answer: Response<Body>) -> Result<Value, DemoError> {
    let body = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX);
    let text = body.read_to_string().map_err(|source| DemoError::Request {
        what,
        source: Box::new(source),
    })?;
    serde_json::from_str(&text).map_err(|error| DemoError::Answer {
        what,
        found: error.to_string(),
    })
}

/// A file that is sent: it shows how far it is, and ends with an error when a signal came.
struct Watched<'a> {
    file: File,
    done: u64,
    length: u64,
    progress: &'a Progress,
    interrupted: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(io::Error::other("interrupted"));
        }
        let bytes = self.file.read(piece)?;
        self.done += bytes as u64;
        self.progress.update(self.done, Some(self.length));
        Ok(bytes)
    }
}
