//! An image service for the tests of `pull`: as much of the Images API as a host asks for, and every bad manner on demand.

use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path with its query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns where the wanted range begins.
    pub(crate) fn range_start(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The length that is stated, if it is not that of the body.
    pub(crate) stated: Option<u64>,
    /// How many bytes of the body are sent before the connection is closed.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            body,
            ..Self::default()
        }
    }

    pub(crate) fn json(document: &Value) -> Self {
        Self::of(200, document.to_string()).with("Content-Type", "application/json")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Bytes with their tag.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tag: Option<String>,
}

type Answering = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

/// What the service has and how it behaves.
#[derive(Default)]
pub(crate) struct Content {
    /// Records and files, by id.
    pub(crate) images: BTreeMap<String, (Value, Vec<u8>)>,
    /// Delta streams, by image and base.
    pub(crate) deltas: BTreeMap<(String, String), Stream>,
    pub(crate) knows_increments: bool,
    /// After how many bytes the next answers with data are cut.
    pub(crate) cuts: VecDeque<usize>,
    /// Whether every answer with data is cut after that many bytes.
    pub(crate) cut_always: Option<usize>,
    /// How long to wait after each few bytes.
    pub(crate) slow: Option<Duration>,
    /// Answers instead, where it wants to.
    pub(crate) first: Option<Answering>,
    /// Everything that was asked.
    pub(crate) log: Vec<Request>,
    /// Bytes of bodies with data that were sent.
    pub(crate) sent: u64,
}

/// A running service.
pub(crate) struct Service {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
    ended: Arc<AtomicBool>,
}

impl Service {
    pub(crate) fn start(content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let content = Arc::new(Mutex::new(content));
        let ended = Arc::new(AtomicBool::new(false));
        let (theirs, until) = (Arc::clone(&content), Arc::clone(&ended));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                let content = Arc::clone(&theirs);
                // Whoever is killed leaves connections that break: no matter.
                std::thread::spawn(move || drop(serve(&content, connection.unwrap())));
            }
        });
        Self {
            address,
            content,
            ended,
        }
    }

    pub(crate) fn url(&self, image: &str) -> String {
        format!("http://{}/{image}", self.address)
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Content) -> R) -> R {
        change(&mut self.content.lock().unwrap())
    }

    /// Returns the requests for data: image files and deltas.
    pub(crate) fn data_requests(&self) -> Vec<Request> {
        self.change(|content| {
            let data = |request: &&Request| is_data(&request.path);
            content.log.iter().filter(data).cloned().collect()
        })
    }

    pub(crate) fn sent(&self) -> u64 {
        self.change(|content| content.sent)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn is_data(path: &str) -> bool {
    path.ends_with("/file") || path.contains("/delta?")
}

fn serve(content: &Mutex<Content>, connection: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let Some(request) = read_request(&mut reader)? else {
        return Ok(());
    };
    let (mut reply, slow) = {
        let mut content = content.lock().unwrap();
        content.log.push(request.clone());
        let mut first = content.first.take();
        let instead = first.as_mut().and_then(|first| first(&request));
        content.first = first;
        let reply = instead.unwrap_or_else(|| content.answer(&request));
        (reply, content.slow)
    };
    let data = is_data(&request.path) && matches!(reply.status, 200 | 206);
    if data && reply.cut.is_none() {
        let mut content = content.lock().unwrap();
        reply.cut = content.cuts.pop_front().or(content.cut_always);
    }
    write_reply(&connection, &reply, slow.filter(|_| data), |bytes| {
        if data {
            content.lock().unwrap().sent += bytes as u64;
        }
    })
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, path) = (word(), word());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    std::io::Read::read_exact(reader, &mut body)?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
    }))
}

fn write_reply(
    mut connection: &TcpStream,
    reply: &Reply,
    slow: Option<Duration>,
    mut sent: impl FnMut(usize),
) -> std::io::Result<()> {
    let stated = reply.stated.unwrap_or(reply.body.len() as u64);
    let mut head = format!("HTTP/1.1 {} Some\r\nConnection: close\r\n", reply.status);
    if reply.status != 204 {
        head += &format!("Content-Length: {stated}\r\n");
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    let body = &reply.body[..reply.cut.unwrap_or(usize::MAX).min(reply.body.len())];
    for piece in body.chunks(if slow.is_some() { 8 << 10 } else { 64 << 10 }) {
        connection.write_all(piece)?;
        sent(piece.len());
        slow.into_iter().for_each(std::thread::sleep);
    }
    connection.flush()
}

impl Content {
    fn answer(&self, request: &Request) -> Reply {
        let not_found = || {
            let body = json!({ "message": "nothing of that name<br /><br />\n\n\n", "code": "404 Not Found" });
            Reply {
                status: 404,
                ..Reply::json(&body)
            }
        };
        let path = request.path.strip_prefix("/v2/").unwrap_or_default();
        if path == "info/lineage" && self.knows_increments {
            return Reply::json(&json!({ "lineage": {
                "version": 1, "granularity": 65536, "max_extents": 10000, "digest": "blake3",
                "delta_formats": ["application/vnd.tegula.delta", "application/x-qcow2"],
            }}));
        }
        let Some(rest) = path.strip_prefix("images/") else {
            return not_found();
        };
        let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
        let Some((record, file)) = self.images.get(id) else {
            return not_found();
        };
        if what.is_empty() {
            return Reply::json(record);
        }
        if what == "file" {
            let stream = Stream {
                bytes: file.clone(),
                tag: None,
            };
            return ranged(request, &stream, "application/octet-stream");
        }
        let base = what.strip_prefix("delta?base=").unwrap_or_default();
        match self.deltas.get(&(id.to_owned(), base.to_owned())) {
            Some(stream) => ranged(request, stream, "application/vnd.tegula.delta"),
            None => not_found(),
        }
    }
}

/// Answers with a stream or the part that was asked for (RFC 9110, sections 13.1.5 and 14).
fn ranged(request: &Request, stream: &Stream, kind: &str) -> Reply {
    let same = match request.header("if-range") {
        Some(tag) => stream.tag.as_deref() == Some(tag),
        None => true,
    };
    let total = stream.bytes.len();
    let tagged = |reply: Reply| match &stream.tag {
        Some(tag) => reply.with("ETag", tag),
        None => reply,
    };
    let reply = match request.range_start().filter(|_| same) {
        Some(start) if start >= total => {
            return Reply::of(416, "").with("Content-Range", &format!("bytes */{total}"));
        }
        Some(start) => {
            let range = format!("bytes {start}-{}/{total}", total - 1);
            Reply::of(206, &stream.bytes[start..]).with("Content-Range", &range)
        }
        None => Reply::of(200, &*stream.bytes),
    };
    tagged(reply.with("Content-Type", kind))
}
