//! `tegula pull`: a host gets an image, whole or only what differs, whatever becomes of the connection or of itself.

use crate::service::{Content, Service, Stream};
use crate::support::{BLOCK, Ran, World, assert_same, listing, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tegula_engine::{BackendPreference, Engine, EngineError, ImageName, Task};

pub(crate) const OLD: &str = "0a4b1a4e-0000-4000-8000-000000000001";
pub(crate) const NEW: &str = "0a4b1a4e-0000-4000-8000-000000000002";

/// A store that a service gives images from, and the service.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) old: String,
    pub(crate) new: String,
}

pub(crate) fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

impl Scene {
    /// Makes two images. The second has blocks of its own, some of the first's elsewhere, holes, and is longer.
    pub(crate) fn new() -> Self {
        let world = World::new();
        let old: Vec<u32> = (1..40).collect();
        let mut new = old.clone();
        (new[3], new[4], new[7], new[20]) = (0, 100, 2, 101);
        new.extend([0, 0, 102, 5, 0]);
        let (old, new) = (world.put(OLD, &old), world.put(NEW, &new));
        Self { world, old, new }
    }

    pub(crate) fn bytes(&self, image: &str) -> Vec<u8> {
        let path = if image == OLD { &self.old } else { &self.new };
        std::fs::read(path).unwrap()
    }

    pub(crate) fn digest(&self, image: &str) -> String {
        self.world.json(["show", image])["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Returns an image's record as Glance shows it, and what a tegulad adds.
    pub(crate) fn record(&self, image: &str, increments: bool) -> Value {
        let bytes = self.bytes(image);
        let hash: String = Sha512::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut record = json!({
            "id": image, "status": "active", "name": "web", "visibility": "public", "tags": [],
            "disk_format": "raw", "container_format": "bare", "size": bytes.len(), "virtual_size": bytes.len(),
            "checksum": null, "os_hash_algo": "sha512", "os_hash_value": hash, "self": format!("/v2/images/{image}"),
        });
        if increments {
            record["os_tree_hash"] = json!(format!("blake3-tree:64k:{}", self.digest(image)));
            record["os_hash_value"] = Value::Null;
            if image == NEW {
                record["os_parent_id"] = json!(OLD);
            }
        }
        record
    }

    /// Returns a delta stream as the server makes it, with its tag.
    pub(crate) fn stream(&self, base: Option<&str>, image: &str) -> Stream {
        let (engine, _) = Engine::open(self.world.store(), BackendPreference::Blocking).unwrap();
        let (base, task) = (base.map(name), Task::unattended());
        let whole = |stream: &tegula_engine::DeltaStream<'_>| {
            let mut bytes = Vec::new();
            stream.write(0..u64::MAX, &mut bytes, task)?;
            let tag = Some(format!("\"{}\"", stream.tag()));
            Ok::<_, EngineError>(Stream { bytes, tag })
        };
        engine
            .serve_delta(base.as_ref(), &name(image), task, whole)
            .unwrap()
    }

    pub(crate) fn content(&self, increments: bool) -> Content {
        let mut content = Content {
            knows_increments: increments,
            ..Content::default()
        };
        for image in [OLD, NEW] {
            let record = self.record(image, increments);
            content
                .images
                .insert(image.to_owned(), (record, self.bytes(image)));
        }
        if increments {
            content.deltas = BTreeMap::from([
                (
                    (NEW.to_owned(), OLD.to_owned()),
                    self.stream(Some(OLD), NEW),
                ),
                ((NEW.to_owned(), "none".to_owned()), self.stream(None, NEW)),
            ]);
        }
        content
    }

    pub(crate) fn service(&self, increments: bool) -> Service {
        Service::start(self.content(increments))
    }

    /// Names a new disk.
    pub(crate) fn disk(&self) -> String {
        self.world.file("disk.raw")
    }

    /// Makes sure that only these stand where disks go, and nothing is left beside them.
    #[track_caller]
    pub(crate) fn stand(&self, disks: &[&str]) {
        let directory = Path::new(&self.disk()).parent().unwrap().to_owned();
        let list = listing(&directory).into_iter().map(|(path, _)| path);
        let list = list.filter(|path| path.parent() == Some(&directory) && path.is_file());
        let names: Vec<_> = list
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .filter(|name| !name.starts_with("0a4b1a4e"))
            .collect();
        assert_eq!(names, disks, "what stands there");
    }
}

/// Prepares a pull that knows nothing of the environment.
pub(crate) fn pull(service: &Service, image: &str, disk: &str) -> Command {
    let mut command = program();
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("OS_")) {
        command.env_remove(variable);
    }
    for variable in [
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "TEGULA_TOKEN",
    ] {
        command.env_remove(variable);
    }
    command.args(["pull", &service.url(image), "--to", disk, "--json"]);
    command
}

