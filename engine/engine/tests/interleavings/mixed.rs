//! Drawn histories: several owners of images, each of whom knows what it has, do what is drawn for them, and share chunks,
//! layers and parents with all the others.

use crate::mortal::Fate;
use crate::schedules::explore;
use crate::world::{Model, Process, Result, World, is_absent, is_taken};
use shuttle::rand::Rng;
use std::iter;
use tegula_engine::EngineError;

/// How often each history is drawn, four times over.
const COUNT: usize = 50;

/// How many there are that own images.
const OWNERS: usize = 3;

/// How much each of them does.
const STEPS: usize = 4;

/// One thing to do.
#[derive(Debug, Clone)]
enum Step {
    Put {
        image: String,
        blocks: Vec<u16>,
        parent: Option<String>,
        replace: bool,
    },
    Remove(String),
    Rename(String, String),
    Coalesce(String),
    Read(String),
    Collect,
}

impl Step {
    /// Draws one for an owner. Parents may be anybody's.
    fn draw(owner: usize) -> Self {
        let mut random = shuttle::rand::thread_rng();
        let mut mine = || format!("{owner}-{}", random.gen_range(0..2));
        let (image, other) = (mine(), mine());
        match random.gen_range(0..12) {
            0..6 => Self::Put {
                image,
                blocks: (0..random.gen_range(1..6))
                    .map(|_| random.gen_range(0..10))
                    .collect(),
                parent: random.gen_bool(0.6).then(|| {
                    let (whose, which) = (random.gen_range(0..OWNERS), random.gen_range(0..2));
                    format!("{whose}-{which}")
                }),
                replace: random.gen_bool(0.3),
            },
            6 => Self::Remove(image),
            7 => Self::Rename(image, other),
            8 => Self::Coalesce(image),
            9 => Self::Read(image),
            _ => Self::Collect,
        }
    }

    /// Does it, and makes sure that what is read is what must be there.
    fn act(&self, process: &Process, mine: &Model) -> Result<()> {
        match self {
            Self::Put {
                image,
                blocks,
                parent,
                replace,
            } => process.put_as(image, blocks, parent.as_deref(), *replace),
            Self::Remove(image) => process.rm(image),
            Self::Rename(image, to) => process.rename(image, to),
            Self::Coalesce(image) => process.coalesce(image),
            Self::Read(image) => match mine.get(image) {
                Some(blocks) => process.read_slowly(image, blocks),
                None => process.get(image).map(drop),
            },
            Self::Collect => process.gc_if_free(),
        }
    }

    /// Tells what an owner has after it.
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
            Self::Coalesce(_) | Self::Read(_) | Self::Collect => {}
        }
        after
    }

    /// Tells whether a refusal is right, by what the owner has. Parents are others', and come and go.
    fn may_be_refused(&self, mine: &Model, error: &EngineError) -> bool {
        let has = |image: &String| mine.contains_key(image);
        match self {
            Self::Put {
                image,
                parent,
                replace,
                ..
            } => {
                let taken = has(image) && !replace && is_taken(error);
                taken || (parent.is_some() && is_absent(error))
            }
            Self::Rename(image, to) => {
                (!has(image) && is_absent(error)) || (has(to) && is_taken(error))
            }
            Self::Remove(image) | Self::Coalesce(image) | Self::Read(image) => {
                !has(image) && is_absent(error)
            }
            Self::Collect => false,
        }
    }
}

/// What an owner knows of its images: what was acknowledged, and what may be instead, since it never heard how the last
/// step ended.
struct Known {
    mine: Model,
    perhaps: Option<Model>,
}

