//! The races that would lose data if anything were wrong, each as a history of few processes.

use crate::meeting::{Call, Reached, Stop};
use crate::mortal::Fate;
use crate::schedules::{explore, replays};
use crate::world::{Process, Result, World, bytes, is_absent, is_changed, is_taken, model};
use std::time::Duration;
use tegula_engine::{DeltaError, EngineError, StoreError, Task};
use tegula_format::ChunkId;
use tegula_store::Ingest;

/// How often each history is run, four times over.
const COUNT: usize = 50;

#[test]
fn a_chunk_that_a_put_found_there_is_not_swept_before_it_commits() {
    explore("put × remove × collect", COUNT, put_remove_collect);
}

fn put_remove_collect() {
    let world = World::new(|first| {
        first.put("old", &[1, 2, 3]).unwrap();
        first.put("keep", &[3, 7]).unwrap();
    });
    let put = world.begin(|p| p.put("new", &[1, 2, 9]));
    let removed = world.begin(|p| p.rm("old"));
    let collected = world.begin(Process::gc);
    put.end().unwrap();
    removed.end().unwrap();
    collected.end().unwrap();
    world.holds(&model([("keep", &[3, 7]), ("new", &[1, 2, 9])]));
}

#[test]
fn a_history_is_decided_by_its_schedule() {
    replays(10, put_remove_collect);
}

#[test]
fn a_child_needs_nothing_that_goes_with_its_parent() {
    explore("child put × remove × collect × collect", COUNT, || {
        let world = World::new(|first| {
            first.put("old", &[1, 2, 3, 4]).unwrap();
            first.put_child("parent", &[1, 2, 5, 4], "old").unwrap();
            first.rm("old").unwrap();
        });
        let put = world.begin(|p| p.put_child("child", &[1, 6, 5, 4], "parent"));
        let removed = world.begin(|p| p.rm("parent"));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        let also = world.begin(Process::gc_if_free);
        let put = put.end();
        removed.end().unwrap();
        collected.end().unwrap();
        also.end().unwrap();
        match put {
            Ok(()) => world.holds(&model([("child", &[1, 6, 5, 4])])),
            Err(error) => {
                assert!(is_absent(&error), "{error:?}");
                world.holds(&model([]));
            }
        }
    });
}

#[test]
fn the_run_that_a_put_has_just_published_may_be_merged_by_another() {
    explore("put × put × put among many runs", COUNT, || {
        let mut expected = model([]);
        let world = World::new(|first| {
            for number in 0..8u16 {
                let (image, blocks) = (format!("old-{number}"), [number + 1]);
                first.put(&image, &blocks).unwrap();
                expected.insert(image, blocks.to_vec());
            }
        });
        let puts: Vec<_> = (0..3u16)
            .map(|number| {
                let (image, blocks) = (format!("new-{number}"), vec![number + 20, number + 30]);
                expected.insert(image.clone(), blocks.clone());
                world.begin(move |p| p.put(&image, &blocks))
            })
            .collect();
        puts.into_iter().for_each(|put| put.end().unwrap());
        world.holds(&expected);
    });
}

#[test]
fn an_image_may_be_removed_while_it_is_marked_and_read() {
    explore("remove × collect × read × read", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3, 4]).unwrap();
            first.put_child("b", &[1, 2, 3, 5], "a").unwrap();
            first.put("c", &[6, 3]).unwrap();
        });
        let removed = world.begin(|p| p.rm("a"));
        let collected = world.begin(Process::gc);
        let child = world.begin(|p| p.read_slowly("b", &[1, 2, 3, 5]));
        let parent = world.begin(|p| p.reads_as_one_of("a", &[&[1, 2, 3, 4]]));
        removed.end().unwrap();
        collected.end().unwrap();
        child.end().unwrap();
        parent.end().unwrap();
        world.holds(&model([("b", &[1, 2, 3, 5]), ("c", &[6, 3])]));
    });
}

#[test]
fn a_put_that_fails_takes_nothing_from_another_of_the_same_chunks() {
    explore("put that fails × put × collect", COUNT, || {
        let world = World::new(|first| first.put("keep", &[3, 4]).unwrap());
        let failed = world.begin_mortal(Fate::Stumbles, |p| p.put("x", &[1, 2, 3]));
        let put = world.begin(|p| p.put("y", &[1, 2, 3]));
        let collected = world.begin(Process::gc);
        let failed = failed.end();
        put.end().unwrap();
        collected.end().unwrap();
        let without = model([("keep", &[3, 4]), ("y", &[1, 2, 3])]);
        let mut with = without.clone();
        with.insert("x".to_owned(), vec![1, 2, 3]);
        match failed {
            Ok(()) => world.holds(&with),
            Err(_) => world.holds(&without),
        }
    });
}

