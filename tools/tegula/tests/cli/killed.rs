//! Many processes on one store, some of them killed in the middle, some held up for a while.
//!
//! Several owners of images each run one command after the other; a collector collects all the time. An owner knows what it
//! has: after every command that was not killed, what the command said; after one that was, what it finds, which must be
//! the state before or the state after. `TEGULA_KILL_ROUNDS` says how many commands are to be killed, `TEGULA_SEED` where
//! drawing begins; when a signal strikes is for the system to say.

use crate::support::{Ran, World};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many there are that own images.
const OWNERS: usize = 3;

/// An owner's images, with their blocks.
type Model = BTreeMap<String, Vec<u32>>;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A sequence of numbers that looks random, the same for the same seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What may befall a command.
enum Fate {
    Lives,
    /// Is stopped, and after a while goes on.
    Held,
    Killed,
}

/// Runs commands, and does to some of them what fate wants.
struct Hand<'a> {
    world: &'a World,
    draws: Draws,
    /// How long the last command of each kind took that was left alone: signals strike within twice that.
    lasted: BTreeMap<&'static str, Duration>,
    killed: &'a AtomicU64,
}

impl<'a> Hand<'a> {
    fn new(world: &'a World, seed: u64, killed: &'a AtomicU64) -> Self {
        Self {
            world,
            draws: Draws(seed),
            lasted: BTreeMap::new(),
            killed,
        }
    }

    fn run(&mut self, kind: &'static str, command: &mut Command) -> Output {
        let fate = match self.draws.below(5) {
            0 | 1 => Fate::Killed,
            2 => Fate::Held,
            _ => Fate::Lives,
        };
        let lasts = self.lasted.get(kind).copied();
        let lasts = lasts.unwrap_or(Duration::from_millis(10)).as_micros();
        let at = self.draws.below(2 * u64::try_from(lasts).unwrap() + 1);
        let start = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let process = Pid::from_child(&child);
        match fate {
            Fate::Lives => {}
            // Nobody has waited for it yet, so the id is still its own, even if it has ended.
            Fate::Held => {
                std::thread::sleep(Duration::from_micros(at));
                kill_process(process, Signal::STOP).unwrap();
                std::thread::sleep(Duration::from_millis(self.draws.below(100)));
                kill_process(process, Signal::CONT).unwrap();
            }
            Fate::Killed => {
                std::thread::sleep(Duration::from_micros(at));
                kill_process(process, Signal::KILL).unwrap();
            }
        }
        let output = child.wait_with_output().unwrap();
        if matches!(fate, Fate::Lives) {
            self.lasted.insert(kind, start.elapsed());
        }
        if output.status.signal() == Some(9) {
            self.killed.fetch_add(1, Ordering::Relaxed);
        }
        output
    }
}

/// How a command ended, as far as its owner cares.
enum End {
    Done,
    Killed,
    /// It said no, and this is what it said.
    Refused(String),
}

fn end_of(output: &Output) -> End {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => End::Done,
        (_, Some(9)) => End::Killed,
        (Some(1), _) => End::Refused(said),
        _ => panic!("{output:?}"),
    }
}

/// One thing an owner does.
#[derive(Debug)]
enum Step {
    Put {
        image: String,
        blocks: Vec<u32>,
        parent: Option<String>,
        replace: bool,
    },
    Remove(String),
    Rename(String, String),
    Coalesce(String),
    Get(String),
}

impl Step {
    fn draw(owner: usize, draws: &mut Draws) -> Self {
        let mut mine = || format!("{owner}-{}", draws.below(3));
        let (image, other) = (mine(), mine());
        match draws.below(10) {
            0..5 => {
                let count = draws.below(40) + 1;
                Self::Put {
                    image,
                    blocks: (0..count).map(|_| draws.below(60) as u32).collect(),
                    parent: (!draws.one_in(3))
                        .then(|| format!("{}-{}", draws.below(OWNERS as u64), draws.below(3))),
                    replace: draws.one_in(2),
                }
            }
            5 => Self::Remove(image),
            6 => Self::Rename(image, other),
            7 => Self::Coalesce(image),
            _ => Self::Get(image),
        }
    }

    fn command(&self, world: &World, owner: usize) -> (&'static str, Command) {
        let text = |parts: &[&str]| world.command(parts);
        match self {
            Self::Put {
                image,
                blocks,
                parent,
                replace,
            } => {
                let disk = world.disk(&format!("disk-{owner}"), blocks);
                let mut command = world.command(["put", image, &disk]);
                if let Some(parent) = parent {
                    command.args(["--parent", parent]);
                }
                if *replace {
                    command.arg("--replace");
                }
                ("put", command)
            }
            Self::Remove(image) => ("rm", text(&["rm", image])),
            Self::Rename(image, to) => ("rename", text(&["rename", image, to])),
            Self::Coalesce(image) => ("coalesce", text(&["coalesce", image])),
            Self::Get(image) => {
                let out = world.file(&format!("out-{owner}"));
                ("get", text(&["get", image, &out, "--force"]))
            }
        }
    }

    /// Tells what its owner has after it.
    fn applied(&self, mine: &Model) -> Model {
        let mut after = mine.clone();
        match self {
            Self::Put { image, blocks, .. } => _ = after.insert(image.clone(), blocks.clone()),
            Self::Remove(image) => _ = after.remove(image),
            Self::Rename(image, to) => {
                if let Some(blocks) = after.remove(image) {
                    after.insert(to.clone(), blocks);
                }
            }
            Self::Coalesce(_) | Self::Get(_) => {}
        }
        after
    }

