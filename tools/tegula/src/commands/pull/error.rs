//! What can go wrong with a pull, and what to do next.

use std::io;
use std::path::PathBuf;

/// An error of a pull. Each variant is a decision its caller can make.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// What was given is no URL of an image.
    #[error("{url:?} names no image: {reason}")]
    Url { url: String, reason: &'static str },
    /// The certificates by which a server is known cannot be read.
    #[error("cannot read the certificates in {}: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    /// The environment names half a user.
    #[error("OS_AUTH_URL is set, and {missing} is not")]
    Credentials { missing: &'static str },
    /// The server could not be reached, or the connection broke, again and again.
    #[error("{url}: no answer, {attempts} times in a row")]
    Unreachable {
        url: String,
        attempts: u32,
        source: Box<ureq::Error>,
    },
    /// The request cannot be made at all, or the server cannot be trusted.
    #[error("{url}")]
    Refused {
        url: String,
        source: Box<ureq::Error>,
    },
    /// The server says no.
    #[error("{url}: the server says {status}{}", said(message))]
    Status {
        url: String,
        status: u16,
        message: String,
    },
    /// The answer is not what the protocol says.
    #[error("{url}: {what}")]
    Answer { url: String, what: String },
    /// The image has no data to give.
    #[error("image {id} is {status}: it has no data yet")]
    NotActive { id: String, status: String },
    /// What is there changes while it is fetched.
    #[error("{url} became something else {times} times while it was fetched")]
    Unsteady { url: String, times: u32 },
    /// What was fetched is not what the server promised.
    #[error("what came from {url} has {what} {found}, not {expected} as the server says")]
    Differs {
        url: String,
        what: &'static str,
        expected: String,
        found: String,
    },
    /// Nothing says what the whole image's bytes should be.
    #[error("{url}: neither os_hash_value nor checksum says what the image is")]
    NoHash { url: String },
    /// It is not known which image the base file holds.
    #[error("which image does {} hold? the server names no parent of {image}", base.display())]
    BaseUnknown { base: PathBuf, image: String },
    /// The file has not the length of the image that it is said to hold.
    #[error("{} has {found} bytes, image {image} has {expected}", base.display())]
    BaseLength {
        base: PathBuf,
        image: String,
        expected: u64,
        found: u64,
    },
    /// There is something already.
    #[error("{} exists", path.display())]
    Exists { path: PathBuf },
    /// Devices can only be patched.
    #[error("{} is a block device, and {reason}", path.display())]
    Device { path: PathBuf, reason: &'static str },
    /// Another pull to the same place is under way.
    #[error("another pull to {} is under way", path.display())]
    Busy { path: PathBuf },
    /// A file of the pull cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

fn said(message: &str) -> String {
    match message.is_empty() {
        true => String::new(),
        false => format!(": {message}"),
    }
}

impl PullError {
    /// Makes an error of what the system said of a file.
    pub(super) fn file(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// Tells what the system said, if it is about a file.
    pub(crate) fn system(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    /// Returns what to do next.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Url { .. } => "give the service's URL and the image's id: http://HOST:9292/IMAGE",
            Self::Certificates { .. } => "--cacert names a file of certificates in PEM",
            Self::Credentials { .. } => {
                "source the project's openrc file, or set OS_TOKEN or TEGULA_TOKEN to a token"
            }
            Self::Unreachable { .. } => "run the same command again: it goes on where it stopped",
            Self::Refused { .. } => "check the URL, and for https the certificate (--cacert)",
            Self::Status { status, .. } => return status_hint(*status),
            Self::Answer { .. } => {
                "is this the URL of an image service? nothing but what was fetched so far was written"
            }
            Self::NotActive { .. } => "wait until its upload is done",
            Self::Unsteady { .. } => "try again when nobody changes the store at the other end",
            Self::Differs { .. } => {
                "what was fetched was thrown away, and nothing else was written; tell whoever runs the server"
            }
            Self::NoHash { .. } => {
                "the server may still be computing it: try again later, or take it unverified with --unverified"
            }
            Self::BaseUnknown { .. } => "--base-image names it by its id",
            Self::BaseLength { .. } => {
                "nothing was fetched; --base-image names the image that the file holds"
            }
            Self::Exists { .. } => {
                "--force replaces it when the new one is whole; --base with the same file patches it"
            }
            Self::Device { .. } => "pull into a file, and write that to the device",
            Self::Busy { .. } => "wait for it; what it has fetched is not fetched again",
            Self::File { .. } => return None,
        })
    }
}

fn status_hint(status: u16) -> Option<&'static str> {
    Some(match status {
        401 => {
            "get a new token: OS_TOKEN, TEGULA_TOKEN or --token; or source the project's openrc file"
        }
        403 => "who owns the image, or an administrator, can let you download it",
        404 => "check the image's id; who may not see an image is told that there is none",
        409 => "the image cannot be downloaded in the state that it is in",
        300..=399 => "redirections are not followed: give the URL that it leads to",
        408 | 429 | 500..=599 => "run the same command again later: it goes on where it stopped",
        _ => return None,
    })
}
