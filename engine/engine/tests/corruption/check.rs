//! What must hold of a store after a mishap.

use crate::change::Change;
use crate::exceptions::{Reads, beyond_repair, exception};
use crate::world::{self, Files, World, name};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use tegula_engine::{
    Depth, Destination, Engine, EngineError, Finding, OpenImage, PutRequest, RepairReport, Source,
    StoreError, Task,
};

/// What went wrong in a case; empty if it went as it must.
pub(crate) type Complaints = Vec<String>;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a check; a panic is a complaint, and makes no other noise.
pub(crate) fn guarded(check: impl FnOnce() -> Complaints) -> Complaints {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(check));
    QUIET.set(false);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        vec![format!("panic: {}", text.unwrap_or("of some kind"))]
    })
}

/// Checks that no wrong byte is read, that who is not concerned reads on, and that verification finds and locates
/// the damage.
pub(crate) fn reads_and_findings(world: &World, change: &Change) -> Complaints {
    let mut files = world.files.clone();
    change.apply(&mut files);
    let exception = exception(world, change);
    let engine = match world::open(&files, 2) {
        Ok((_, engine)) => engine,
        Err(error) if change.damaged().contains(&"tegula.store") => {
            return match names(&error).as_deref() {
                Some("tegula.store") => Vec::new(),
                _ => vec![format!("opening does not name the file: {}", chain(&error))],
            };
        }
        Err(error) => return vec![format!("the store does not open: {}", chain(&error))],
    };
    let mut complaints = Vec::new();
    let may_fail = may_fail(world, change);
    for image in world.images.keys() {
        let expected = expected(world, image, exception.as_ref().map(|(_, reads)| reads));
        let required = expected.is_some() && !may_fail.contains(image);
        for way in ways(change) {
            complaints.extend(judge_read(image, *way, &engine, expected, required));
        }
    }
    complaints.extend(judge_findings(world, change, &engine, exception.is_some()));
    complaints
}

/// Returns the bytes an image must have; `None` if it may be absent.
fn expected<'a>(world: &'a World, image: &str, reads: Option<&Reads>) -> Option<&'a [u8]> {
    match reads {
        Some(Reads::AsBefore(replaced)) if *replaced == image => Some(&world.replaced.1),
        Some(Reads::Absent(absent)) if absent == image => None,
        _ => Some(&world.images[image]),
    }
}

/// Returns the images that a mishap may make unreadable.
fn may_fail(world: &World, change: &Change) -> BTreeSet<&'static str> {
    match change {
        // Something more is there; nothing is missing.
        Change::Duplicate { .. } | Change::Return { .. } => BTreeSet::new(),
        Change::Flip { path, byte, .. } => match chunk_at(world, path, *byte) {
            Some((_, holders)) => holders,
            None => world.users(path),
        },
        change => {
            let damaged = change.damaged();
            damaged.iter().flat_map(|path| world.users(path)).collect()
        }
    }
}

fn chunk_at(
    world: &World,
    path: &str,
    byte: usize,
) -> Option<(tegula_format::TocRow, BTreeSet<&'static str>)> {
    let row = world.segments.get(path)?.chunk_at(byte)?;
    Some((*row, world.holders(&row.id)))
}

/// A way to read an image.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// All of it, in long reads.
    Get,
    /// Piece by piece, chunk by chunk.
    ReadAt,
}

/// Both ways; for the many flipped bits one each, in turn.
fn ways(change: &Change) -> &'static [Way] {
    match change {
        Change::Flip { bit, .. } if bit % 2 == 0 => &[Way::Get],
        Change::Flip { .. } => &[Way::ReadAt],
        _ => &[Way::Get, Way::ReadAt],
    }
}

/// Reads an image as far as it goes.
fn read(engine: &Engine, image: &str, way: Way) -> (Vec<u8>, Result<(), EngineError>) {
    let mut bytes = Vec::new();
    let outcome = match way {
        Way::Get => {
            let to = Destination::Stream(&mut bytes);
            engine.get(&name(image), to, Task::unattended()).map(drop)
        }
        Way::ReadAt => read_at(engine, image, &mut bytes),
    };
    (bytes, outcome)
}

fn read_at(engine: &Engine, image: &str, bytes: &mut Vec<u8>) -> Result<(), EngineError> {
    let session = engine.store().begin()?;
    let image = OpenImage::open(&session, &name(image))?;
    let mut rest = image.record().virtual_size;
    // Pieces that begin and end within blocks.
    while rest > 0 {
        let mut piece = vec![0; usize::try_from(rest.min(3000)).unwrap()];
        image.read_at(&mut piece, bytes.len() as u64)?;
        rest -= piece.len() as u64;
        bytes.append(&mut piece);
    }
    Ok(())
}