    /// Tells whether a refusal is right. Parents are others', and come and go.
    fn may_be_refused(&self, mine: &Model, said: &str) -> bool {
        let has = |image: &String| mine.contains_key(image);
        let (absent, taken) = (said.contains("there is no image"), said.contains("already"));
        match self {
            Self::Put {
                image,
                parent,
                replace,
                ..
            } => (has(image) && !replace && taken) || (parent.is_some() && absent),
            Self::Rename(image, to) => (!has(image) && absent) || (has(to) && taken),
            Self::Remove(image) | Self::Coalesce(image) | Self::Get(image) => !has(image) && absent,
        }
    }
}

/// Does what is drawn for an owner until enough was killed. Returns what it has then.
fn own(hand: &mut Hand<'_>, owner: usize, rounds: u64, commands: &AtomicU64) -> Model {
    let mut mine = Model::new();
    while hand.killed.load(Ordering::Relaxed) < rounds {
        let step = Step::draw(owner, &mut hand.draws);
        let (kind, mut command) = step.command(hand.world, owner);
        let end = end_of(&hand.run(kind, &mut command));
        commands.fetch_add(1, Ordering::Relaxed);
        match (end, &step) {
            (End::Done, Step::Get(image)) => {
                let expected = hand.world.disk(&format!("disk-{owner}"), &mine[image]);
                crate::support::assert_same(hand.world.path(&format!("out-{owner}")), expected);
            }
            (End::Done, step) => mine = step.applied(&mine),
            (End::Killed, step) => {
                let after = step.applied(&mine);
                mine = look(hand.world, owner, [mine, after]);
            }
            (End::Refused(said), step) => {
                let right = step.may_be_refused(&mine, &said);
                assert!(right, "{step:?} of {:?}: {said}", mine.keys());
            }
        }
    }
    mine
}

/// Finds out which of two states an owner's images are in.
fn look(world: &World, owner: usize, allowed: [Model; 2]) -> Model {
    let prefix = format!("{owner}-");
    let mut names = world.names();
    names.retain(|name| name.starts_with(&prefix));
    let is = |model: &Model| {
        model.keys().eq(&names)
            && model
                .iter()
                .all(|(name, blocks)| reads(world, name, blocks))
    };
    let Some(found) = allowed.iter().position(is) else {
        panic!("there are {names:?}, none of {allowed:?}")
    };
    allowed.into_iter().nth(found).unwrap()
}

fn reads(world: &World, image: &str, blocks: &[u32]) -> bool {
    let out = world.file(&format!("look-{image}"));
    world.ok(["get", image, &out, "--force"]);
    let disk = world.disk(&format!("expected-{image}"), blocks);
    let same = std::fs::read(&out).unwrap() == std::fs::read(&disk).unwrap();
    for file in [out, disk] {
        std::fs::remove_file(file).unwrap();
    }
    same
}

/// Collects until enough was killed.
fn collect(hand: &mut Hand<'_>, rounds: u64) -> u64 {
    let mut collections = 0;
    while hand.killed.load(Ordering::Relaxed) < rounds {
        let wait = if hand.draws.one_in(2) { "0" } else { "1" };
        let mut gc = hand
            .world
            .command(["gc", "--min-live", "1", "--wait", wait]);
        match end_of(&hand.run("gc", &mut gc)) {
            End::Done => collections += 1,
            End::Killed => {}
            End::Refused(said) => assert!(said.contains("garbage collection"), "{said}"),
        }
    }
    collections
}

#[test]
fn processes_that_are_killed_among_others_lose_nothing_acknowledged() {
    let rounds = from_environment("TEGULA_KILL_ROUNDS", 60);
    let seed = from_environment("TEGULA_SEED", 20_261_124);
    println!("TEGULA_SEED={seed}");
    let world = World::new();
    let (killed, commands) = (AtomicU64::new(0), AtomicU64::new(0));
    let (models, collections) = std::thread::scope(|scope| {
        let (world, killed, commands) = (&world, &killed, &commands);
        let owners: Vec<_> = (0..OWNERS)
            .map(|owner| {
                let mut hand = Hand::new(world, seed + 1 + owner as u64, killed);
                scope.spawn(move || own(&mut hand, owner, rounds, commands))
            })
            .collect();
        // Two of them, so that each also finds the other at it.
        let collectors: Vec<_> = (0..2)
            .map(|at| {
                let mut hand = Hand::new(world, seed + 1000 + at, killed);
                scope.spawn(move || collect(&mut hand, rounds))
            })
            .collect();
        let models: Vec<Model> = owners
            .into_iter()
            .map(|owner| owner.join().unwrap())
            .collect();
        let collections: u64 = collectors
            .into_iter()
            .map(|collector| collector.join().unwrap())
            .sum();
        (models, collections)
    });
    let all: Model = models.into_iter().flatten().collect();
    world.ok(["verify", "--full"]);
    assert!(world.names().iter().eq(all.keys()), "{:?}", all.keys());
    for (image, blocks) in &all {
        assert!(reads(&world, image, blocks), "{image}");
    }
    world.ok(["gc", "--min-live", "1"]);
    Ran::of(&mut world.command(["verify", "--full"])).expect_code(0);
    let needed: BTreeSet<u32> = all.values().flatten().copied().collect();
    let needed = needed.iter().filter(|kind| **kind != 0).count();
    assert_eq!(
        world.json(["stats"])["chunks"],
        needed,
        "chunks left by collection, and chunks that images need"
    );
    for image in all.keys() {
        world.ok(["rm", image]);
    }
    world.nothing_is_left();
    println!(
        "{} commands of owners, {collections} collections, {} killed",
        commands.into_inner(),
        killed.into_inner()
    );
}