pub(crate) fn over(mut command: Command, base: &str) -> Command {
    command.args(["--base", base, "--base-image", OLD]);
    command
}

#[track_caller]
fn pulled(mut command: Command) -> Value {
    Ran::of(&mut command).expect_code(0).json()
}

#[test]
fn a_host_that_holds_the_parent_fetches_only_what_differs() {
    let scene = Scene::new();
    let service = scene.service(true);
    let base = scene.world.disk("base.raw", &(1..40).collect::<Vec<_>>());
    let report = pulled(over(pull(&service, NEW, &scene.disk()), &base));
    assert_same(scene.disk(), &scene.new);
    assert_same(&base, &scene.old);
    scene.stand(&["base.raw", "disk.raw"]);
    let stream = scene.stream(Some(OLD), NEW).bytes.len() as u64;
    assert_eq!(report["kind"], "delta");
    assert_eq!(report["wire_bytes"], stream);
    assert_eq!(service.sent(), stream, "each byte came once");
    // Three chunks that the base has nowhere.
    assert!(stream < 3 * BLOCK + 2000, "{stream} bytes for three blocks");
    assert_eq!(report["digest"], scene.digest(NEW));
    assert_eq!(
        (&report["resumed"], &report["base_image"]),
        (&json!(false), &json!(OLD))
    );
    // The parent's name need not be given: the service knows it.
    let mut command = pull(&service, NEW, &scene.disk());
    command.args(["--base", &base, "--force"]);
    assert_eq!(pulled(command)["base_image"], OLD);
    assert_same(scene.disk(), &scene.new);
}

#[test]
fn a_disk_is_patched_where_it_is() {
    let scene = Scene::new();
    let service = scene.service(true);
    let disk = scene.world.disk("disk.raw", &(1..40).collect::<Vec<_>>());
    let report = pulled(over(pull(&service, NEW, &disk), &disk));
    assert_same(&disk, &scene.new);
    assert_eq!(
        (&report["kind"], &report["base"]),
        (&json!("delta"), &Value::Null)
    );
    scene.stand(&["disk.raw"]);
    let again = pulled(over(pull(&service, NEW, &disk), &disk));
    assert_eq!(again["done_before"], true);
    assert_same(&disk, &scene.new);
    scene.stand(&["disk.raw"]);
}

#[test]
fn a_host_that_holds_nothing_fetches_all_of_it_as_stored() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::new();
    let service = scene.service(true);
    let report = pulled(pull(&service, NEW, &scene.disk()));
    assert_eq!(report["kind"], "full_delta");
    assert_same(scene.disk(), &scene.new);
    let blocks = |path: &str| std::fs::metadata(path).unwrap().blocks();
    assert!(
        blocks(&scene.disk()) <= blocks(&scene.new) + 16,
        "holes were filled"
    );
}

#[test]
fn any_service_of_the_images_api_gives_whole_images() {
    let scene = Scene::new();
    let service = scene.service(false);
    let report = pulled(pull(&service, NEW, &scene.disk()));
    assert_same(scene.disk(), &scene.new);
    scene.stand(&["disk.raw"]);
    assert_eq!(
        (&report["kind"], &report["digest"]),
        (&json!("whole"), &Value::Null)
    );
    assert!(report["hash"].as_str().unwrap().starts_with("sha512:"));
    // A base is no use there, and no hindrance.
    let base = scene.world.disk("base.raw", &(1..40).collect::<Vec<_>>());
    let mut command = over(pull(&service, NEW, &scene.disk()), &base);
    let ran = Ran::of(command.arg("--force")).expect_code(0);
    assert!(ran.err.contains("no increments"), "{ran:#?}");
    assert_same(scene.disk(), &scene.new);
    assert_same(&base, &scene.old);
}