/// Reads an image: the right bytes or a named error, no byte that is wrong before it, and no error if it is required.
fn judge_read(
    image: &str,
    way: Way,
    engine: &Engine,
    expected: Option<&[u8]>,
    required: bool,
) -> Option<String> {
    let (bytes, outcome) = read(engine, image, way);
    match (outcome, expected) {
        (Ok(()), Some(expected)) if bytes == expected => None,
        (Ok(()), _) => Some(format!("{way:?} of {image} served wrong bytes")),
        (Err(_), Some(expected)) if !expected.starts_with(&bytes) => Some(format!(
            "{way:?} of {image} handed out wrong bytes before its error"
        )),
        (Err(error), Some(_)) if required => Some(format!(
            "{way:?} of {image} fails and need not: {}",
            chain(&error)
        )),
        (Err(error), _) if !is_named(&error) => Some(format!(
            "{way:?} of {image} fails with a vague error: {}",
            chain(&error)
        )),
        (Err(_), _) => None,
    }
}

/// Tells whether an error says what is damaged.
fn is_named(error: &EngineError) -> bool {
    match error {
        EngineError::Store(StoreError::ImageNotFound { .. }) => true,
        EngineError::Store(error) => error.is_corruption() || names(error).is_some(),
        error => error.is_corruption(),
    }
}

/// Returns the file that an error of the store names.
fn names(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Corrupt { path, .. }
        | StoreError::NeedsNewerProgram { path, .. }
        | StoreError::Io { path, .. } => Some(path.to_string()),
        StoreError::LayerMissing { id } => Some(format!("layers/{id}.layer")),
        _ => None,
    }
}

fn judge_findings(world: &World, change: &Change, engine: &Engine, excepted: bool) -> Complaints {
    let damaged = change.damaged();
    let findings = match engine.verify(Depth::Full, &[], Task::unattended()) {
        Ok(verification) => verification.findings,
        // What a newer program wrote is not judged.
        Err(EngineError::Store(error @ StoreError::NeedsNewerProgram { .. }))
            if names(&error)
                .is_some_and(|path| damaged.contains(&path.as_str()) && !path.contains('/')) =>
        {
            return Vec::new();
        }
        Err(error) => return vec![format!("verify fails: {}", chain(&error))],
    };
    let mut complaints = Vec::new();
    if findings.is_empty() && !excepted {
        complaints.push("verify finds nothing".to_owned());
    }
    // Everything has a checksum: the fast way finds as much, of a chunk's bytes too.
    if !excepted && !matches!(change, Change::Flip { bit: 1.., .. }) {
        match engine.verify(Depth::Fast, &[], Task::unattended()) {
            Ok(verification) if verification.findings.is_empty() => {
                complaints.push("the fast verify finds nothing".to_owned());
            }
            Ok(_) => {}
            Err(error) => complaints.push(format!("the fast verify fails: {}", chain(&error))),
        }
    }
    for path in &damaged {
        let located = findings
            .iter()
            .any(|finding| locates(world, change, path, finding));
        if !located && !excepted {
            complaints.push(format!("no finding locates {path}: {}", list(&findings)));
        }
    }
    let concerned = |finding: &Finding| {
        damaged
            .iter()
            .any(|path| finding.path == *path || locates(world, change, path, finding))
    };
    let innocent = findings.iter().find(|finding| !concerned(finding));
    complaints.extend(innocent.map(|finding| {
        format!(
            "a finding accuses an innocent: {} {}",
            finding.path, finding.message
        )
    }));
    if let Change::Flip { path, byte, .. } = change {
        complaints.extend(judge_chunk_finding(world, path, *byte, &findings));
    }
    let is_derived = |path: &str| {
        path.starts_with("index/") || ["tegula.store.copy", "gc.state"].contains(&path)
    };
    let derived = findings.iter().find(|f| f.derived != is_derived(&f.path));
    complaints.extend(derived.map(|finding| format!("derived or not: {finding:?}")));
    complaints
}

/// Tells whether a finding says where the damage of a file is: it names the file, or, where there is no such file
/// or its own words are lost, an image that is concerned.
fn locates(world: &World, change: &Change, path: &str, finding: &Finding) -> bool {
    let users = world.users(path);
    let concerns =
        |image: &String| users.contains(image.as_str()) || path == format!("images/{image}.image");
    finding.path == path
        || (finding.images.iter().any(concerns)
            && (matches!(change, Change::Delete { .. } | Change::Return { .. })
                || finding.path.starts_with("images/")
                || change.damaged().contains(&finding.path.as_str())))
}

/// A damaged record is a finding at its offset that names the chunk and exactly the images that hold it.
fn judge_chunk_finding(
    world: &World,
    path: &str,
    byte: usize,
    findings: &[Finding],
) -> Option<String> {
    let (row, holders) = chunk_at(world, path, byte)?;
    let holders: Vec<_> = holders.into_iter().map(str::to_owned).collect();
    let right = findings.iter().any(|finding| {
        finding.path == path
            && finding.offset == Some(u64::from(row.offset))
            && finding.chunk == Some(row.id)
            && finding.images == holders
    });
    (!right).then(|| format!("the chunk's finding is not exact: {}", list(findings)))
}