#[test]
fn a_put_that_dies_takes_nothing_from_another_of_the_same_chunks() {
    explore("put that dies × put × collect", COUNT, || {
        let world = World::new(|first| first.put("keep", &[3, 4]).unwrap());
        let dead = world.begin_mortal(Fate::Dies, |p| p.put("x", &[1, 2, 3]));
        let put = world.begin(|p| p.put("y", &[1, 2, 3]));
        let collected = world.begin(Process::gc);
        let dead = dead.end();
        put.end().unwrap();
        collected.end().unwrap();
        let without = model([("keep", &[3, 4]), ("y", &[1, 2, 3])]);
        let mut with = without.clone();
        with.insert("x".to_owned(), vec![1, 2, 3]);
        match dead {
            Ok(()) => world.holds(&with),
            // It may have died after the rename that made it visible: the image is then there, and whole.
            Err(_) => world.holds_one_of(&[with, without]),
        }
    });
}

#[test]
fn what_a_dead_put_left_is_taken_over_once_or_collected() {
    explore(
        "put × put × collect on an abandoned segment",
        COUNT,
        || {
            let world = World::new(|first| first.put("keep", &[3, 4]).unwrap());
            let dead = world.begin_mortal(Fate::Dies, |p| p.put("x", &[1, 2, 5, 6]));
            let dead = dead.end();
            let again = world.begin(|p| p.put("x", &[1, 2, 5, 6]));
            let other = world.begin(|p| p.put("y", &[2, 5, 8]));
            let collected = world.begin(Process::gc);
            match again.end() {
                Ok(()) => {}
                Err(error) => assert!(dead.is_ok() || is_taken(&error), "{error:?}"),
            }
            other.end().unwrap();
            collected.end().unwrap();
            world.holds(&model([
                ("keep", &[3, 4]),
                ("x", &[1, 2, 5, 6]),
                ("y", &[2, 5, 8]),
            ]));
        },
    );
}

#[test]
fn a_reader_that_began_before_a_compaction_reads_on() {
    explore("read × compaction × compaction", COUNT, || {
        let world = World::new(|first| {
            first.put("large", &[1, 2, 3, 4, 5, 6]).unwrap();
            first.put("small", &[2, 0, 5, 2]).unwrap();
            first.rm("large").unwrap();
        });
        let slow = world.begin(|p| p.read_slowly("small", &[2, 0, 5, 2]));
        let streamed = world.begin(|p| p.reads_as_one_of("small", &[&[2, 0, 5, 2]]));
        let patient = world.begin(|p| match p.gc_with_patience(Duration::from_millis(100)) {
            Err(EngineError::Store(StoreError::Busy { .. })) => Ok(()),
            done => done.map(drop),
        });
        let hasty = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        slow.end().unwrap();
        streamed.end().unwrap();
        patient.end().unwrap();
        hasty.end().unwrap();
        world.holds(&model([("small", &[2, 0, 5, 2])]));
    });
}

#[test]
fn a_name_is_given_to_one_of_two_puts() {
    explore("put × put of one name × collect", COUNT, || {
        let world = World::new(|first| first.put("keep", &[2]).unwrap());
        let one = world.begin(|p| p.put("x", &[1, 2, 3]));
        let other = world.begin(|p| p.put("x", &[1, 2, 4]));
        let collected = world.begin(Process::gc);
        let content: &[u16] = match (one.end(), other.end()) {
            (Ok(()), Err(error)) if is_taken(&error) => &[1, 2, 3],
            (Err(error), Ok(())) if is_taken(&error) => &[1, 2, 4],
            ends => panic!("{ends:?}"),
        };
        collected.end().unwrap();
        world.holds(&model([("keep", &[2]), ("x", content)]));
    });
}

#[test]
fn an_image_that_is_replaced_twice_reads_as_one_of_them_all_the_time() {
    explore("replace × replace × read × collect", COUNT, || {
        let world = World::new(|first| first.put("x", &[1, 2, 3]).unwrap());
        let one = world.begin(|p| p.replace("x", &[1, 2, 4]));
        let other = world.begin(|p| p.replace("x", &[5, 2]));
        let read = world.begin(|p| {
            let allowed: [&[u16]; 3] = [&[1, 2, 3], &[1, 2, 4], &[5, 2]];
            p.reads_as_one_of("x", &allowed)
        });
        let collected = world.begin(Process::gc);
        one.end().unwrap();
        other.end().unwrap();
        read.end().unwrap();
        collected.end().unwrap();
        world.holds_one_of(&[model([("x", &[1, 2, 4])]), model([("x", &[5, 2])])]);
    });
}