#[test]
fn a_connection_that_breaks_anywhere_costs_no_byte_twice() {
    let scene = Scene::new();
    for increments in [true, false] {
        let service = scene.service(increments);
        let base = scene.world.disk("base.raw", &(1..40).collect::<Vec<_>>());
        let total = match increments {
            true => scene.stream(Some(OLD), NEW).bytes.len(),
            false => scene.bytes(NEW).len(),
        };
        // In the head, between tables and records, in records, in the trailer; nothing at all; one byte.
        let cuts = [1, 30, 0, 200, 1, 5_000, 0, 60_000, total / 4, 3, total / 3];
        service.change(|content| content.cuts.extend(cuts));
        let report = pulled(over(pull(&service, NEW, &scene.disk()), &base));
        assert_same(scene.disk(), &scene.new);
        assert_eq!(report["resumed"], true);
        assert_eq!(service.sent(), total as u64, "bytes came twice");
        let requests = service.data_requests();
        assert_eq!(requests.len(), cuts.len() + 1);
        let mut have = 0;
        for (request, cut) in requests.iter().zip(cuts) {
            assert_eq!(request.range_start(), (have > 0).then_some(have));
            let tagged = request.header("if-range").is_some();
            assert_eq!(tagged, increments && have > 0, "{request:?}");
            have += cut;
        }
        std::fs::remove_file(scene.disk()).unwrap();
    }
}

#[test]
fn a_pull_that_is_killed_anywhere_is_gone_on_with() {
    let scene = Scene::new();
    let rounds: u64 =
        std::env::var("TEGULA_KILL_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    for (round, in_place) in (0..rounds).flat_map(|round| [(round, false), (round, true)]) {
        let service = scene.service(true);
        service.change(|content| content.slow = Some(Duration::from_millis(2)));
        let held = scene.world.disk("base.raw", &(1..40).collect::<Vec<_>>());
        let disk = if in_place { held.clone() } else { scene.disk() };
        // Always before it can be done, however many rounds there are.
        let (mut runs, mut wait) = (0, 5 + round * 7 % 20);
        let report = loop {
            let mut command = over(pull(&service, NEW, &disk), &held);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            // Later each time, so that it comes to an end.
            (runs, wait) = (runs + 1, wait + 13);
            let _ = kill_process(Pid::from_child(&child), Signal::KILL);
            let ran = Ran::wait(child);
            if ran.status.code() == Some(0) {
                break Some(ran.json());
            }
            assert_eq!(ran.status.code(), None, "{ran:#?}");
            if !in_place {
                assert_same(&held, &scene.old);
                // It may have been killed when it was done.
                if Path::new(&disk).exists() {
                    break None;
                }
            }
        };
        assert_same(&disk, &scene.new);
        assert!(report.is_none_or(|report| report["kind"] == "delta"));
        assert!(runs > 1, "it was never killed");
        let total = scene.stream(Some(OLD), NEW).bytes.len() as u64;
        // What was on its way when it was killed may come again, no more.
        let most = total + u64::try_from(runs).unwrap() * (512 << 10);
        assert!(service.sent() <= most, "{} of {most} bytes", service.sent());
        std::fs::remove_file(&disk).unwrap();
        let _ = std::fs::remove_file(&held);
        scene.stand(&[]);
    }
}

/// Has a pull killed when it is about to change or sync something for the `call`-th time. Tells whether it came to that.
fn killed_at(command: &Command, call: u32) -> bool {
    let mut strace = Command::new("strace");
    let calls = "rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync";
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={call}")]);
    strace.arg(command.get_program()).args(command.get_args());
    strace.env_remove("LD_LIBRARY_PATH");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let ran = Ran::of(&mut strace);
    assert!(matches!(ran.status.code(), Some(0) | None), "{ran:#?}");
    ran.status.code().is_none()
}