/// What an owner does until all is done or the machine fails.
fn live(world: &World, owner: usize, fates: &[Fate]) -> Known {
    let mut mine = Model::new();
    for step in iter::repeat_with(|| Step::draw(owner)).take(STEPS) {
        let fate = fates[shuttle::rand::thread_rng().gen_range(0..fates.len())];
        let done = world
            .process(fate)
            .and_then(|process| step.act(&process, &mine));
        let after = step.applied(&mine);
        match done {
            Ok(()) => mine = after,
            Err(_) if world.disk.has_crashed() => {
                let perhaps = Some(after);
                return Known { mine, perhaps };
            }
            Err(error) if step.may_be_refused(&mine, &error) => {}
            // Nobody but this owner changes its images: it looks what its dead process has done.
            Err(_) if fate != Fate::Lives => {
                mine = match world.disk.has_crashed() {
                    false => look(world, owner, &[mine, after]),
                    true => mine,
                }
            }
            Err(error) => panic!("{step:?} of {mine:?}: {error:?}"),
        }
    }
    let perhaps = None;
    Known { mine, perhaps }
}

fn look(world: &World, owner: usize, allowed: &[Model]) -> Model {
    let process = world.process(Fate::Lives).unwrap();
    let records = process.0.list().unwrap();
    let prefix = format!("{owner}-");
    let names = records.iter().map(|record| record.name.as_str());
    let names: Vec<&str> = names.filter(|name| name.starts_with(&prefix)).collect();
    let found = allowed.iter().find(|model| {
        let reads = |(image, blocks): (&String, &Vec<u16>)| process.reads_exactly(image, blocks);
        model.keys().eq(names.iter()) && model.iter().all(reads)
    });
    found
        .unwrap_or_else(|| panic!("there are {names:?}, none of {allowed:?}"))
        .clone()
}

/// Runs all owners and a collector at once.
fn at_once(world: &World, fates: &'static [Fate]) -> Vec<Known> {
    let owners: Vec<_> = (0..OWNERS)
        .map(|owner| {
            let world = world.clone();
            shuttle::thread::spawn(move || live(&world, owner, fates))
        })
        .collect();
    let collector = world.begin(|process| process.gc_if_free().and_then(|()| process.gc_if_free()));
    let known = owners
        .into_iter()
        .map(|owner| owner.join().unwrap())
        .collect();
    let collected = collector.end();
    assert!(
        collected.is_ok() || world.disk.has_crashed(),
        "{collected:?}"
    );
    known
}

/// Returns every state that the store may be in, by what the owners know.
fn possible(known: &[Known]) -> Vec<Model> {
    let mut states = vec![Model::new()];
    for Known { mine, perhaps } in known {
        let choices = iter::once(mine).chain(perhaps);
        states = choices
            .flat_map(|choice| {
                let with =
                    |state: &Model| state.clone().into_iter().chain(choice.clone()).collect();
                states.iter().map(with).collect::<Vec<Model>>()
            })
            .collect();
    }
    states
}

#[test]
fn owners_who_share_everything_do_not_disturb_each_other() {
    explore("drawn steps of three owners × collect", COUNT, || {
        let world = World::new(|_| {});
        let known = at_once(&world, &[Fate::Lives]);
        world.holds_one_of(&possible(&known));
    });
}

#[test]
fn processes_that_die_among_others_disturb_nobody() {
    explore("drawn steps, some of which die", COUNT, || {
        let world = World::new(|_| {});
        let fates = &[Fate::Lives, Fate::Lives, Fate::Stumbles, Fate::Dies];
        let known = at_once(&world, fates);
        world.holds_one_of(&possible(&known));
    });
}

#[test]
fn a_power_failure_among_many_loses_nothing_acknowledged() {
    explore("drawn steps and a power failure", COUNT, || {
        let world = World::new(|_| {});
        let mut random = shuttle::rand::thread_rng();
        let calls = world.disk.calls();
        world.disk.crash_at(calls + random.gen_range(1..1200));
        let known = at_once(&world, &[Fate::Lives]);
        world.disk.crash();
        let after = world.rebooted(&mut |of| random.gen_range(0..of));
        after.holds_one_of(&possible(&known));
    });
}