#[test]
fn a_chain_is_coalesced_while_what_it_lies_on_is_removed_and_collected() {
    explore("coalesce × remove × collect × read", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
            let b = [1, 2, 3, 4, 5, 6, 7, 9];
            first.put_child("b", &b, "a").unwrap();
            let c = [1, 2, 3, 4, 5, 6, 10, 9];
            first.put_child("c", &c, "b").unwrap();
        });
        let coalesced = world.begin(|p| p.coalesce("c"));
        let removed = world.begin(|p| p.rm("a").and_then(|()| p.rm("b")));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        let read = world.begin(|p| p.read_slowly("c", &[1, 2, 3, 4, 5, 6, 10, 9]));
        coalesced.end().unwrap();
        removed.end().unwrap();
        collected.end().unwrap();
        read.end().unwrap();
        world.holds(&model([("c", &[1, 2, 3, 4, 5, 6, 10, 9])]));
    });
}

#[test]
fn a_chain_is_flattened_while_what_it_lies_on_is_removed_and_collected() {
    explore("flatten × coalesce × remove × collect", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
            let b = [1, 2, 3, 4, 5, 6, 7, 9];
            first.put_child("b", &b, "a").unwrap();
            let c = [1, 2, 3, 4, 5, 6, 10, 9];
            first.put_child("c", &c, "b").unwrap();
        });
        let flattened = world.begin(|p| p.flatten("c"));
        let coalesced = world.begin(|p| p.coalesce("c"));
        let removed = world.begin(|p| p.rm("b").and_then(|()| p.rm("a")));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        // Each of the two may find that the other was first, and says so.
        let ends = [flattened.end(), coalesced.end()];
        let right = |end: &Result<()>| match end {
            Ok(()) => true,
            Err(error) => is_changed(error),
        };
        assert!(ends.iter().all(right), "{ends:?}");
        assert!(ends.iter().any(Result::is_ok), "{ends:?}");
        removed.end().unwrap();
        collected.end().unwrap();
        world.holds(&model([("c", &[1, 2, 3, 4, 5, 6, 10, 9])]));
    });
}

#[test]
fn an_image_is_put_on_another_that_is_removed_and_collected() {
    explore("coalesce onto × remove × collect × read", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3, 4]).unwrap();
            first.put_child("b", &[1, 2, 5, 4], "a").unwrap();
            first.put("stranger", &[6, 2, 5, 7]).unwrap();
        });
        let coalesced = world.begin(|p| p.coalesce_onto("b", "stranger"));
        let removed = world.begin(|p| p.rm("stranger").and_then(|()| p.rm("a")));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        let read = world.begin(|p| p.read_slowly("b", &[1, 2, 5, 4]));
        if let Err(error) = coalesced.end() {
            assert!(is_absent(&error), "{error:?}");
        }
        removed.end().unwrap();
        collected.end().unwrap();
        read.end().unwrap();
        world.holds(&model([("b", &[1, 2, 5, 4])]));
    });
}

#[test]
fn a_clone_outlives_what_it_was_made_of() {
    explore("clone × remove × collect × collect", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3, 4]).unwrap();
            first.put_child("b", &[1, 2, 5, 4], "a").unwrap();
        });
        let cloned = world.begin(|p| p.clone_image("b", "c"));
        let removed = world.begin(|p| p.rm("b").and_then(|()| p.rm("a")));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        let also = world.begin(Process::gc_if_free);
        let cloned = cloned.end();
        removed.end().unwrap();
        collected.end().unwrap();
        also.end().unwrap();
        match cloned {
            Ok(()) => world.holds(&model([("c", &[1, 2, 5, 4])])),
            Err(error) => {
                assert!(is_absent(&error), "{error:?}");
                world.holds(&model([]));
            }
        }
    });
}