#[test]
fn a_new_disk_is_made_once_wherever_the_pull_is_killed() {
    let scene = Scene::new();
    let total = scene.stream(Some(OLD), NEW).bytes.len() as u64;
    let mut named_before = 0;
    for call in 1.. {
        let service = scene.service(true);
        let held = scene.world.disk("base.raw", &(1..40).collect::<Vec<_>>());
        let disk = scene.disk();
        let killed = killed_at(&over(pull(&service, NEW, &disk), &held), call);
        let is_named = Path::new(&disk).exists();
        let complete = service.sent() == total;
        if killed {
            let report = pulled(over(pull(&service, NEW, &disk), &held));
            assert_eq!(report["kind"], "delta", "call {call}");
            if is_named {
                named_before += 1;
                assert_eq!(report["wire_bytes"], 0, "call {call}");
                assert_eq!(report["fetched_bytes"], total, "call {call}");
            }
        }
        // It may have been killed before the first byte, and nothing is fetched twice.
        assert!(complete || killed, "call {call}");
        assert_eq!(service.sent(), total, "call {call}");
        assert_same(&disk, &scene.new);
        for file in [&disk, &held] {
            std::fs::remove_file(file).unwrap();
        }
        scene.stand(&[]);
        if !killed {
            assert!(call > 5 && named_before > 0, "{call} calls, {named_before}");
            return;
        }
    }
}

#[test]
fn what_was_fetched_is_applied_without_the_server() {
    let scene = Scene::new();
    let (disk, total);
    {
        let service = scene.service(true);
        disk = scene.world.disk("disk.raw", &(1..40).collect::<Vec<_>>());
        total = scene.stream(Some(OLD), NEW).bytes.len() as u64;
        // The disk is busy, as it were: the journal cannot be made until the name is free.
        std::fs::create_dir(format!("{disk}.tegula-journal")).unwrap();
        Ran::of(&mut over(pull(&service, NEW, &disk), &disk)).refused(1, &["journal"]);
        assert_eq!(service.sent(), total);
        assert_same(&disk, &scene.old);
        std::fs::remove_dir(format!("{disk}.tegula-journal")).unwrap();
        // The same words, and nobody there to answer.
        let command = over(pull(&service, NEW, &disk), &disk);
        drop(service);
        let report = pulled(command);
        assert_eq!(
            (&report["wire_bytes"], &report["fetched_bytes"]),
            (&json!(0), &json!(total))
        );
    }
    assert_same(&disk, &scene.new);
    scene.stand(&["disk.raw"]);
}

#[test]
fn a_device_is_patched_with_its_files_elsewhere() {
    let scene = Scene::new();
    let service = scene.service(true);
    let file = scene.world.file("device");
    std::fs::copy(&scene.old, &file).unwrap();
    let longer = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    longer.set_len(60 * BLOCK).unwrap();
    let device = crate::machine::LoopDevice::of(&file);
    let path = device.path().to_owned();
    Ran::of(&mut over(pull(&service, NEW, &path), &path)).refused(1, &[&path, "--work-dir"]);
    let work = scene.world.file("work");
    std::fs::create_dir(&work).unwrap();
    let mut command = pull(&service, NEW, &path);
    Ran::of(command.args(["--work-dir", &work])).refused(1, &[&path, "--base"]);
    let mut command = over(pull(&service, NEW, &path), &path);
    command.args(["--work-dir", &work]);
    pulled(command);
    drop(device);
    let (found, expected) = (std::fs::read(&file).unwrap(), scene.bytes(NEW));
    assert!(found.starts_with(&expected));
    assert_eq!(listing(Path::new(&work)), []);
}

#[test]
fn text_says_what_came_and_quiet_says_nothing() {
    let scene = Scene::new();
    let service = scene.service(true);
    let text = |arguments: &[&str]| {
        let mut command = program();
        command.args(["pull", &service.url(NEW), "--to", &scene.disk(), "--force"]);
        Ran::of(command.args(arguments)).expect_code(0)
    };
    let ran = text(&[]);
    for part in ["pulled", "fetched", "verified", "by digest"] {
        assert!(ran.out.contains(part), "{ran:#?}");
    }
    assert_eq!(ran.err, "", "there is no bar where nobody looks");
    assert!(text(&["-v"]).out.contains(&scene.digest(NEW)));
    let quiet = text(&["-q"]);
    assert_eq!((&*quiet.out, &*quiet.err), ("", ""));
}
