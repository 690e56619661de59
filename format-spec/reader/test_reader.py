#!/usr/bin/env python3
"""Tests of the independent reader, against the golden files and against damage. Run: test_reader.py [-v]"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import delta_reader
import make_vectors as maker
import tegula_reader as reader

VECTORS = maker.VECTORS
INDEX = json.loads((VECTORS / "index.json").read_text("utf-8"))


def segment_fields(data):
    header = reader.read_segment_header(data)
    shown = {"store": header.store.hex(), "number": header.number, "block_size_log2": header.block_size_log2}
    return header, shown | {"ingest": header.ingest.hex()}


def shown_rows(rows):
    return [
        {"id": r.id.hex(), "offset": r.offset, "stored_length": r.stored_length, "codec": r.codec, "bases": shown_ids(r.bases)}
        for r in rows
    ]


def shown_ids(ids):
    return [id.hex() for id in ids]


BASES = {reader.b3(chunk): chunk for chunk in (maker.LINES, maker.noise()[0])}


def read_store_config(data, _):
    config = reader.read_store_config(data)
    return vars(config) | {"id": config.id.hex()}


def read_chunk(data, entry):
    return {"id": reader.b3(data.ljust(1 << entry["block_size_log2"], b"\0")).hex()}


def read_set(data, entry):
    numbers = reader.read_set(data, entry["block_count"])
    expected = [n for first, end, step in entry["fields"]["ranges"] for n in range(first, end, step)]
    assert numbers == expected and reader.is_in_its_form(data, numbers)
    return entry["fields"]


def read_record(data, entry):
    block_bytes = 1 << entry["block_size_log2"]
    row, frame = reader.read_record(data, 0, block_bytes)
    reader.unpack(row, frame, block_bytes, BASES.get)
    shown = {"codec": row.codec, "bases": shown_ids(row.bases), "stored_length": row.stored_length, "raw_length": block_bytes}
    return shown | {"id": row.id.hex(), "payload_offset": row.end() - row.stored_length}


def read_segment(data, _):
    header, shown = segment_fields(data)
    rows = reader.read_table(data, 1 << header.block_size_log2)
    for row in rows:
        found, payload = reader.read_record(data, row.offset, 1 << header.block_size_log2)
        assert found == row
        reader.unpack(row, payload, 1 << header.block_size_log2, BASES.get)
    return shown | {"rows": shown_rows(rows)}


def read_unsealed(data, _):
    header, shown = segment_fields(data)
    rows, end = reader.valid_prefix(data, 1 << header.block_size_log2)
    return shown | {"rows": shown_rows(rows), "valid_bytes": end}


def read_run(data, entry):
    segments, rows = reader.read_run(data)
    shown = {"segments": sorted(segments), "rows": [vars(row) | {"id": row.id.hex()} for row in rows]}
    if "absent" in entry.get("fields", {}):
        assert entry["fields"]["absent"] not in [row["id"] for row in shown["rows"]]
        shown["absent"] = entry["fields"]["absent"]
    return shown


def read_layer(data, entry):
    layer = reader.read_layer(data)
    assert not layer.stray_forms
    ids = list(layer.data.values())
    shown = {
        "id": layer.id.hex(), "ingest": layer.ingest.hex(), "block_size_log2": layer.block_size_log2, "virtual_size": layer.virtual_size,
        "parent": layer.parent and layer.parent.hex(), "depth": layer.depth, "differs": layer.differs, "data": maker.runs_of(layer.data),
        "zero": maker.runs_of(sorted(layer.zero)), "ids_hash": reader.b3(b"".join(ids)).hex(),
    }
    return shown | ({"ids": [id.hex() for id in ids]} if "ids" in entry.get("fields", {}) else {})


def read_image_record(data, _):
    record = reader.read_image_record(data)
    parent = record.parent and {"name": record.parent[0], "digest": record.parent[1].hex()}
    hexed = {name: getattr(record, name).hex() for name in ("id", "digest", "layer")}
    return vars(record) | hexed | {"parent": parent, "supersedes": record.supersedes and record.supersedes.hex()}


def read_gc_state(data, _):
    state = reader.read_collection_state(data)
    return vars(state) | {"condemned_layers": [layer.hex() for layer in state.condemned_layers]}


def read_quarantine(data, _):
    places = reader.read_quarantine(data)
    return {"places": [{"segment": s, "slot": t, "ordinal": s * 65536 + t} for s, t in places]}


def read_delta(data, entry):
    delta = delta_reader.read_delta(data)
    base = delta.base and {"virtual_size": delta.base[0], "digest": delta.base[1].hex()}
    made = delta_reader.apply(delta, (VECTORS / "delta-base.raw").read_bytes() if base else b"")
    return {
        "block_size_log2": delta.block_size_log2, "base": base, "virtual_size": delta.virtual_size, "digest": delta.digest.hex(),
        "data": maker.runs_of(delta.data), "zero": maker.runs_of(sorted(delta.zero)), "ids": [id.hex() for id in delta.data.values()],
        "records": [row.id.hex() for row, _ in delta.records], "record_bytes": delta.record_bytes,
        "sha256": hashlib.sha256(made).hexdigest(),
    }


def read_sketch_run(data, _):
    rows = reader.read_sketch_run(data)
    return {"rows": [{"feature": feature, "chunk": chunk.hex()} for feature, chunk in rows]}


READERS = {
    "store_config": read_store_config, "chunk": read_chunk, "block_set": read_set,
    "segment_header": lambda data, _: segment_fields(data)[1], "record": read_record, "segment": read_segment,
    "unsealed_segment": read_unsealed, "run": read_run, "layer": read_layer, "image_record": read_image_record,
    "gc_state": read_gc_state, "quarantine": read_quarantine, "delta": read_delta,
    "journal": lambda data, _: delta_reader.read_journal(data),
    "sketch": lambda data, _: {"features": reader.sketch(data)}, "sketch_run": read_sketch_run,
}


class GoldenFiles(unittest.TestCase):
    def test_the_files_and_the_examples_are_what_the_encoder_makes(self):
        self.assertEqual(maker.check(maker.everything()), 0)

    def test_whole_vectors_decode_to_their_fields(self):
        for entry in INDEX["vectors"]:
            if "fields" in entry:
                with self.subTest(entry["file"]):
                    data = (VECTORS / entry["file"]).read_bytes()
                    self.assertEqual(READERS[entry["structure"]](data, entry), entry["fields"])

    def test_broken_vectors_give_the_error_they_name(self):
        for entry in INDEX["vectors"]:
            if "error" in entry:
                with self.subTest(entry["file"]):
                    data = (VECTORS / entry["file"]).read_bytes()
                    with self.assertRaises(reader.Damage) as caught:
                        READERS[entry["structure"]](data, entry | {"fields": {"ranges": []}})
                    self.assertEqual(caught.exception.error, entry["error"]["name"])
                    if "field" in entry["error"]:
                        self.assertEqual(caught.exception.field, entry["error"]["field"])

    def test_names(self):
        for case in INDEX["names"]:
            self.assertEqual(reader.broken_name_rule(case["name"]), case["error"], repr(case["name"]))

    def test_digests(self):
        for case in INDEX["digests"]:
            ids = []
            for block in case["blocks"]:
                ids += [None] * block["zeros"] if "zeros" in block else [bytes.fromhex(block["data"])]
            digest = reader.image_digest(case["virtual_size"], case["block_size_log2"], ids)
            self.assertEqual(digest.hex(), case["digest"], case["what"])

    def test_stacks(self):
        for case in INDEX["stacks"]:
            log2 = case["block_size_log2"]
            stack = [
                reader.Layer(b"", b"", log2, layer["virtual_size"], None, 1, dict(map(tuple, layer["data"])), set(layer["zero"]), False)
                for layer in case["layers"]
            ]
            found = [reader.resolve(stack, block) or "zero" for block in range(stack[0].blocks())]
            self.assertEqual(found, case["reads"], case["what"])


class ACopyOfTheStore(unittest.TestCase):
    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.work = Path(held.name)
        self.path = self.work / "store"
        shutil.copytree(VECTORS / "store", self.path)

    def file(self, name):
        return self.path / name

    def verify(self):
        """The findings of damage, or the damage that keeps the store from being opened."""
        try:
            report = reader.Verifier(reader.Store(self.path)).run().report()
        except reader.Damage as damage:
            return [str(damage)]
        return [finding for finding in report["findings"] if finding["level"] == "damage"]

    def program(self, *arguments):
        out, errors = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "argv", ["tegula_reader.py", *map(str, arguments)]):
            with redirect_stdout(out), redirect_stderr(errors):
                status = reader.main()
        return status, out.getvalue(), errors.getvalue()

    def test_list_shows_the_images_and_not_the_superseded_one(self):
        status, out, _ = self.program("list", self.path, "--json")
        shown = json.loads(out)
        self.assertEqual((status, shown["store"]), (0, INDEX["store"]["id"]))
        for image, expected in zip(shown["images"], INDEX["store"]["images"], strict=True):
            for key in ("name", "virtual_size", "digest", "data_blocks"):
                self.assertEqual(image[key], expected[key])
            self.assertEqual(image["parent"] and image["parent"]["name"], expected["parent"])
            self.assertEqual(image["layer"], expected["layers"][0])

    def test_extract_gives_every_byte(self):
        for image in INDEX["store"]["images"]:
            out = self.work / "out"
            status, _, errors = self.program("extract", self.path, image["name"], out)
            self.assertEqual((status, errors), (0, ""))
            self.assertEqual(hashlib.sha256(out.read_bytes()).hexdigest(), image["sha256"])

    def test_verify_finds_the_store_sound_and_notes_what_was_left_over(self):
        status, out, _ = self.program("verify", self.path, "--json")
        report = json.loads(out)
        self.assertEqual((status, report["sound"]), (0, True))
        self.assertTrue(all(image["whole"] for image in report["images"]))
        noted = {finding["file"] for finding in report["findings"]}
        left = {"images/draft.image", "segments/00000004.open", "segments/00000003.seg", "tmp/" + "0f" * 16}
        self.assertEqual(noted, left)

    def test_a_flipped_bit_is_found_in_every_file(self):
        """In every byte of the first 600 of a file and of the last 64, and in each seventh between."""
        for name in INDEX["store"]["files"]:
            if name.startswith(("tmp/", "locks/")) or name.endswith(".open"):
                continue
            good = self.file(name).read_bytes()
            for at in range(len(good)):
                if 600 < at < len(good) - 64 and at % 7:
                    continue
                bad = bytearray(good)
                bad[at] ^= 1 << at % 8
                self.file(name).write_bytes(bad)
                self.assertTrue(self.verify(), f"{name}: a flipped bit in byte {at}")
            self.file(name).write_bytes(good)
        self.assertEqual(self.verify(), [])

    def test_a_file_that_is_cut_extended_or_gone_is_found_unless_it_is_derived(self):
        for name in INDEX["store"]["files"]:
            derived = name.startswith(("tmp/", "locks/", "index/", "images/")) or name.endswith(".open")
            if name.startswith(("tmp/", "locks/")) or name.endswith(".open"):
                continue
            good = self.file(name).read_bytes()
            for bad in (good[:-1], good + b"\0", b""):
                self.file(name).write_bytes(bad)
                self.assertTrue(self.verify(), name)
            self.file(name).unlink()
            self.assertEqual(bool(self.verify()), not derived, f"{name} is gone")
            self.file(name).write_bytes(good)

    def test_a_layer_that_says_wrongly_that_it_differs_is_found(self):
        below = reader.read_layer(self.file(f"layers/{INDEX['store']['images'][0]['layers'][0]}.layer").read_bytes())
        same, hole = next(iter(below.data.items())), next(n for n in range(below.blocks()) if n not in below.data)
        cases = [([same[0]], [], [same[1]]), ([], [hole], []), ([hole], [same[0]], [same[1]])]
        for (data, zero, ids), wrong in zip(cases, (True, True, False)):
            id, file = maker.layer(
                bytes(16), below.block_size_log2, below.virtual_size, data, zero, ids, below.id, below.depth, differs=True
            )
            self.file(f"layers/{id.hex()}.layer").write_bytes(file)
            found = self.verify()
            self.assertEqual(bool(found), wrong)
            self.assertTrue(all("differs" in json.dumps(finding) for finding in found), found)
            self.file(f"layers/{id.hex()}.layer").unlink()

    def test_exchanged_files_are_found(self):
        pairs = [
            ("segments/00000002.seg", "segments/00000003.seg"),
            ("images/roof.image", "images/roof repaired.image"),
            tuple(f"layers/{id}.layer" for id in INDEX["store"]["images"][1]["layers"]),
        ]
        for one, other in pairs:
            for first, second in ((one, other), (other, one)):
                held = self.file(first).read_bytes(), self.file(second).read_bytes()
                self.file(first).write_bytes(held[1])
                self.file(second).write_bytes(held[0])
            self.assertEqual(self.verify(), [])
            first, second = self.file(one).read_bytes(), self.file(other).read_bytes()
            self.file(one).write_bytes(second)
            self.file(other).write_bytes(first)
            self.assertTrue(self.verify(), one)
            self.file(one).write_bytes(first)
            self.file(other).write_bytes(second)

    def test_extract_refuses_damage_and_leaves_no_file(self):
        segment = self.file("segments/00000002.seg")
        data = bytearray(segment.read_bytes())
        data[200] ^= 1
        segment.write_bytes(data)
        status, _, errors = self.program("extract", self.path, "roof", self.work / "out")
        self.assertEqual(status, 1)
        self.assertIn("Checksum", errors)
        self.assertEqual([entry.name for entry in self.work.iterdir()], ["store"])

    def spoil_and_store_again(self):
        """Damages the chunk in segment 2, slot 1, and brings it again in segment 5."""
        segment = self.file("segments/00000002.seg")
        data = bytearray(segment.read_bytes())
        data[200] ^= 1
        segment.write_bytes(data)
        again = maker.segment(maker.STORE_ID, 5, maker.LOG2, bytes(16), [maker.noise()])
        self.file("segments/00000005.seg").write_bytes(again)

    def test_a_damaged_chunk_in_quarantine_that_was_stored_again_is_no_damage(self):
        self.spoil_and_store_again()
        self.assertEqual(len(self.verify()), 1)
        self.file("quarantine").mkdir()
        self.file("quarantine/places").write_bytes(maker.quarantine([maker.place(2, 1)]))
        self.assertEqual(self.verify(), [])
        self.file("segments/00000005.seg").unlink()
        self.assertEqual([finding["error"] for finding in self.verify()], ["Missing"])

    def test_extract_takes_the_whole_copy_of_two(self):
        self.spoil_and_store_again()
        status, _, _ = self.program("extract", self.path, "roof", self.work / "out")
        self.assertEqual(status, 0)
        found = hashlib.sha256((self.work / "out").read_bytes()).hexdigest()
        self.assertEqual(found, INDEX["store"]["images"][0]["sha256"])

    def test_a_lost_collection_state_is_damage_but_loses_no_image(self):
        self.file("gc.state").unlink()
        self.assertEqual([finding["error"] for finding in self.verify()], ["Missing"])
        status, _, errors = self.program("extract", self.path, "roof", self.work / "out")
        self.assertEqual(status, 0)
        self.assertIn("without a session", errors)

    def test_condemned_segments_are_tried_last(self):
        chunk = maker.fives()
        again = maker.segment(maker.STORE_ID, 5, maker.LOG2, bytes(16), [chunk])
        self.file("segments/00000005.seg").write_bytes(again)

        def segments_of_the_chunk():
            return [number for number, _ in reader.Store(self.path).places()[maker.b3(chunk[0])]]

        self.assertEqual(segments_of_the_chunk(), [2, 5])
        self.file("gc.state").write_bytes(maker.gc_state(4, 3, [2], []))
        self.assertEqual(segments_of_the_chunk(), [5, 2])

    def test_an_image_that_stands_on_condemned_ground_is_found(self):
        self.file("gc.state").write_bytes(maker.gc_state(4, 3, [2], []))
        self.assertEqual(len(self.verify()), 2, "both images need segment 2")
        full = bytes.fromhex(INDEX["store"]["images"][0]["layers"][0])
        self.file("gc.state").write_bytes(maker.gc_state(4, 3, [], [full]))
        self.assertEqual(len(self.verify()), 2, "both images need the full layer")

    def test_a_run_may_name_segments_that_are_gone_and_must_list_all_of_those_that_are_not(self):
        ids = [bytes.fromhex(row["id"]) for row in INDEX["store"]["segments"]["3"]]
        rows = [
            (id, 3, slot, row["offset"], row["stored_length"], len(row["bases"]))
            for slot, (id, row) in enumerate(zip(ids, INDEX["store"]["segments"]["3"]))
        ]
        run = self.file("index/" + "11" * 16 + ".run")
        run.write_bytes(maker.run([1, 3], [*rows, (bytes(32), 1, 0, 73, 1, 0)]))
        self.assertEqual(self.verify(), [])
        run.write_bytes(maker.run([3], rows[:1]))
        self.assertEqual(len(self.verify()), 1)
        run.write_bytes(maker.run([3], rows, filter_bytes=bytes(32)))
        self.assertEqual([finding["error"] for finding in self.verify()], ["Field"])

    def test_a_set_that_is_not_in_its_one_form_is_found(self):
        loose = maker.u16(12347) + maker.u16(0) + maker.u8(1) + maker.u16(0) + maker.u16(2) + maker.u16(1)
        loose += maker.u16(0) + maker.u16(2)
        ids = [maker.b3(maker.fives()[0])] * 3
        strict_id, strict = maker.layer(maker.INGEST_1, maker.LOG2, 3 << maker.LOG2, [0, 1, 2], [], ids)
        loose_id, other = maker.layer(maker.INGEST_1, maker.LOG2, 3 << maker.LOG2, [0, 1, 2], [], ids, parts={"data": loose})
        self.assertNotEqual(strict_id, loose_id)
        self.file(f"layers/{strict_id.hex()}.layer").write_bytes(strict)
        self.assertEqual(self.verify(), [])
        self.file(f"layers/{loose_id.hex()}.layer").write_bytes(other)
        self.assertEqual(len(self.verify()), 1)

    def test_what_stands_on_a_chunk_that_is_gone_is_lost_with_it_and_only_that(self):
        segment = self.file("segments/00000002.seg")
        offset = INDEX["store"]["segments"]["2"][3]["offset"]
        data = bytearray(segment.read_bytes())
        data[offset + 60] ^= 1
        segment.write_bytes(data)
        report = reader.Verifier(reader.Store(self.path)).run().report()
        self.assertEqual([image["whole"] for image in report["images"]], [False, False], "both stand on slot 3")
        again = maker.segment(maker.STORE_ID, 5, maker.LOG2, bytes(16), [maker.lines()])
        self.file("segments/00000005.seg").write_bytes(again)
        report = reader.Verifier(reader.Store(self.path)).run().report()
        self.assertEqual([image["whole"] for image in report["images"]], [True, True])
        status, _, _ = self.program("extract", self.path, "roof repaired", self.work / "out")
        self.assertEqual(status, 0)

    def test_a_base_that_is_about_to_go_is_found(self):
        # All but block 7's base of the repaired roof is stored again.
        chunks = [maker.fives(), maker.noise(), maker.greeting(b"Tegula: a roof tile.\n")]
        chunks += [maker.greeting(b"Imbrex: the tile over the gap between two.\n")]
        self.file("segments/00000005.seg").write_bytes(maker.segment(maker.STORE_ID, 5, maker.LOG2, bytes(16), chunks))
        self.file("gc.state").write_bytes(maker.gc_state(4, 3, [2], []))
        found = {finding["file"]: finding["message"] for finding in self.verify()}
        self.assertIn("1 blocks stand only in condemned segments", found["images/roof repaired.image"])

    def test_a_copy_of_the_configuration_is_to_be_there_and_to_say_the_same(self):
        copy = self.file("tegula.store.copy")
        self.assertEqual(self.verify(), [])
        other = maker.store_config(bytes(16), maker.LOG2, 3, maker.CREATED, prefix_frames=True, has_copy=True)
        for damaged in [other, copy.read_bytes()[:-1], None]:
            copy.unlink() if damaged is None else copy.write_bytes(damaged)
            self.assertEqual([finding["file"] for finding in self.verify()], ["tegula.store.copy"])
        old = maker.store_config(maker.STORE_ID, maker.LOG2, 3, maker.CREATED, prefix_frames=True)
        self.file("tegula.store").write_bytes(old)
        self.assertEqual(self.verify(), [])

    def test_a_store_without_prefix_frames_has_none(self):
        self.file("tegula.store").write_bytes(maker.store_config(maker.STORE_ID, maker.LOG2, 3, maker.CREATED))
        self.assertIn("bases", " ".join(finding["message"] for finding in self.verify()))

    def test_bases_are_not_followed_round_in_circles(self):
        store, row = reader.Store(self.path), reader.Row(bytes(32), 73, 1, 1, (b"\1" * 32,))
        places = {bytes(32): [(2, row)], b"\1" * 32: [(2, reader.Row(b"\1" * 32, 73, 1, 1, (bytes(32),)))]}
        depths = []

        def follow(number, row, fetch):
            depths.append(number)
            return fetch(row.bases[0])

        with mock.patch.object(store, "chunk_at", follow), self.assertRaises(reader.Damage):
            reader.find_chunk(store, places, bytes(32))
        self.assertEqual(len(depths), 5, "the chunk and four levels of bases")

    def test_a_session_holds_the_lock_of_its_epoch(self):
        lock = self.file("locks/epoch-3")

        def can_be_had():
            with open(lock) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

        with reader.Store(self.path).session():
            self.assertFalse(can_be_had())
        self.assertTrue(can_be_had())

    def test_a_session_begins_again_when_the_epoch_changes_under_it(self):
        taken, take = [], reader.take_shared

        def collect_meanwhile(path):
            handle = take(path)
            if not taken:
                self.file("gc.state").write_bytes(maker.gc_state(4, 3, [], []))
            taken.append(path.name)
            return handle

        with mock.patch.object(reader, "take_shared", collect_meanwhile):
            with reader.Store(self.path).session():
                self.assertEqual(taken, ["epoch-3", "epoch-4"])

    def test_a_lock_file_that_was_removed_while_it_was_being_locked_is_not_believed(self):
        lock, flock, calls = self.file("locks/epoch-3"), fcntl.flock, []

        def remove_meanwhile(handle, how):
            flock(handle, how)
            if not calls:
                os.unlink(lock)
            calls.append(how)

        with mock.patch.object(fcntl, "flock", remove_meanwhile):
            handle = reader.take_shared(lock)
        self.assertEqual(os.fstat(handle).st_ino, os.stat(lock).st_ino)
        os.close(handle)
        self.assertEqual(len(calls), 2)


class Deltas(unittest.TestCase):
    base = VECTORS / "delta-base.raw"

    def program(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with mock.patch("sys.argv", ["delta_reader.py", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
            status = delta_reader.main()
        return status, out.getvalue(), err.getvalue()

    def test_apply_makes_the_target_of_the_base(self):
        with tempfile.TemporaryDirectory() as place:
            for entry in INDEX["vectors"]:
                if entry["structure"] == "delta" and "fields" in entry:
                    out = Path(place) / entry["file"]
                    base = self.base if entry["fields"]["base"] else "-"
                    self.assertEqual(self.program("apply", VECTORS / entry["file"], base, out), (0, "", ""))
                    self.assertEqual(hashlib.sha256(out.read_bytes()).hexdigest(), entry["fields"]["sha256"])

    def test_apply_refuses_another_disk_and_leaves_no_file(self):
        with tempfile.TemporaryDirectory() as place:
            other, out = Path(place) / "other", Path(place) / "out"
            data = self.base.read_bytes()
            for wrong in (data[:-1], data + b"\0", data[:-1] + b"x"):
                other.write_bytes(wrong)
                status, _, err = self.program("apply", VECTORS / "delta.bin", other, out)
                self.assertEqual((status, "not the base" in err), (1, True))
            self.assertEqual(os.listdir(place), ["other"])

    def test_show_tells_what_a_delta_is(self):
        status, shown, _ = self.program("show", VECTORS / "delta.bin", "--json")
        self.assertEqual(status, 0)
        self.assertEqual((json.loads(shown)["data_blocks"], json.loads(shown)["zero_blocks"]), (2, 1))
        status, _, err = self.program("show", VECTORS / "broken" / "delta-hash.bin")
        self.assertEqual((status, "Hash" in err), (1, True))

    def test_every_flipped_bit_is_found(self):
        good = (VECTORS / "delta.bin").read_bytes()
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(reader.Damage, msg=f"bit {bit}"):
                delta_reader.read_delta(bytes(bad))


class Payloads(unittest.TestCase):
    """Frames that a hostile writer could make."""

    def refused(self, payload, error="Body"):
        with self.assertRaises(reader.Damage) as caught:
            reader.decompress(payload, maker.BLOCK)
        self.assertEqual(caught.exception.error, error)

    def test_a_first_base_that_begins_as_a_dictionary_is_refused(self):
        base, (_, _, frame, _) = maker.like_a_dictionary()
        with self.assertRaises(reader.Damage) as caught:
            reader.decompress(frame, maker.BLOCK, [base])
        self.assertEqual((caught.exception.error, caught.exception.field), ("Field", "base"))

    def test_frames_that_are_no_chunk(self):
        chunk, _, good = maker.fives()
        self.assertEqual(reader.decompress(good, maker.BLOCK), chunk)
        self.refused(good + b"\0")
        self.refused(good + good)
        self.refused(good[:-1])
        self.refused(b"\x50\x2a\x4d\x18\0\0\0\0" + good)
        short = b"\x05" * (maker.BLOCK - 1)
        self.refused(maker.zstd_by_hand(short, (5, maker.BLOCK - 1)))
        no_size = bytes.fromhex("28b52ffd00 58")  # a window of 2 MiB, the size of the content not stated
        block = (1 | 1 << 1 | maker.BLOCK << 3).to_bytes(3, "little") + b"\x05"
        self.assertEqual(reader.decompress(no_size + block, maker.BLOCK), chunk)
        bomb = (1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\x05"
        self.refused(no_size + bomb * 1000 + block)


if __name__ == "__main__":
    unittest.main()