#[test]
fn a_delta_is_applied_to_a_base_that_is_removed_and_collected() {
    explore("apply delta × remove × collect × put", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3, 4]).unwrap();
            first.put("b", &[1, 6, 3, 0, 7]).unwrap();
        });
        let stream = world.process(Fate::Lives).unwrap().delta("a", "b");
        let applied = world.begin(move |p| p.apply_delta(&stream, "c"));
        let removed = world.begin(|p| p.rm("a").and_then(|()| p.rm("b")));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        let put = world.begin(|p| p.put("d", &[6, 3]));
        let applied = applied.end();
        removed.end().unwrap();
        collected.end().unwrap();
        put.end().unwrap();
        match applied {
            Ok(()) => world.holds(&model([("c", &[1, 6, 3, 0, 7]), ("d", &[6, 3])])),
            Err(error) => {
                // Gone before it was looked for, or between that and opening it.
                let missing = matches!(&error, EngineError::Delta(delta) if matches!(**delta, DeltaError::BaseMissing { .. }));
                assert!(missing || is_absent(&error), "{error:?}");
                world.holds(&model([("d", &[6, 3])]));
            }
        }
    });
}

#[test]
fn chunks_are_stored_again_over_others_while_these_go() {
    explore("optimize × put × remove × collect", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[101, 201]).unwrap();
            first.put("b", &[102, 202, 3]).unwrap();
            first.put("c", &[103, 3]).unwrap();
        });
        let optimized = world.begin(Process::optimize_if_free);
        let put = world.begin(|p| p.put_child("d", &[104, 202, 203], "b"));
        let removed = world.begin(|p| p.rm("a").and_then(|()| p.rm("c")));
        let collected = world.begin(|p| p.gc_if_free().and_then(|()| p.gc_if_free()));
        optimized.end().unwrap();
        put.end().unwrap();
        removed.end().unwrap();
        collected.end().unwrap();
        world.holds(&model([("b", &[102, 202, 3]), ("d", &[104, 202, 203])]));
    });
}

#[test]
fn of_two_collections_one_at_a_time_collects() {
    explore("collect × collect × put × remove", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3]).unwrap();
            first.put("b", &[2, 4]).unwrap();
            first.put("c", &[4, 5]).unwrap();
            first.rm("a").unwrap();
        });
        let one = world.begin(Process::gc_if_free);
        let other = world.begin(Process::gc_if_free);
        let put = world.begin(|p| p.put("d", &[1, 5, 6]));
        let removed = world.begin(|p| p.rm("c"));
        one.end().unwrap();
        other.end().unwrap();
        put.end().unwrap();
        removed.end().unwrap();
        world.holds(&model([("b", &[2, 4]), ("d", &[1, 5, 6])]));
    });
}

#[test]
fn a_collection_that_dies_is_finished_by_the_next() {
    explore("collection that dies × put × collect", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3]).unwrap();
            first.put_child("b", &[2, 2, 3], "a").unwrap();
            first.put("c", &[4, 5]).unwrap();
            first.rm("a").unwrap();
        });
        let dead = world.begin_mortal(Fate::Dies, |p| p.gc_if_free());
        let put = world.begin(|p| p.put("d", &[1, 5, 6]));
        let collected = world.begin(Process::gc_if_free);
        drop(dead.end());
        put.end().unwrap();
        collected.end().unwrap();
        world.holds(&model([
            ("b", &[2, 2, 3]),
            ("c", &[4, 5]),
            ("d", &[1, 5, 6]),
        ]));
    });
}

#[test]
fn a_rename_and_a_put_do_not_both_get_a_name() {
    explore("rename × put × collect × remove", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3]).unwrap();
            first.put("c", &[3, 4]).unwrap();
        });
        let renamed = world.begin(|p| p.rename("a", "b"));
        let put = world.begin(|p| p.put("b", &[1, 4]));
        let removed = world.begin(|p| p.rm("c"));
        let collected = world.begin(Process::gc);
        removed.end().unwrap();
        collected.end().unwrap();
        match (renamed.end(), put.end()) {
            (Ok(()), Err(error)) if is_taken(&error) => world.holds(&model([("b", &[1, 2, 3])])),
            (Err(error), Ok(())) if is_taken(&error) => {
                world.holds(&model([("a", &[1, 2, 3]), ("b", &[1, 4])]));
            }
            ends => panic!("{ends:?}"),
        }
    });
}