/// Checks that every image reads and that there is nothing to find: the suite would be worth nothing else.
pub(crate) fn sound(world: &World) -> Complaints {
    let (_, engine) = world::open(&world.files, 2).unwrap();
    let mut complaints = Vec::new();
    for (image, bytes) in &world.images {
        for way in [Way::Get, Way::ReadAt] {
            complaints.extend(judge_read(image, way, &engine, Some(bytes), true));
        }
    }
    complaints.extend(judge_clean(&engine, "undamaged"));
    complaints
}

/// Checks that repair from a sound copy brings back every image and leaves nothing to find.
pub(crate) fn repair_from_a_copy(world: &World, change: &Change) -> Complaints {
    let engine = match opened(world, change) {
        Ok(engine) => engine,
        Err(complaint) => return vec![complaint],
    };
    let (_, copy) = world::open(&world.files, 3).unwrap();
    let mut complaints = Vec::new();
    let repaired = engine.repair(Some(&copy), Task::unattended());
    let hopeless = beyond_repair(change).is_some();
    complaints.extend(judge_repair(repaired, hopeless));
    let exception = exception(world, change).map(|(_, reads)| reads);
    for image in world.images.keys() {
        let expected = expected(world, image, exception.as_ref());
        let required = expected.is_some() && !hopeless;
        complaints.extend(judge_read(image, Way::Get, &engine, expected, required));
    }
    if !hopeless {
        complaints.extend(judge_clean(&engine, "after repair"));
        complaints.extend(judge_names(world, &engine));
    }
    complaints
}

/// Checks that repair without a copy, and putting every image again, leads to a sound store.
pub(crate) fn repair_by_putting_again(world: &World, change: &Change) -> Complaints {
    let engine = match opened(world, change) {
        Ok(engine) => engine,
        Err(complaint) => return vec![complaint],
    };
    let mut complaints = Vec::new();
    let hopeless = beyond_repair(change).is_some();
    complaints.extend(judge_repair(
        engine.repair(None, Task::unattended()),
        hopeless,
    ));
    let exception = exception(world, change).map(|(_, reads)| reads);
    for image in world.images.keys() {
        let expected = expected(world, image, exception.as_ref());
        complaints.extend(judge_read(image, Way::Get, &engine, expected, false));
    }
    for (image, bytes) in &world.images {
        let mut stream = bytes.as_slice();
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut stream),
            parent: None,
            replace: true,
        };
        match engine.put(request, Task::unattended()) {
            Err(error) if !hopeless => {
                complaints.push(format!("put of {image} fails: {}", chain(&error)));
            }
            _ => {}
        }
    }
    let new = world::block(world::Kind::Noise(78));
    if !hopeless {
        world::put(&engine, "new", &new, None, false);
        complaints.extend(judge_read("new", Way::Get, &engine, Some(&new), true));
    }
    // What nobody needs any more and could not be judged while somebody did.
    complaints.extend(judge_repair(
        engine.repair(None, Task::unattended()),
        hopeless,
    ));
    for (image, bytes) in &world.images {
        complaints.extend(judge_read(image, Way::Get, &engine, Some(bytes), !hopeless));
    }
    if !hopeless {
        complaints.extend(judge_read("new", Way::Get, &engine, Some(&new), true));
        engine.store().remove(&name("new")).unwrap();
        complaints.extend(judge_clean(&engine, "after putting again"));
        complaints.extend(judge_names(world, &engine));
    }
    complaints
}

fn judge_repair(repaired: Result<RepairReport, EngineError>, hopeless: bool) -> Option<String> {
    match repaired {
        Err(error) if !hopeless => Some(format!("repair fails: {}", chain(&error))),
        _ => None,
    }
}

fn opened(world: &World, change: &Change) -> Result<Engine, String> {
    let mut files: Files = world.files.clone();
    change.apply(&mut files);
    let opened = world::open_to_repair(&files, 2);
    opened.map_err(|error| format!("does not open to be repaired: {}", chain(&error)))
}

fn judge_clean(engine: &Engine, when: &str) -> Option<String> {
    match engine.verify(Depth::Full, &[], Task::unattended()) {
        Ok(verification) if verification.findings.is_empty() => None,
        Ok(verification) => Some(format!("{when}: {}", list(&verification.findings))),
        Err(error) => Some(format!("{when} verify fails: {}", chain(&error))),
    }
}

/// Nobody's image came into being by a repair.
fn judge_names(world: &World, engine: &Engine) -> Option<String> {
    let records = match engine.list() {
        Ok(records) => records,
        Err(error) => return Some(format!("list fails: {}", chain(&error))),
    };
    let stranger = records.iter().find(|record| {
        let name = record.name.as_str();
        !world.images.contains_key(name)
    });
    stranger.map(|record| format!("there is an image {:?} now", record.name.as_str()))
}

fn list(findings: &[Finding]) -> String {
    let mut text = format!("{} findings", findings.len());
    for finding in findings.iter().take(4) {
        let _ = write!(
            text,
            "; {} {:?} {:?} {}",
            finding.path, finding.offset, finding.images, finding.message
        );
    }
    text
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