#[test]
fn a_repair_does_no_harm_to_what_goes_on() {
    explore("repair × put × remove × collect", COUNT, || {
        let world = World::new(|first| {
            first.put("a", &[1, 2, 3]).unwrap();
            first.put_child("b", &[1, 2, 5], "a").unwrap();
        });
        let repaired = world.begin(|p| match p.0.repair(None, Task::unattended()) {
            Err(EngineError::Store(StoreError::Busy { .. })) => Ok(()),
            done => done.map(drop),
        });
        let put = world.begin(|p| p.put("c", &[3, 2, 8]));
        let removed = world.begin(|p| p.rm("a"));
        let collected = world.begin(Process::gc_if_free);
        repaired.end().unwrap();
        put.end().unwrap();
        removed.end().unwrap();
        collected.end().unwrap();
        world.holds(&model([("b", &[1, 2, 5]), ("c", &[3, 2, 8])]));
    });
}

#[test]
fn what_a_session_finds_stays_while_it_lasts() {
    explore("sessions × sessions × collections", COUNT, || {
        let world = World::new(|first| {
            first.put("old", &[1, 2, 3]).unwrap();
            first.put("keep", &[3, 4]).unwrap();
            first.rm("old").unwrap();
        });
        // As short as can be, so that many of them begin just when an epoch ends.
        let look = |process: &Process| {
            for _ in 0..6 {
                let session = process.0.store().begin()?;
                for kind in [1, 2, 3, 4] {
                    let id = ChunkId::of(&bytes(&[kind]));
                    let found = session.index()?.lookup(&id);
                    if let Some(row) = found {
                        session.read_chunk_at(&row)?;
                    }
                    assert!(found.is_some() || kind < 3, "{kind} is needed");
                }
            }
            Ok(())
        };
        let sessions = [(); 2].map(|()| world.begin(look));
        let collected = world.begin(|p| {
            p.gc()?;
            p.put("again", &[1, 5])?;
            p.rm("again")?;
            p.gc().map(drop)
        });
        for session in sessions {
            session.end().unwrap();
        }
        collected.end().unwrap();
        world.holds(&model([("keep", &[3, 4])]));
    });
}

#[test]
fn whoever_enters_an_epoch_that_has_just_ended_finds_nothing_of_what_goes_with_it() {
    explore("put that enters × collect that removes", COUNT, || {
        let world = World::new(|first| {
            first.put("old", &[1, 2, 3]).unwrap();
            first.put("keep", &[3, 4]).unwrap();
            first.rm("old").unwrap();
        });
        // The put has read in which epoch it begins, and enters it when collection has seen that nobody is left there.
        // Collection goes on to remove when the put has looked up what it needs not store.
        let (entering, removing, storing) =
            (Reached::default(), Reached::default(), Reached::default());
        let put = [
            Stop {
                call: Call::Lock,
                path: "locks/epoch-",
                tells: entering.clone(),
                waits_for: Some(removing.clone()),
            },
            Stop {
                call: Call::Create,
                path: "segments/",
                tells: storing.clone(),
                waits_for: None,
            },
        ];
        let collect = [
            Stop {
                call: Call::Lock,
                path: "locks/gc",
                tells: Reached::default(),
                waits_for: Some(entering),
            },
            Stop {
                call: Call::Remove,
                path: "segments/",
                tells: removing,
                waits_for: Some(storing),
            },
        ];
        let put = world.begin_stopping(put.into(), |p| p.put("new", &[1, 2, 9]));
        let collected = world.begin_stopping(collect.into(), Process::gc);
        put.end().unwrap();
        collected.end().unwrap();
        world.holds(&model([("keep", &[3, 4]), ("new", &[1, 2, 9])]));
    });
}

#[test]
fn of_workers_that_meet_a_chunk_one_stores_it() {
    explore("three workers of one ingest", COUNT, || {
        let world = World::new(|first| first.put("keep", &[3, 4]).unwrap());
        let process = world.process(Fate::Lives).unwrap();
        let session = process.0.store().begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        let chunks = [1, 2, 3, 5].map(|kind| {
            let block = bytes(&[kind]);
            (ChunkId::of(&block), block)
        });
        let work = |seal: bool| {
            for (id, block) in &chunks {
                if !ingest.has_or_claim(id) {
                    ingest.store(&ingest.compress(*id, block)).unwrap();
                }
                if seal {
                    ingest.seal_all().unwrap();
                }
            }
        };
        shuttle::thread::scope(|scope| {
            let threads = [false, true, false].map(|seal| scope.spawn(move || work(seal)));
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
        ingest.seal_all().unwrap();
        assert_eq!(ingest.totals().new_chunks, 3, "3 was there before");
        let later = process.0.store().begin().unwrap();
        for (id, block) in &chunks {
            assert!(later.read_chunk(id).unwrap()[..] == block[..]);
        }
    });
}
