#!/usr/bin/env python3
"""Makes the golden files in ../vectors, written from SPEC.md alone.

Usage:
    make_vectors.py            write every file of ../vectors anew
    make_vectors.py --check    compare ../vectors and the examples of ../SPEC.md with what would be written

This is the slow encoder: it holds whole files in memory, states every byte where the specification states it, and
shares no code with the programs it checks. It is not a store: it takes no locks and syncs nothing.

Everything here is a constant or follows from one, so the files are the same on every machine. Compressed payloads are
put together by hand from the simplest kinds of zstd block, so that no version of zstd can change them; the one frame
that a compressor made stands here as bytes.
"""

import argparse
import hashlib
import json
import re
import sys
import zlib
from pathlib import Path

from blake3 import blake3

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
SPEC = HERE.parent / "SPEC.md"


# Section 1.3: the types of fields


def u8(value):
    return value.to_bytes(1, "little")


def u16(value):
    return value.to_bytes(2, "little")


def u32(value):
    return value.to_bytes(4, "little")


def u64(value):
    return value.to_bytes(8, "little")


def i32(value):
    return value.to_bytes(4, "little", signed=True)


def i64(value):
    return value.to_bytes(8, "little", signed=True)


def option(value):
    """`value` is the encoded item, or None."""
    return u8(0) if value is None else u8(1) + value


def text(value):
    encoded = value.encode("utf-8")
    return u64(len(encoded)) + encoded


def items(values):
    return u64(len(values)) + b"".join(values)


# Section 1.5: checksums and hashes


def crc(data):
    return zlib.crc32(data)


def b3(data):
    return blake3(data).digest()


def b3_derived(context, data):
    return blake3(data, derive_key_context=context).digest()


# Section 2.2


def block_count(virtual_size, block_size_log2):
    return -(-virtual_size >> block_size_log2)


def chunk_of(data, block_size_log2):
    """Pads the bytes of a short block to a chunk."""
    return data.ljust(1 << block_size_log2, b"\0")


# Section 2.3: the envelope


def envelope(magic, body, version=1, reserved=0, refuse=0, ignore=0, clear=0, body_length=None, checksum=None):
    assert len(magic) == 8
    head = magic + u16(version) + u16(reserved) + u32(refuse) + u32(ignore) + u32(clear)
    head += u32(len(body) if body_length is None else body_length)
    head += u32(crc(head + body) if checksum is None else checksum)
    return head + body


# Section 2.4: sets of numbers


def number_set(numbers):
    """Encodes a set of 32-bit numbers in the one form the specification allows."""
    containers = {}
    for number in sorted(set(numbers)):
        containers.setdefault(number >> 16, []).append(number & 0xFFFF)
    kinds, stored = [], []
    for lows in containers.values():
        runs = runs_of(lows)
        plain = 2 * len(lows) if len(lows) <= 4096 else 8192
        if 2 + 4 * len(runs) < plain:
            kinds.append("run")
            stored.append(u16(len(runs)) + b"".join(u16(first) + u16(end - 1 - first) for first, end in runs))
        elif len(lows) <= 4096:
            kinds.append("array")
            stored.append(b"".join(map(u16, lows)))
        else:
            kinds.append("bitmap")
            bits = bytearray(8192)
            for low in lows:
                bits[low // 8] |= 1 << low % 8
            stored.append(bytes(bits))
    if "run" in kinds:
        head = u16(12347) + u16(len(kinds) - 1)
        flags = bytearray((len(kinds) + 7) // 8)
        for position, kind in enumerate(kinds):
            if kind == "run":
                flags[position // 8] |= 1 << position % 8
        head += flags
        has_offsets = len(kinds) >= 4
    else:
        head = u32(12346) + u32(len(kinds))
        has_offsets = True
    head += b"".join(u16(key) + u16(len(lows) - 1) for key, lows in containers.items())
    if has_offsets:
        offset = len(head) + 4 * len(kinds)
        for container in stored:
            head += u32(offset)
            offset += len(container)
    return head + b"".join(stored)


def runs_of(numbers):
    """[1, 2, 3, 9] -> [[1, 4], [9, 10]]"""
    runs = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1][1] = number + 1
        else:
            runs.append([number, number + 1])
    return runs


# Section 3: the store configuration


def store_config(id, block_size_log2, zstd_level, created_at_us, prefix_frames=False, has_copy=False, **overrides):
    body = id + u8(block_size_log2) + i32(zstd_level) + i64(created_at_us)
    return envelope(b"TGSTORE\n", body, **{"refuse": int(prefix_frames), "ignore": int(has_copy)} | overrides)


# Section 4: segments


def segment_header(store, number, block_size_log2, ingest, reserved=0):
    return envelope(b"TGSEGMT\n", store + u32(number) + u8(block_size_log2) + ingest + u32(reserved))


RAW, ZSTD = 0, 1


def record(chunk_id, codec, frame, raw_length, base_ids=(), bases=None, reserved=0, stored_length=None, magic=b"TGRC"):
    payload = b"".join(base_ids) + frame
    bases = len(base_ids) if bases is None else bases
    head = magic + u8(codec) + u8(bases) + u16(reserved)
    head += u32(len(payload) if stored_length is None else stored_length) + u32(raw_length) + chunk_id
    return head + u32(crc(head + payload)) + payload


def toc_row(chunk_id, offset, stored_length, raw_length, codec, bases=0, reserved=0):
    return chunk_id + u32(offset) + u32(stored_length) + u32(raw_length) + u8(codec) + u8(bases) + u16(reserved)


def trailer(toc, toc_offset, rows, base_ids=0, toc_hash=None, reserved=bytes(8), magic=b"TGSEALED"):
    """`toc` are the rows and, behind them, the ids of the bases."""
    guarded = magic + u32(toc_offset) + u32(rows) + (toc_hash or b3(toc)) + u32(base_ids) + reserved
    return guarded + u32(crc(guarded))


def segment(store, number, block_size_log2, ingest, chunks):
    """Encodes a sealed segment; `chunks` are (bytes of the chunk, codec, frame, ids of its bases or nothing)."""
    data = segment_header(store, number, block_size_log2, ingest)
    toc, table = b"", []
    for chunk, codec, frame, *bases in chunks:
        bases = bases[0] if bases else []
        toc += toc_row(b3(chunk), len(data), len(frame) + 32 * len(bases), len(chunk), codec, len(bases))
        data += record(b3(chunk), codec, frame, len(chunk), bases)
        table += bases
    toc += b"".join(table)
    return data + toc + trailer(toc, len(data), len(chunks), len(table))


def rows_of(chunks):
    """The fields of a table of contents, as index.json states them."""
    offset, rows = 73, []
    for chunk, codec, frame, *bases in chunks:
        bases = bases[0] if bases else []
        length = len(frame) + 32 * len(bases)
        shown = {"id": b3(chunk).hex(), "offset": offset, "stored_length": length, "codec": codec}
        rows.append(shown | {"bases": [base.hex() for base in bases]})
        offset += 52 + length
    return rows


# Section 5: index runs


def run_filter(ids, rows_max=None):
    """A writer that does not know how many rows will come makes room for `rows_max`."""
    blocks = max(1, -(-(rows_max or len(ids)) * 12 // 256))
    words = [0] * (8 * blocks)
    for chunk_id in ids:
        block = int.from_bytes(chunk_id[8:16], "little") * blocks >> 64
        for word in range(8):
            words[8 * block + word] |= 1 << (chunk_id[16 + word] & 31)
    return b"".join(map(u32, words))


def run(segments, rows, filter_bytes=None, sort=True, segment_bytes=None, reserved=0, **body_overrides):
    """`rows` are (chunk id, segment, slot, offset, stored length, number of bases)."""
    ordered = sorted(rows) if sort else rows
    row_bytes = b"".join(
        chunk_id + u32(number) + u32(offset) + u32(stored) + u16(slot) + u8(bases) + u8(reserved)
        for chunk_id, number, slot, offset, stored, bases in ordered
    )
    set_bytes = number_set(segments) if segment_bytes is None else segment_bytes
    if filter_bytes is None:
        filter_bytes = run_filter([row[0] for row in rows])
    body = {
        "rows": len(rows),
        "segments_length": len(set_bytes),
        "segments_crc": crc(set_bytes),
        "filter_blocks": len(filter_bytes) // 32,
        "filter_crc": crc(filter_bytes),
        "rows_crc": crc(row_bytes),
    } | body_overrides
    widths = [u64, u32, u32, u32, u32, u32]
    head = envelope(b"TGINDEX\n", b"".join(width(value) for width, value in zip(widths, body.values())))
    return head + set_bytes + filter_bytes + row_bytes


# Section 6: layers


def layer_body(fields):
    return (
        fields["ingest"]
        + u8(fields["block_size_log2"])
        + u64(fields["virtual_size"])
        + option(fields["parent"])
        + u32(fields["depth"])
        + u64(fields["data_blocks"])
        + u64(fields["zero_blocks"])
        + u64(fields["data_length"])
        + fields["data_hash"]
        + u64(fields["zero_length"])
        + fields["zero_hash"]
        + fields["pages_hash"]
        + fields["ids_hash"]
    )


def layer(ingest, block_size_log2, virtual_size, data, zero, ids, parent=None, parent_depth=0, parts=None, differs=False, **body_overrides):
    """Returns the layer's id and the bytes of its file. `data` and `zero` are block numbers, `ids` in block order."""
    ids = b"".join(ids)
    pages = b"".join(u32(crc(ids[at : at + 65536])) for at in range(0, len(ids), 65536))
    parts = {"data": number_set(data), "zero": number_set(zero), "pages": pages, "ids": ids} | (parts or {})
    fields = {
        "ingest": ingest,
        "block_size_log2": block_size_log2,
        "virtual_size": virtual_size,
        "parent": parent,
        "depth": parent_depth + 1,
        "data_blocks": len(data),
        "zero_blocks": len(zero),
        "data_length": len(parts["data"]),
        "data_hash": b3(parts["data"]),
        "zero_length": len(parts["zero"]),
        "zero_hash": b3(parts["zero"]),
        "pages_hash": b3(parts["pages"]),
        "ids_hash": b3(parts["ids"]),
    } | body_overrides
    head = envelope(b"TGLAYER\n", layer_body(fields), ignore=1 if differs else 0)
    layer_id = b3_derived("tegula 2026-11-22 layer id v1", head)
    return layer_id, head + b"".join(parts.values())


# Section 7: image records


def image_record(
    id, name, virtual_size, block_size_log2, digest, layer, data_blocks, created_at_us, parent=None, supersedes=None
):
    """`name` may be bytes, to write names that are none; `parent` is (name, digest)."""
    body = id + (text(name) if isinstance(name, str) else u64(len(name)) + name)
    body += u64(virtual_size) + u8(block_size_log2) + digest + layer
    body += option(None if parent is None else text(parent[0]) + parent[1])
    body += option(supersedes) + u64(data_blocks) + i64(created_at_us)
    return envelope(b"TGIMAGE\n", body)


# Section 8: the image digest


def image_digest(virtual_size, block_size_log2, ids):
    """`ids` has one entry a block: 32 bytes, or None for a block that reads as zeros."""
    assert len(ids) == block_count(virtual_size, block_size_log2)
    root = u64(virtual_size) + u32(1 << block_size_log2)
    for first in range(0, len(ids), 1024):
        group = b"".join(id or bytes(32) for id in ids[first : first + 1024])
        root += b3_derived("tegula 2026-11-22 image digest group v1", group)
    return b3_derived("tegula 2026-11-22 image digest root v1", root)


# Sections 9 and 10


def gc_state(epoch, segment_floor, condemned_segments, condemned_layers):
    body = u64(epoch) + u32(segment_floor) + items([u32(n) for n in condemned_segments]) + items(condemned_layers)
    return envelope(b"TGCOLLE\n", body)


def quarantine(ordinals):
    return envelope(b"TGQUARA\n", items([u64(ordinal) for ordinal in ordinals]))


def place(segment_number, slot):
    return segment_number << 16 | slot


# Section 15: delta streams


def delta_body(fields):
    base = fields["base"]
    return (
        u8(fields["block_size_log2"])
        + option(None if base is None else u64(base[0]) + base[1])
        + u64(fields["virtual_size"])
        + fields["digest"]
        + u64(fields["data_blocks"])
        + u64(fields["zero_blocks"])
        + u64(fields["data_length"])
        + fields["data_hash"]
        + u64(fields["zero_length"])
        + fields["zero_hash"]
        + fields["ids_hash"]
    )


def delta_trailer(before, records, record_bytes, hash=None, magic=b"TGDELEND"):
    """`before` is what the hash covers before the trailer."""
    head = magic + u64(records) + u64(record_bytes)
    guarded = head + (hash or b3(before + head))
    return guarded + u32(crc(guarded))


def delta(
    block_size_log2, base, virtual_size, digest, data, zero, ids, records, parts=None, trailer=None, by_name=None, refuse=None,
    **body_overrides,
):
    """`base` is (virtual size, digest) or None; `data` and `zero` are block numbers, `ids` in block order; `by_name` are the
    ids of the records, if the trailer's hash is to cover their names alone."""
    parts = {"data": number_set(data), "zero": number_set(zero), "ids": b"".join(ids)} | (parts or {})
    fields = {
        "block_size_log2": block_size_log2,
        "base": base,
        "virtual_size": virtual_size,
        "digest": digest,
        "data_blocks": len(data),
        "zero_blocks": len(zero),
        "data_length": len(parts["data"]),
        "data_hash": b3(parts["data"]),
        "zero_length": len(parts["zero"]),
        "zero_hash": b3(parts["zero"]),
        "ids_hash": b3(parts["ids"]),
    } | body_overrides
    refuse = (by_name is not None) if refuse is None else refuse
    before = envelope(b"TGDELTA\n", delta_body(fields), refuse=int(refuse)) + b"".join(parts.values())
    names = records if by_name is None else [id + u32(len(made)) for id, made in zip(by_name, records)]
    stated = {"records": len(records), "record_bytes": sum(map(len, records))} | (trailer or {})
    return before + b"".join(records) + delta_trailer(before + b"".join(names), **stated)


# Section 15.7


def journal_head(delta, disk, block_size_log2, rows, saved):
    body = delta + u64(disk[0]) + u64(disk[1]) + u8(block_size_log2) + u64(rows) + u64(saved)
    return envelope(b"TGJOURN\n", body)


def with_crc(fields):
    return fields + u32(crc(fields))


def journal(delta, disk, block_size_log2, rows, saved, marks):
    """`rows` are (chunk id, kind, number); `saved` are chunks."""
    before = journal_head(delta, disk, block_size_log2, len(rows), len(saved))
    before += b"".join(chunk_id + u32(kind) + u32(number) for chunk_id, kind, number in rows) + b"".join(saved)
    return before + with_crc(b"TGJSEALD" + b3(before)) + b"".join(with_crc(b"TGJM" + u64(done)) for done in marks)


# Payloads


def zstd_by_hand(chunk, *blocks):
    """A zstd frame of raw blocks (bytes) and run-length blocks (byte, count): RFC 8878, sections 3.1.1.1 and 3.1.1.2."""
    frame = bytes.fromhex("28b52ffd") + u8(0x60) + u16(len(chunk) - 256)  # single segment, two bytes of content size
    said = b""
    for position, block in enumerate(blocks):
        last = position == len(blocks) - 1
        kind, size, payload = (0, len(block), block) if isinstance(block, bytes) else (1, block[1], u8(block[0]))
        frame += (last | kind << 1 | size << 3).to_bytes(3, "little") + payload
        said += block if kind == 0 else payload * size
    assert said == chunk, "the frame must hold the chunk"
    return frame


def zstd_copies(chunk, prefix, *copies):
    """A zstd frame of one compressed block: for each of `copies`, (literals, source, length), the literals, then that
    many bytes from `source` of the prefix on. The codes of all lengths and distances must be the same, so that each
    stands as itself: raw literals (RFC 8878, 3.1.1.3.1), tables of one code (3.1.1.3.2.1), and the bits that say which
    number of its code's range it is (3.1.1.3.2.2)."""
    said, codes, bits = b"", set(), [(1, 1)]  # the bitstream ends with a 1
    for literals, source, length in copies:
        distance = len(prefix) + len(said) + len(literals) - source
        said += literals + prefix[source : source + length]
        offset_code = (distance + 3).bit_length() - 1
        base, extra, length_code = next(
            (base, extra, code) for base, extra, code in [(1027, 10, 46), (2051, 11, 47)] if base <= length < base + (1 << extra)
        )
        codes.add((len(literals), offset_code, length_code))
        bits += [(distance + 3 - (1 << offset_code), offset_code), (length - base, extra)]
    assert said == chunk and len(codes) == 1 and all(len(c[0]) < 16 for c in copies), "the frame must hold the chunk"
    literals = b"".join(copy[0] for copy in copies)
    assert len(literals) < 32
    stream, width = 0, 0
    for value, count in bits:
        stream, width = stream << count | value, width + count
    block = u8(len(literals) << 3) + literals + u8(len(copies)) + u8(0x54) + bytes(codes.pop())
    block += stream.to_bytes(-(-width // 8), "little")
    header = bytes.fromhex("28b52ffd") + u8(0x60) + u16(len(chunk) - 256)
    return header + (1 | 2 << 1 | len(block) << 3).to_bytes(3, "little") + block


# `LINES` as zstd 1.5.7 compresses it at level 3: the one payload here with entropy-coded blocks.
LINES = b"".join(b"%04d the tile lies on the row below\n" % n for n in range(200))[:4096]
LINES_FRAME = bytes.fromhex(
    "28b52ffd60000f0d0500c2091915a0276d001a21f6c83942550bd9dddd3bf15ac3a918b66ddbb66d279e15cddd4c3c2b9abb98785634772ff1ac68ee5ae2"
    "59d1dcadc4b3a2b94b896745737712cf8ae6ee13cf8ae6ae13cf8ae66e0b380aa204c8511006052994812085180c52040669db72a811a0bb3f73e0a576"
    "03124810f8ff0481152cfe000090095741204e029c02e02b00bc02800740780d807740f01e04ef8150a323756a02ec2a"
)

LOG2 = 12
BLOCK = 1 << LOG2
STORE_ID = bytes(range(16))
INGEST_1 = bytes(range(0xA0, 0xB0))
INGEST_2 = bytes(range(0xB0, 0xC0))
CREATED = 1_795_305_600_000_000  # 2026-11-22 00:00:00 UTC


def fives():
    chunk = b"\x05" * BLOCK
    return chunk, ZSTD, zstd_by_hand(chunk, (5, BLOCK))


def sevens():
    chunk = b"\x07" * BLOCK
    return chunk, ZSTD, zstd_by_hand(chunk, (7, BLOCK))


def greeting(words):
    """Some text, then zeros: the shape of many a file's last block."""
    chunk = chunk_of(words, LOG2)
    return chunk, ZSTD, zstd_by_hand(chunk, words, (0, BLOCK - len(words)))


def noise():
    chunk = blake3(b"tegula: incompressible").digest(length=BLOCK)
    return chunk, RAW, chunk


def lines():
    return LINES, ZSTD, LINES_FRAME


def repaired():
    """The lines with other words at the beginning: all the rest is taken from the base."""
    words = b"0000 ridge\n"
    chunk = words + LINES[len(words) :]
    return chunk, ZSTD, zstd_copies(chunk, LINES, (words, len(words), BLOCK - len(words))), [b3(LINES)]


def patchwork():
    """Words, then the middle of the first base; words again, and the beginning of the second."""
    words, length = b"half a row:", BLOCK // 2 - 11
    bases = LINES, noise()[0]
    chunk = words + LINES[2048 : 2048 + length] + words + noise()[0][2059 : 2059 + length]
    copies = [(words, 2048, length), (words, BLOCK + 2059, length)]
    return chunk, ZSTD, zstd_copies(chunk, b"".join(bases), *copies), [b3(base) for base in bases]


def like_a_dictionary():
    """A chunk that zstd would take for a dictionary in its own format, and one that has it as its base."""
    base = bytes.fromhex("37a430ec") + LINES[4:]
    words = b"0000 ridge\n"
    chunk = words + base[len(words) :]
    return base, (chunk, ZSTD, zstd_copies(chunk, base, (words, len(words), BLOCK - len(words))), [b3(base)])


def numbered_ids(count):
    return [b3(u32(n)) for n in range(count)]


def patched(data, offset, new):
    return data[:offset] + new + data[offset + len(new) :]


def resealed(data):
    """Gives an envelope that was patched (body of all the rest) its right checksum again."""
    return patched(data, 28, u32(crc(data[:28] + data[32:])))


class Vectors:
    """The files to write, and what index.json says about them."""

    def __init__(self):
        self.files = {}
        self.entries = []

    def good(self, name, structure, section, what, data, fields, reencodes=True, **parameters):
        assert name not in self.files, name
        self.files[name] = data
        entry = {"file": name, "structure": structure, "section": section, "what": what}
        entry |= parameters | {"fields": fields}
        if not reencodes:
            entry["reencodes"] = False
        self.entries.append(entry)

    def bad(self, name, structure, section, what, data, error, field=None, **parameters):
        name = f"broken/{name}"
        assert name not in self.files, name
        self.files[name] = data
        expected = {"name": error} | ({"field": field} if field else {})
        entry = {"file": name, "structure": structure, "section": section, "what": what}
        self.entries.append(entry | parameters | {"error": expected})


def envelope_vectors(v):
    """The envelope is the same everywhere: its faults are shown on the store configuration."""
    plain = dict(id=STORE_ID, block_size_log2=16, zstd_level=3, created_at_us=CREATED)
    shown = {
        "id": STORE_ID.hex(), "block_size_log2": 16, "zstd_level": 3, "created_at_us": CREATED, "prefix_frames": False,
        "has_copy": False,
    }
    good = store_config(**plain)
    v.good("store-config.bin", "store_config", "3", "a store of 64 KiB blocks", good, shown)
    small = plain | {"block_size_log2": 12, "zstd_level": -7, "created_at_us": -1}
    v.good(
        "store-config-4k.bin", "store_config", "3", "the smallest blocks, the fastest level, a time before 1970",
        store_config(**small), shown | {"block_size_log2": 12, "zstd_level": -7, "created_at_us": -1},
    )
    large = plain | {"block_size_log2": 22, "zstd_level": 19}
    v.good(
        "store-config-4m.bin", "store_config", "3", "the largest blocks, the highest level",
        store_config(**large), shown | {"block_size_log2": 22, "zstd_level": 19},
    )
    v.good(
        "store-config-prefix.bin", "store_config", "3", "a store that may have prefix frames",
        store_config(**plain, prefix_frames=True), shown | {"prefix_frames": True},
    )
    v.good(
        "store-config-copy.bin", "store_config", "3", "a store that was made with a copy of its configuration",
        store_config(**plain, has_copy=True), shown | {"has_copy": True},
    )
    v.good(
        "store-config-ignore.bin", "store_config", "2.3", "unknown bits in the masks to ignore and to clear",
        store_config(**plain, ignore=1 << 31, clear=1), shown, reencodes=False,
    )

    def bad(name, what, data, error, field=None, section="2.3"):
        v.bad(f"store-config-{name}.bin", "store_config", section, what, data, error, field)

    bad("empty", "no byte at all", b"", "Truncated")
    bad("head-cut", "one byte of the head is missing", good[:31], "Truncated")
    bad("body-cut", "one byte of the body is missing", good[:-1], "Truncated")
    bad("extended", "a byte follows the structure", good + b"\0", "Body")
    bad("magic", "another structure's magic", patched(good, 0, b"TGIMAGE\n"), "BadMagic")
    bad("version-0", "version 0", store_config(**plain, version=0), "Field", "version")
    bad("version-2", "version 2", store_config(**plain, version=2), "UnsupportedVersion")
    bad(
        "version-2-checksum", "version 2 and a wrong checksum: the version is looked at first",
        store_config(**plain, version=2, checksum=0), "UnsupportedVersion",
    )
    bad(
        "version-damaged", "a bit of the version flipped: the checksum is that of version 1",
        patched(good, 9, u8(good[9] ^ 4)), "Checksum",
    )
    bad(
        "body-length", "a body of 16 MiB and one byte", store_config(**plain, body_length=(16 << 20) + 1),
        "Field", "body_length",
    )
    bad("checksum", "one bit of the body flipped", patched(good, 40, u8(good[40] ^ 1)), "Checksum")
    bad("reserved", "the reserved field is 1", store_config(**plain, reserved=1), "Field", "reserved")
    bad("refuse", "an unknown bit in the mask to refuse", store_config(**plain, refuse=4), "UnsupportedFeatures")
    bad(
        "refuse-more", "an unknown bit in the mask to refuse, beside the one that is known",
        store_config(**plain, refuse=3), "UnsupportedFeatures", section="3",
    )
    bad("body-short", "the body ends within its last field", resealed(patched(good[:-1], 24, u32(28))), "Body")
    bad("body-long", "a byte follows the last field", resealed(patched(good + b"\0", 24, u32(30))), "Body")
    bad("block-2k", "blocks of 2 KiB", store_config(**plain | {"block_size_log2": 11}), "Field", "block_size_log2", "3")
    bad("block-8m", "blocks of 8 MiB", store_config(**plain | {"block_size_log2": 23}), "Field", "block_size_log2", "3")
    bad("level-20", "zstd level 20", store_config(**plain | {"zstd_level": 20}), "Field", "zstd_level", "3")
    bad("level-8", "zstd level -8", store_config(**plain | {"zstd_level": -8}), "Field", "zstd_level", "3")


def chunk_vectors(v):
    words = b"Imbrex covers what tegula leaves open.\n"
    v.good(
        "chunk-short.bin", "chunk", "2.1", "a short last block: padded with zeros to 4 KiB before it is hashed",
        words, {"id": b3(chunk_of(words, LOG2)).hex()}, block_size_log2=LOG2,
    )
    v.good(
        "chunk-whole.bin", "chunk", "2.1", "a whole block of 4 KiB", LINES, {"id": b3(LINES).hex()}, block_size_log2=LOG2
    )


def set_vectors(v):
    def good(name, what, *ranges, limit=1 << 32):
        """A range is a first number, an end that is not in it, and a step."""
        numbers = [number for first, end, step in ranges for number in range(first, end, step)]
        fields = {"ranges": [list(one) for one in ranges]}
        v.good(f"set-{name}.bin", "block_set", "2.4", what, number_set(numbers), fields, block_count=limit)

    good("empty", "no number")
    good("array", "an array container", (1, 6, 2), limit=6)
    good("run", "a run container", (10, 20, 1), limit=20)
    good("tie", "as short as an array as as a run: an array", (0, 3, 1), limit=3)
    good("bitmap", "a bitmap container: 4,097 even numbers", (0, 8193, 2), limit=8193)
    good("array-full", "the largest array container: 4,096 even numbers", (0, 8191, 2), limit=8191)
    high = 5 << 16
    good(
        "mixed", "five containers of all kinds, with offsets as one is a run; the last number there can be",
        (7, 8, 1), (1 << 16, 2 << 16, 1), (3 << 16, (3 << 16) + 9000, 2), (high, high + 10, 9), ((1 << 32) - 1, 1 << 32, 1),
    )
    good("no-offsets", "three containers, one of them a run: no offsets", (7, 8, 1), (65536, 65546, 1), (2 << 16, (2 << 16) + 1, 1))

    def bad(name, what, data, error="Body", limit=1 << 32):
        v.bad(f"set-{name}.bin", "block_set", "2.4", what, data, error, block_count=limit)

    array, one_run = number_set([1, 3, 5]), number_set(range(10, 20))
    bad("cookie", "an unknown cookie", patched(array, 0, u32(12345)))
    bad("cut", "the last byte is missing", array[:-1])
    bad("extended", "a byte follows the set", array + b"\0")
    bad("count", "65,537 containers", patched(array, 4, u32(65537)))
    bad("past", "a block past the image", array, "Field", 5)
    two = number_set([1, 1 << 16])
    bad("keys", "two containers of one key", patched(two, 12, u16(0)))
    bad("array-order", "an array that does not ascend", patched(array, 18, u16(1)))
    bad("run-none", "a run container without runs", patched(one_run, 9, u16(0))[:11])
    touching = u16(12347) + u16(0) + u8(1) + u16(0) + u16(9) + u16(2) + u16(10) + u16(4) + u16(15) + u16(4)
    bad("run-touching", "two runs that touch", touching)
    bad("run-past", "a run past 65,535", patched(one_run, 11, u16(65530)))
    bad("bitmap-count", "a bitmap with a bit less than stated", patched(number_set(range(0, 8194, 2)), 16, u8(0x54)))


def segment_vectors(v):
    header = dict(store=STORE_ID, number=1, block_size_log2=LOG2, ingest=INGEST_1)
    shown = {"store": STORE_ID.hex(), "number": 1, "block_size_log2": LOG2, "ingest": INGEST_1.hex()}
    good = segment_header(**header)
    v.good("segment-header.bin", "segment_header", "4.1", "the head of segment 1", good, shown)
    v.bad(
        "segment-header-block.bin", "segment_header", "4.1", "blocks of 2 KiB",
        segment_header(**header | {"block_size_log2": 11}), "Field", "block_size_log2",
    )
    v.bad("segment-header-magic.bin", "segment_header", "4.1", "another magic", patched(good, 0, b"TGSEALED"), "BadMagic")

    v.bad(
        "segment-header-reserved.bin", "segment_header", "4.1", "the reserved field is 1",
        segment_header(**header, reserved=1), "Field", "reserved",
    )

    def good_record(name, what, chunk, codec, frame, bases=()):
        fields = {"codec": codec, "bases": [base.hex() for base in bases], "stored_length": len(frame) + 32 * len(bases)}
        fields |= {"raw_length": BLOCK, "id": b3(chunk).hex(), "payload_offset": 52}
        data = record(b3(chunk), codec, frame, BLOCK, bases)
        v.good(f"record-{name}.bin", "record", "4.2", what, data, fields, block_size_log2=LOG2)

    good_record("zstd", "4,096 bytes of 5 as a zstd frame of one run-length block", *fives())
    good_record("zstd-lines", "text, as a compressor packs it", *lines())
    good_record("raw", "a chunk that does not compress", *noise())
    good_record("base", "a frame that has another chunk as its prefix", *repaired())
    good_record("bases", "a frame that has two other chunks as its prefix", *patchwork())

    def bad_record(name, what, data, error, field=None):
        v.bad(f"record-{name}.bin", "record", "4.2", what, data, error, field, block_size_log2=LOG2)

    chunk, _, payload = fives()
    id = b3(chunk)
    whole = record(id, ZSTD, payload, BLOCK)
    bad_record("head-cut", "one byte of the header is missing", whole[:51], "Truncated")
    bad_record("payload-cut", "one byte of the payload is missing", whole[:-1], "Truncated")
    bad_record("magic", "no magic", record(id, ZSTD, payload, BLOCK, magic=b"TGRX"), "BadMagic")
    bad_record("codec", "codec 2", record(id, 2, payload, BLOCK), "Field", "codec")
    one, other = b3(LINES), b3(noise()[0])
    bad_record("bases", "three bases", record(id, ZSTD, payload, BLOCK, [one, other, bytes(32)]), "Field", "bases")
    bad_record("bases-raw", "a raw chunk with a base", record(id, RAW, chunk[32:], BLOCK, [one]), "Field", "bases")
    bad_record("base-own", "a chunk with itself as its second base", record(id, ZSTD, payload, BLOCK, [one, id]), "Field", "base")
    bad_record("base-twice", "the same base twice", record(id, ZSTD, payload, BLOCK, [one, one]), "Field", "base")
    bad_record("base-frame", "a base and no frame", record(id, ZSTD, b"", BLOCK, [one]), "Field", "stored_length")
    based = record(id, ZSTD, payload, BLOCK, [one])
    bad_record("base-checksum", "one bit of a base's id flipped", patched(based, 60, u8(based[60] ^ 1)), "Checksum")
    bad_record("reserved", "the reserved field is 1", record(id, ZSTD, payload, BLOCK, reserved=1), "Field", "reserved")
    bad_record("raw-length", "a chunk of 8 KiB", record(id, ZSTD, payload, 2 * BLOCK), "Field", "raw_length")
    bad_record("stored-none", "an empty payload", record(id, ZSTD, b"", BLOCK), "Field", "stored_length")
    bad_record(
        "stored-long", "a frame as long as the chunk", record(id, ZSTD, chunk, BLOCK), "Field", "stored_length"
    )
    bad_record("stored-raw", "a raw chunk of 4,095 bytes", record(id, RAW, chunk[:-1], BLOCK), "Field", "stored_length")
    bad_record("checksum", "one bit of the payload flipped", patched(whole, 62, u8(whole[62] ^ 1)), "Checksum")
    bad_record("checksum-id", "one bit of the id flipped", patched(whole, 16, u8(whole[16] ^ 1)), "Checksum")

    chunks = [fives(), noise(), greeting(b"Imbrex covers what tegula leaves open.\n")]
    fields = shown | {"rows": rows_of(chunks)}
    v.good("segment.bin", "segment", "4", "a sealed segment of three chunks", segment(**header, chunks=chunks), fields)
    v.good(
        "segment-empty.bin", "segment", "4", "a sealed segment of no chunk", segment(**header, chunks=[]), shown | {"rows": []}
    )

    framed = [lines(), repaired(), noise(), patchwork()]
    v.good(
        "segment-bases.bin", "segment", "4", "four chunks, two of which have others as their prefix",
        segment(**header, chunks=framed), shown | {"rows": rows_of(framed)},
    )

    small = [fives(), sevens()]
    data = good + b"".join(record(b3(chunk), codec, payload, BLOCK) for chunk, codec, payload in small)
    rows = [toc_row(bytes.fromhex(r["id"]), r["offset"], r["stored_length"], BLOCK, r["codec"]) for r in rows_of(small)]
    toc, toc_offset = b"".join(rows), len(data)

    def bad(name, section, what, toc, end, error, field=None, data=data):
        v.bad(f"segment-{name}.bin", "segment", section, what, data + toc + end, error, field)

    end = trailer(toc, toc_offset, 2)
    bad("trailer-cut", "4.4", "the last byte is missing", toc, end[:-1], "BadMagic")
    bad("trailer-magic", "4.4", "no magic", toc, trailer(toc, toc_offset, 2, magic=b"TGSEALEX"), "BadMagic")
    bad("trailer-checksum", "4.4", "one bit of the trailer flipped", toc, patched(end, 12, u8(3)), "Checksum")
    bad(
        "trailer-reserved", "4.4", "a reserved byte is 1", toc,
        trailer(toc, toc_offset, 2, reserved=bytes(7) + b"\1"), "Field", "reserved",
    )
    bad("trailer-base-ids", "4.4", "five base ids for two rows", toc, trailer(toc, toc_offset, 2, 5), "Field", "base_ids")
    bad("trailer-rows", "4.4", "65,537 rows", toc, trailer(toc, toc_offset, 65537), "Field", "rows")
    bad("trailer-offset", "4.4", "a table that is one row longer than stated", toc, trailer(toc, toc_offset, 1), "Field", "toc_offset")
    bad("trailer-early", "4.4", "a table within the header", b"", trailer(good[25:], 25, 1), "Field", "toc_offset", data=good)
    bad("toc-hash", "4.3", "one bit of the table flipped", patched(toc, 0, u8(toc[0] ^ 1)), end, "Hash")

    def bad_toc(name, what, toc, error, field, data=data):
        bad(f"toc-{name}", "4.3", what, toc, trailer(toc, len(data), 2), error, field, data)

    bad_toc("offset", "a row that points one byte too far", patched(toc, 80, u32(137)), "Field", "offset")
    bad_toc("codec", "codec 2", patched(toc, 44, u8(2)), "Field", "codec")
    bad_toc("bases", "three bases", patched(toc, 45, u8(3)), "Field", "bases")
    bad_toc("reserved", "the reserved field is 1", patched(toc, 46, u16(1)), "Field", "reserved")
    bad_toc("raw-length", "a chunk of 8 KiB", patched(toc, 40, u32(2 * BLOCK)), "Field", "raw_length")
    bad_toc("stored-length", "a frame as long as the chunk", patched(toc, 36, u32(BLOCK)), "Field", "stored_length")

    def bad_bases(name, what, counts, ids, error="Field", field="base_ids", stated=None):
        """Two records of which the table says that they have so many bases, and these."""
        chunks = [repaired(), patchwork()]
        records = good + b"".join(record(b3(c), codec, frame, BLOCK, bases) for c, codec, frame, bases in chunks)
        rows = [
            toc_row(bytes.fromhex(row["id"]), row["offset"], row["stored_length"], BLOCK, row["codec"], count)
            for row, count in zip(rows_of(chunks), counts)
        ]
        toc = b"".join(rows + ids)
        end = trailer(toc, len(records), 2, len(ids) if stated is None else stated)
        bad(f"toc-{name}", "4.3", what, toc, end, error, field, records)

    bad_bases("bases-more", "an id more than the rows have bases", [1, 1], [one, one, other])
    bad_bases("bases-fewer", "an id fewer than the rows have bases", [1, 2], [one, one])
    bad_bases("bases-stated", "a table that is one id longer than stated", [1, 2], [one, one, other], field="toc_offset", stated=2)
    bad_bases("base-own", "a row with its own chunk as its base", [1, 2], [b3(repaired()[0]), one, other], field="base")
    bad_bases("base-twice", "a row with the same base twice", [1, 2], [one, other, other], field="base")
    bad_toc("gap", "a byte between the last record and the table", toc, "Field", "toc_offset", data + b"\0")

    torn = record(b3(noise()[0]), *noise()[1:], BLOCK)[:1000]
    v.good(
        "segment-unsealed.bin", "unsealed_segment", "4.5", "two whole records, then one that was cut off while it was written",
        data + torn, shown | {"rows": rows_of(small), "valid_bytes": toc_offset},
    )


# Sections 5.4 and 5.5: sketches


def sketch(chunk):
    """The features of a whole block."""
    gear = blake3(b"tegula gear 1").digest(length=2048)
    numbers = [int.from_bytes(gear[at : at + 8], "little") for at in range(0, 2048, 8)]
    low = 64 - (len(chunk).bit_length() - 1 - 5)
    rolled, features = 0, set()
    for byte in chunk:
        rolled = (2 * rolled + numbers[byte]) % 2**64
        if rolled >> low == 0:
            features.add(rolled * 0x9E3779B97F4A7C15 % 2**64 >> 32)
    return sorted(features)[:64]


def sketch_run(rows, sort=True, count=None):
    """`rows` are (feature, head of a chunk id)."""
    row_bytes = b"".join(u32(feature) + chunk for feature, chunk in (sorted(rows) if sort else rows))
    return envelope(b"TGSKETCH", u64(len(rows) if count is None else count) + u32(crc(row_bytes))) + row_bytes


def run_vectors(v):
    ids = numbered_ids(4)
    rows = [(ids[0], 1, 0, 73, 11, 0), (ids[1], 1, 1, 136, 4096, 0), (ids[2], 2, 0, 73, 61, 1), (ids[0], 2, 1, 186, 11, 0)]

    def fields(segments, rows):
        keys = ["id", "segment", "slot", "offset", "stored_length", "bases"]
        shown = [dict(zip(keys, [row[0].hex(), *row[1:]])) for row in sorted(rows)]
        return {"segments": segments, "rows": shown}

    good = run([1, 2], rows)
    v.good(
        "run.bin", "run", "5", "four rows over two segments; one chunk has two places", good,
        fields([1, 2], rows) | {"absent": ids[3].hex()},
    )
    v.good("run-empty.bin", "run", "5", "a run of no row over one empty segment", run([7], []), fields([7], []))
    many = [(id, 3, slot, 73 + 63 * slot, 11, 0) for slot, id in enumerate(numbered_ids(43))]
    v.good("run-filter.bin", "run", "5.2", "43 rows: three filter blocks", run([3], many), fields([3], many))

    roomy = run([1, 2], rows, filter_bytes=run_filter([row[0] for row in rows], rows_max=64))
    v.good(
        "run-filter-roomy.bin", "run", "5.2", "four rows, and a filter with room for 64", roomy, fields([1, 2], rows),
        reencodes=False,
    )

    def bad(name, section, what, data, error, field=None):
        v.bad(f"run-{name}.bin", "run", section, what, data, error, field)

    bad("cut", "5.1", "the last byte is missing", good[:-1], "Truncated")
    bad("extended", "5.1", "a byte follows the rows", good + b"\0", "Truncated")
    bad("segments-checksum", "5.1", "one bit of the list of segments flipped", patched(good, 76, u8(3)), "Checksum")
    bad("segments", "5.1", "a list of segments that is none", run([], rows, segment_bytes=bytes(8)), "Body")
    bad(
        "segments-extended", "5.1", "a byte follows the list of segments",
        run([], rows, segment_bytes=number_set([1, 2]) + b"\0"), "Body",
    )
    bad("filter-none", "5.1", "no filter block", run([1, 2], rows, filter_bytes=b""), "Field", "filter_blocks")
    bad("filter-false", "5.2", "a filter that does not know its rows", run([1, 2], rows, filter_bytes=bytes(32)), "Field", "filter")
    filter_at = 60 + len(number_set([1, 2]))
    bad("filter-checksum", "5.2", "one bit of the filter flipped", patched(good, filter_at, u8(good[filter_at] ^ 1)), "Checksum")
    bad("rows-checksum", "5.3", "one bit of a row flipped", patched(good, len(good) - 1, b"\1"), "Checksum")
    bad("order", "5.3", "rows that do not ascend", run([1, 2], sorted(rows)[::-1], sort=False), "Field")
    bad("twice", "5.3", "the same row twice", run([1, 2], rows + rows[:1]), "Field")
    bad("row-reserved", "5.3", "the reserved field of a row is 1", run([1, 2], rows, reserved=1), "Field", "reserved")
    bad("row-bases", "5.3", "a row with three bases", run([1, 2], [*rows[1:], (*rows[0][:5], 3)]), "Field", "bases")
    bad("foreign", "5.3", "a row in a segment that is not named", run([1], rows), "Field")


def sketch_vectors(v):
    for name, what, block in [
        ("4k", "a block of 4 KiB of BLAKE3 output", blake3(b"sketch").digest(length=4096)),
        ("64k", "64 KiB", blake3(b"sketch").digest(length=65536)),
        ("zeros", "a block of zeros has no feature of its own", bytes(65536)),
    ]:
        v.good(
            f"sketch-{name}.bin", "sketch", "5.4", f"{what}; its features", block,
            {"features": sketch(block)}, reencodes=False,
        )
    first, second = bytes.fromhex("0101010101010101"), bytes.fromhex("ff00000000000002")
    rows = [(5, second), (0x80000000, second), (0x80000000, first)]

    def fields(rows):
        return {"rows": [{"feature": feature, "chunk": chunk.hex()} for feature, chunk in sorted(rows)]}

    good = sketch_run(rows)
    v.good("sketch-run.bin", "sketch_run", "5.5", "two features; two chunks have the second", good, fields(rows))
    v.good("sketch-run-empty.bin", "sketch_run", "5.5", "no row", sketch_run([]), fields([]))

    def bad(name, what, data, error, field=None):
        v.bad(f"sketch-run-{name}.bin", "sketch_run", "5.5", what, data, error, field)

    bad("cut", "the last byte is missing", good[:-1], "Truncated")
    bad("extended", "a byte follows the rows", good + b"\0", "Truncated")
    bad("rows-many", "more rows stated than 64 bits can count bytes of", sketch_run(rows, count=2**63), "Truncated")
    bad("checksum", "one bit of a row flipped", patched(good, len(good) - 1, u8(good[-1] ^ 1)), "Checksum")
    bad("order", "rows that do not ascend", sketch_run(rows, sort=False), "Field", "row")
    bad("twice", "the same row twice", sketch_run(rows + rows[:1]), "Field", "row")


def layer_vectors(v):
    ids = numbered_ids(2100)

    def good(name, what, virtual_size, data, zero, layer_ids, parent=None, parent_depth=0, ingest=INGEST_1, differs=False):
        id, file = layer(ingest, LOG2, virtual_size, data, zero, layer_ids, parent, parent_depth, differs=differs)
        fields = {
            "id": id.hex(), "ingest": ingest.hex(), "block_size_log2": LOG2, "virtual_size": virtual_size,
            "parent": parent.hex() if parent else None, "depth": parent_depth + 1, "differs": differs,
            "data": runs_of(data), "zero": runs_of(zero), "ids_hash": b3(b"".join(layer_ids)).hex(),
        }
        if len(layer_ids) <= 8:
            fields["ids"] = [id.hex() for id in layer_ids]
        v.good(f"layer-{name}.bin", "layer", "6.1", what, file, fields)
        return id, file

    parent, full = good("full", "a full layer of nine blocks, the last one short", 9 * BLOCK - 5, [0, 3, 4], [], ids[:3])
    good(
        "again", "the same layer, written by another ingest: another file of another id",
        9 * BLOCK - 5, [0, 3, 4], [], ids[:3], ingest=INGEST_2,
    )
    _, child = good("child", "a child that sets two blocks and zeroes one", 9 * BLOCK - 5, [3, 5], [4], ids[3:5], parent, 1)
    good(
        "differs", "the same child, which says that nothing it holds is as below",
        9 * BLOCK - 5, [3, 5], [4], ids[3:5], parent, 1, differs=True,
    )
    good("nothing", "a child that changes nothing but the size", 20 * BLOCK, [], [], [], parent, 1)
    good("empty", "a full layer of an image of no bytes", 0, [], [], [])
    good("pages", "2,100 ids: two pages of them", 2100 * BLOCK, list(range(2100)), [], ids)

    common = dict(ingest=INGEST_1, block_size_log2=LOG2, virtual_size=9 * BLOCK - 5)
    plain = common | dict(data=[0, 3, 4], zero=[], ids=ids[:3])
    over = common | dict(data=[3, 5], zero=[4], ids=ids[3:5], parent=parent, parent_depth=1)

    def bad(name, what, data, error, field=None):
        v.bad(f"layer-{name}.bin", "layer", "6.1", what, data, error, field)

    def made(base, **changes):
        return layer(**base | changes)[1]

    bad("cut", "the last byte is missing", full[:-1], "Truncated")
    bad("extended", "a byte follows the ids", full + b"\0", "Truncated")
    bad("block-2k", "blocks of 2 KiB", made(plain, block_size_log2=11), "Field", "block_size_log2")
    bad("size", "one byte more than 2^32 blocks", made(plain, virtual_size=(1 << 44) + 1), "Field", "virtual_size")
    bad("data-blocks", "more blocks set than the image has", made(plain, data_blocks=10), "Field", "data_blocks")
    bad("zero-blocks", "more blocks zeroed than are left", made(over, zero_blocks=8), "Field", "zero_blocks")
    bad("full-zero", "a full layer that zeroes a block", made(plain, zero=[7]), "Field", "zero_blocks")
    bad("depth-0", "depth 0", made(plain, depth=0), "Field", "depth")
    bad("depth-full", "a full layer of depth 2", made(plain, depth=2), "Field", "depth")
    bad("depth-child", "a child of depth 1", made(over, depth=1), "Field", "depth")
    bad("depth-deep", "a stack of 65,537 layers", made(over, depth=65537), "Field", "depth")
    bad("parent", "a parent that is neither there nor not", resealed_layer(patched(full, 57, b"\2"), 222), "Body")
    head = len(child) - len(number_set([3, 5])) - len(number_set([4])) - 4 - 64
    bad("data-hash", "one bit of the set of blocks flipped", patched(child, head + 16, u8(child[head + 16] ^ 1)), "Hash")
    zero_at = head + len(number_set([3, 5]))
    bad("zero-hash", "one bit of the zeroed blocks flipped", patched(child, zero_at + 16, u8(child[zero_at + 16] ^ 1)), "Hash")
    bad("past", "a block past the image", made(plain, data=[0, 3, 9]), "Field")
    bad("count", "four blocks set, three stated", made(plain, data=[0, 3, 4, 5], data_blocks=3), "Field")
    bad("both", "a block that is set and zeroed", made(over, zero=[5]), "Field")
    pages_at = len(full) - 96 - 4
    bad("pages-hash", "one bit of a page checksum flipped", patched(full, pages_at, u8(full[pages_at] ^ 1)), "Hash")
    bad("page", "one bit of an id flipped", patched(full, len(full) - 1, u8(full[-1] ^ 1)), "Checksum")
    pages = u32(crc(b"".join(ids[:3])) ^ 1)
    bad("page-checksum", "a wrong page checksum under the right hash", made(plain, parts={"pages": pages}), "Checksum")
    bad("ids-hash", "a wrong hash of the ids", made(plain, ids_hash=bytes(32)), "Hash")


def resealed_layer(data, head):
    return resealed(data[:head]) + data[head:]


NAMES = [
    ("a", None),
    ("debian-12", None),
    ("Ubuntu 24.04 (cloud)", None),
    ("a:b@c", None),
    ("dachziegel-größe", None),
    ("屋根瓦", None),
    ("a\u00a0b", None),
    ("x" * 200, None),
    ("é" * 100, None),
    ("", "Empty"),
    ("x" * 201, "TooLong"),
    ("é" * 100 + "x", "TooLong"),
    ("a/b", "Character"),
    ("a\u0000b", "Character"),
    ("a\nb", "Character"),
    ("\u001b[2J", "Character"),
    ("a\u007fb", "Character"),
    ("a\u0085", "Character"),
    ("a\u200bb", "Character"),
    ("a\u202eb", "Character"),
    ("a\u2028b", "Character"),
    ("a\u2066b", "Character"),
    ("a\ufeffb", "Character"),
    (".", "Edge"),
    ("..", "Edge"),
    (".hidden", "Edge"),
    ("-rf", "Edge"),
    (" a", "Edge"),
    ("a ", "Edge"),
    ("a\u00a0", "Edge"),
    ("\u3000a", "Edge"),
    ("a\u2009", "Edge"),
]


def image_vectors(v):
    record_id, older_id = bytes(range(0xC0, 0xD0)), bytes(range(0xD0, 0xE0))
    layer_id, digest, parent_digest = bytes([0x11] * 32), bytes([0x22] * 32), bytes([0x33] * 32)
    plain = dict(
        id=record_id, name="debian-12", virtual_size=9 * BLOCK - 5, block_size_log2=LOG2, digest=digest, layer=layer_id,
        data_blocks=3, created_at_us=CREATED,
    )
    shown = {
        "id": record_id.hex(), "name": "debian-12", "virtual_size": 9 * BLOCK - 5, "block_size_log2": LOG2,
        "digest": digest.hex(), "layer": layer_id.hex(), "parent": None, "supersedes": None, "data_blocks": 3,
        "created_at_us": CREATED,
    }
    v.good("image-record.bin", "image_record", "7.2", "an image without parent", image_record(**plain), shown)
    child = plain | {"name": "dachziegel-größe", "parent": ("debian-12", parent_digest), "supersedes": older_id}
    v.good(
        "image-record-child.bin", "image_record", "7.2", "a renamed image with a parent", image_record(**child),
        shown | {
            "name": "dachziegel-größe", "parent": {"name": "debian-12", "digest": parent_digest.hex()},
            "supersedes": older_id.hex(),
        },
    )
    v.good(
        "image-record-largest.bin", "image_record", "7.2", "the largest image and the longest name",
        image_record(**plain | {"name": "x" * 200, "block_size_log2": 22, "virtual_size": 1 << 54, "data_blocks": 1 << 32}),
        shown | {"name": "x" * 200, "block_size_log2": 22, "virtual_size": 1 << 54, "data_blocks": 1 << 32},
    )

    def bad(name, what, changes, error, field=None):
        v.bad(f"image-record-{name}.bin", "image_record", "7.2", what, image_record(**plain | changes), error, field)

    bad("block-2k", "blocks of 2 KiB", {"block_size_log2": 11}, "Field", "block_size_log2")
    bad("size", "one byte more than 2^32 blocks", {"virtual_size": (1 << 44) + 1}, "Field", "virtual_size")
    bad("data-blocks", "more data than the image has blocks", {"data_blocks": 10}, "Field", "data_blocks")
    bad("name", "a name that leaves its directory", {"name": "../etc"}, "Body")
    bad("name-utf8", "a name that is not UTF-8", {"name": b"a\xff"}, "Body")
    bad("parent-name", "a parent without a name", {"parent": ("", parent_digest)}, "Body")
    good = image_record(**plain)
    long_name = resealed(patched(good, 48, u64(1 << 40)))
    v.bad("image-record-name-length.bin", "image_record", "1.3", "a name that is longer than the body", long_name, "Body")
    tag_at = 32 + 16 + 8 + 9 + 8 + 1 + 32 + 32
    v.bad(
        "image-record-parent-tag.bin", "image_record", "1.3", "an option that is neither 0 nor 1",
        resealed(patched(good, tag_at, b"\2")), "Body",
    )


def state_vectors(v):
    layers = [bytes([0x11] * 32), bytes([0x22] * 32)]
    v.good(
        "gc-state-initial.bin", "gc_state", "9", "a store that was never collected", gc_state(0, 0, [], []),
        {"epoch": 0, "segment_floor": 0, "condemned_segments": [], "condemned_layers": []},
    )
    v.good(
        "gc-state.bin", "gc_state", "9", "two segments and two layers are condemned", gc_state(7, 5, [3, 5], layers),
        {"epoch": 7, "segment_floor": 5, "condemned_segments": [3, 5], "condemned_layers": [l.hex() for l in layers]},
    )
    v.bad("gc-state-segments.bin", "gc_state", "9", "segments that do not ascend", gc_state(7, 5, [5, 3], []), "Body")
    v.bad("gc-state-layers.bin", "gc_state", "9", "one layer twice", gc_state(7, 5, [], layers[:1] * 2), "Body")
    v.bad(
        "gc-state-count.bin", "gc_state", "1.3", "a list that is longer than the body",
        resealed(patched(gc_state(7, 5, [], []), 44, u64(1 << 60))), "Body",
    )
    places = [(1, 0), (1, 65535), (0xFFFFFFFF, 2)]
    ordinals = [place(*p) for p in places]
    v.good(
        "quarantine.bin", "quarantine", "10", "three places, one of them in the last segment there can be",
        quarantine(ordinals), {"places": [{"segment": s, "slot": t, "ordinal": place(s, t)} for s, t in places]},
    )
    v.good("quarantine-empty.bin", "quarantine", "10", "no place", quarantine([]), {"places": []})
    v.bad("quarantine-order.bin", "quarantine", "10", "places that do not ascend", quarantine(ordinals[::-1]), "Body")
    v.bad("quarantine-twice.bin", "quarantine", "10", "one place twice", quarantine(ordinals[:1] * 2), "Body")
    v.bad("quarantine-past.bin", "quarantine", "2.5", "a place past the last segment", quarantine([1 << 48]), "Body")


def delta_vectors(v):
    """The base of all of them has three blocks; its bytes are written beside them, for readers to apply them to."""
    (first, *_), (second, *_), (third, *_) = fives(), noise(), sevens()
    base_blocks = [first, second, third]
    base_ids = [b3(block) for block in base_blocks]
    base_size, size = 3 * BLOCK, 4 * BLOCK - 5
    base = (base_size, image_digest(base_size, LOG2, base_ids))
    v.files["delta-base.raw"] = b"".join(base_blocks)
    new = greeting(b"Tegula: a roof tile.\n")
    short = chunk_of(first[:-5], LOG2)
    short = short, ZSTD, zstd_by_hand(short, (5, BLOCK - 5), (0, 5))

    def records(*chunks):
        return [record(b3(chunk), codec, payload, len(chunk)) for chunk, codec, payload in chunks]

    def good(name, what, base, virtual_size, blocks, data, zero, carried, by_name=False):
        """`blocks` are the chunks of the target; what is not set or zeroed must be the base's."""
        ids = [b3(block) if block else None for block in blocks]
        digest = image_digest(virtual_size, LOG2, ids)
        names = [b3(chunk) for chunk, _, _ in carried] if by_name else None
        made = delta(LOG2, base, virtual_size, digest, data, zero, [ids[n] for n in data], records(*carried), by_name=names)
        whole = b"".join(block or bytes(BLOCK) for block in blocks)[:virtual_size]
        shown = {
            "block_size_log2": LOG2, "base": base and {"virtual_size": base[0], "digest": base[1].hex()},
            "virtual_size": virtual_size, "digest": digest.hex(), "data": runs_of(data), "zero": runs_of(zero),
            "ids": [ids[n].hex() for n in data], "records": [b3(chunk).hex() for chunk, _, _ in carried],
            "record_bytes": sum(map(len, records(*carried))), "sha256": hashlib.sha256(whole).hexdigest(),
        }
        v.good(name, "delta", "15", what, made, shown)
        return made

    good(
        "delta.bin", "one block carried, one zeroed, one that the base has elsewhere; the image grows", base, size + 5,
        [first, new[0], None, first], [1, 3], [2], [new],
    )
    good("delta-shrink.bin", "an image that becomes shorter within a block", base, BLOCK - 5, [short[0]], [0], [], [short])
    good("delta-same.bin", "an image that stays as it is", base, base_size, base_blocks, [], [], [])
    good(
        "delta-full.bin", "no base: all of the image, one chunk twice", None, size, [new[0], None, new[0], short[0]], [0, 2, 3], [],
        [new, short],
    )
    good("delta-nothing.bin", "no base, and nothing in the image", None, 0, [], [], [], [])
    good(
        "delta-by-name.bin", "records hashed by name: no base, all of the image, one chunk twice", None, size,
        [new[0], None, new[0], short[0]], [0, 2, 3], [], [new, short], by_name=True,
    )
    plain = dict(
        block_size_log2=LOG2, base=base, virtual_size=4 * BLOCK,
        digest=image_digest(4 * BLOCK, LOG2, [base_ids[0], b3(new[0]), None, base_ids[0]]),
        data=[1, 3], zero=[2], ids=[b3(new[0]), base_ids[0]], records=records(new),
    )
    whole = delta(**plain)
    assert whole == v.files["delta.bin"]

    def bad(name, section, what, data, error, field=None):
        v.bad(f"delta-{name}.bin", "delta", section, what, data, error, field)

    bad("block-2k", "15.2", "blocks of 2 KiB", delta(**plain | {"block_size_log2": 11}), "Field", "block_size_log2")
    bad("size", "15.2", "a target of one byte more than 2^32 blocks", delta(**plain | {"virtual_size": (1 << 44) + 1}), "Field", "virtual_size")
    huge = delta(**plain | {"base": ((1 << 44) + 1, base[1])})
    bad("base-size", "15.2", "a base of one byte more than 2^32 blocks", huge, "Field", "virtual_size")
    bad("data-blocks", "15.2", "more blocks set than the target has", delta(**plain, data_blocks=5), "Field", "data_blocks")
    bad("zero-blocks", "15.2", "more blocks zeroed than are left", delta(**plain, zero_blocks=3), "Field", "zero_blocks")
    orphan = delta(**plain | {"base": None})
    bad("zero-full", "15.2", "a block zeroed where there is no base", orphan, "Field", "zero_blocks")
    bad("data-length", "15.2", "a set longer than any", delta(**plain, data_length=1 << 40), "Field", "data_length")
    bad("data-hash", "15.3", "another hash of the data set", delta(**plain, data_hash=bytes(32)), "Hash")
    bad("zero-hash", "15.3", "another hash of the zero set", delta(**plain, zero_hash=bytes(32)), "Hash")
    bad("ids-hash", "15.3", "another hash of the ids", delta(**plain, ids_hash=bytes(32)), "Hash")
    bad("data-past", "15.3", "a block set that the target does not have", delta(**plain | {"data": [1, 4]}), "Field")
    bad("zero-past", "15.3", "a block zeroed that the base does not have", delta(**plain | {"data": [1, 2], "zero": [3]}), "Field")
    bad("both", "15.3", "a block both set and zeroed", delta(**plain | {"zero": [1]}), "Field")
    bad("count", "15.3", "fewer blocks set than stated", delta(**plain, parts={"data": number_set([1])}), "Field")
    zeros = delta(**plain | {"ids": [b3(new[0]), b3(bytes(BLOCK))]})
    bad("ids-zero", "15.3", "the id of the all-zero chunk", zeros, "Field", "ids")
    bad("magic", "15.5", "another magic of the trailer", whole[:-60] + delta_trailer(whole[:-60], 1, len(plain["records"][0]), magic=b"TGDELENT"), "BadMagic")
    bad("checksum", "15.5", "another checksum of the trailer", whole[:-1] + bytes([whole[-1] ^ 1]), "Checksum")
    bad("records", "15.5", "fewer records than there are", delta(**plain, trailer={"records": 0}), "Field", "records")
    many = delta(**plain, trailer={"records": 129})
    bad("records-many", "15.5", "more than 64 records for each block set", many, "Field", "records")
    bad("record-bytes", "15.5", "more bytes of records than there are", delta(**plain, trailer={"record_bytes": 99}), "Field", "record_bytes")
    bad("hash", "15.5", "another hash of everything", delta(**plain, trailer={"hash": bytes(32)}), "Hash")
    by_name = plain | {"by_name": [b3(new[0])]}
    bad("by-name-hash", "15.5", "records hashed by name, and another id among them", delta(**plain, by_name=[base_ids[0]]), "Hash")
    bad("by-name-whole", "15.5", "records said to be hashed by name, and hashed whole", delta(**plain, refuse=1), "Hash")
    bad("whole-by-name", "15.5", "records hashed by name, and not said to be", delta(**by_name, refuse=0), "Hash")
    bad("refuse", "2.3", "an unknown bit in the mask to refuse", delta(**plain, refuse=2), "UnsupportedFeatures")
    bad("after", "15", "a byte after the trailer", whole + b"\0", "BadMagic")
    bad("cut", "15", "no room for a trailer", whole[:300], "Truncated")
    torn = delta(**plain | {"records": [plain["records"][0][:-1]]})
    bad("record-torn", "15.4", "a record that is cut short", torn, "Truncated")


def journal_vectors(v):
    (first, *_), (second, *_) = fives(), noise()
    made = dict(delta=bytes([0x44] * 32), disk=(7, 9), block_size_log2=LOG2)
    rows = [(b3(second), 1, 0), (b3(first), 0, 0)]
    whole = journal(**made, rows=rows, saved=[second], marks=[1, 3])
    shown = {
        "delta": made["delta"].hex(), "disk": [7, 9], "block_size_log2": LOG2,
        "rows": [{"id": id.hex(), "kind": kind, "number": number} for id, kind, number in rows], "saved": [b3(second).hex()], "done": 3,
    }
    v.good("journal.bin", "journal", "15.7", "one chunk saved, one that stays, three steps done", whole, shown)
    v.good(
        "journal-torn.bin", "journal", "15.7", "a mark that was cut off counts for nothing", whole[:-1],
        shown | {"done": 1}, reencodes=False,
    )

    def bad(name, what, data, error, field=None):
        v.bad(f"journal-{name}.bin", "journal", "15.7", what, data, error, field)

    bad("saved", "more chunks saved than rows", journal(**made, rows=rows[:1], saved=[first, second], marks=[]), "Field", "saved")
    bad("kind", "a row of kind 2", journal(**made, rows=[(b3(first), 2, 0)], saved=[], marks=[]), "Field", "kind")
    bad("number", "a saved chunk that is not there", journal(**made, rows=[(b3(first), 1, 1)], saved=[first], marks=[]), "Field", "number")
    bad("unsealed", "no seal", whole[: -32 - 44], "Truncated")
    bad("hash", "another hash in the seal", patched(whole, len(whole) - 32 - 44, with_crc(b"TGJSEALD" + bytes(32))), "Hash")


def digests():
    """Section 8. `blocks` names ids by "data" and counts blocks that read as zeros by "zeros"."""
    ids = numbered_ids(3)

    def case(what, virtual_size, block_size_log2, blocks):
        flat, shown = [], []
        for block in blocks:
            if isinstance(block, int):
                flat += [None] * block
                shown.append({"zeros": block})
            else:
                flat.append(block)
                shown.append({"data": block.hex()})
        digest = image_digest(virtual_size, block_size_log2, flat).hex()
        return {"what": what, "virtual_size": virtual_size, "block_size_log2": block_size_log2, "blocks": shown, "digest": digest}

    return [
        case("an image of no bytes", 0, 16, []),
        case("one byte, which is zero", 1, 16, [1]),
        case("two blocks of data around two of zeros, the last one short", 4 * BLOCK - 1, 12, [ids[0], 2, ids[1]]),
        case("the same blocks, one byte longer", 4 * BLOCK, 12, [ids[0], 2, ids[1]]),
        case("exactly one group", 1024 * BLOCK, 12, [1023, ids[0]]),
        case("a group of zeros, then one of mixed blocks", 1030 * BLOCK, 12, [1025, ids[0], ids[1], 2, ids[2]]),
        case("three groups of zeros, the last one short", 2500 << 16, 16, [2500]),
    ]


def resolve(layers, block_size_log2):
    """Section 6.2, newest layer first: what each block of the image reads as."""
    answers = []
    for block in range(block_count(layers[0]["virtual_size"], block_size_log2)):
        answer = "zero"
        for layer in layers:
            if block >= block_count(layer["virtual_size"], block_size_log2) or block in layer["zero"]:
                break
            if block in layer["data"]:
                answer = layer["data"][block]
                break
        answers.append(answer)
    return answers


def stacks():
    def level(blocks, data, zero=()):
        return {"virtual_size": int(blocks * BLOCK), "data": data, "zero": list(zero)}

    def case(what, layers, expected):
        found = resolve(layers, LOG2)
        assert found == expected, (what, found)
        shown = [
            {"virtual_size": l["virtual_size"], "data": [[b, c] for b, c in sorted(l["data"].items())], "zero": l["zero"]}
            for l in layers
        ]
        return {"what": what, "block_size_log2": LOG2, "layers": shown, "reads": expected}

    base = level(4, {0: "a0", 1: "a1", 2: "a2", 3: "a3"})
    return [
        case("a full layer: what is not set is zero", [level(3, {1: "a1"})], ["zero", "a1", "zero"]),
        case("a child inherits, sets and zeroes", [level(4, {1: "b1"}, [2]), base], ["a0", "b1", "zero", "a3"]),
        case("the newest layer wins", [level(4, {0: "c0"}), level(4, {0: "b0", 1: "b1"}), base], ["c0", "b1", "a2", "a3"]),
        case("a block zeroed and set again", [level(4, {0: "c0"}), level(4, {}, [0]), base], ["c0", "a1", "a2", "a3"]),
        case("an image that grows reads zeros at its end", [level(6, {5: "b5"}), base], ["a0", "a1", "a2", "a3", "zero", "b5"]),
        case("an image that shrinks", [level(2, {}), base], ["a0", "a1"]),
        case(
            "an image that shrinks, then grows again: what was cut off stays cut off",
            [level(4, {3: "c3"}), level(2, {}), base], ["a0", "a1", "zero", "c3"],
        ),
        case(
            "cut within a block: the short block counts", [level(4, {}), level(1.5, {1: "b1"}), base],
            ["a0", "b1", "zero", "zero"],
        ),
        case("cut down to nothing", [level(2, {1: "c1"}), level(0, {}), base], ["zero", "c1"]),
        case(
            "the upper two layers of an image that shrinks, then grows again, folded into one",
            [level(4, {3: "c3"}, [2]), base], ["a0", "a1", "zero", "c3"],
        ),
    ]


def example_store(v):
    """A whole small store: sections 11 and 12, and every leftover a crash may leave."""
    store, files = {}, []

    def put(name, data):
        v.files[f"store/{name}"] = data
        files.append(name)

    config = store_config(STORE_ID, LOG2, 3, CREATED, prefix_frames=True, has_copy=True)
    put("tegula.store", config)
    put("tegula.store.copy", config)
    put("gc.state", gc_state(3, 1, [], []))
    hello, bye = b"Tegula: a roof tile.\n", b"Imbrex: the tile over the gap between two.\n"
    words, tail = greeting(hello), greeting(bye)
    first = [fives(), noise(), words, lines(), tail]
    second = [sevens(), greeting(b"Row on row.\n"), repaired()]
    put("segments/00000002.seg", segment(STORE_ID, 2, LOG2, INGEST_1, first))
    put("segments/00000003.seg", segment(STORE_ID, 3, LOG2, INGEST_2, second))
    torn = segment_header(STORE_ID, 4, LOG2, bytes(range(0xE0, 0xF0)))
    torn += record(b3(fives()[0]), *fives()[1:], BLOCK) + record(b3(LINES), ZSTD, LINES_FRAME, BLOCK)[:100]
    put("segments/00000004.open", torn)
    rows = [
        (bytes.fromhex(row["id"]), 2, slot, row["offset"], row["stored_length"], 0) for slot, row in enumerate(rows_of(first))
    ]
    put("index/" + "5a" * 16 + ".run", run([2], rows))

    # Image "roof": six blocks, the last one short; block 3 is a hole.
    size = 5 * BLOCK + len(bye)
    blocks = [fives()[0], noise()[0], words[0], None, LINES, tail[0]]
    full_data = {n: b3(block) for n, block in enumerate(blocks) if block}
    full_id, full = layer(INGEST_1, LOG2, size, list(full_data), [], list(full_data.values()))
    put(f"layers/{full_id.hex()}.layer", full)
    roof_ids = [full_data.get(n) for n in range(6)]
    roof_digest = image_digest(size, LOG2, roof_ids)
    roof_bytes = b"".join(block or bytes(BLOCK) for block in blocks)[:size]

    # Image "roof repaired": eight blocks; block 1 is set anew, block 4 zeroed, block 6 added, and block 7, which stands
    # on the chunk that was block 4's.
    grown = 8 * BLOCK
    child_data = {1: b3(sevens()[0]), 6: b3(second[1][0]), 7: b3(repaired()[0])}
    child_id, child = layer(INGEST_2, LOG2, grown, list(child_data), [4], list(child_data.values()), full_id, 1, differs=True)
    put(f"layers/{child_id.hex()}.layer", child)
    child_blocks = [*blocks, None, None]
    child_blocks[1], child_blocks[4], child_blocks[6], child_blocks[7] = sevens()[0], None, second[1][0], repaired()[0]
    child_ids = [b3(block) if block else None for block in child_blocks]
    child_digest = image_digest(grown, LOG2, child_ids)
    child_bytes = b"".join(block or bytes(BLOCK) for block in child_blocks)

    old, roof, newer = bytes([0xC1] * 16), bytes([0xC2] * 16), bytes([0xC3] * 16)
    common = dict(block_size_log2=LOG2, digest=roof_digest, layer=full_id, data_blocks=5, virtual_size=size)
    put("images/draft.image", image_record(id=old, name="draft", created_at_us=CREATED, **common))
    put("images/roof.image", image_record(id=roof, name="roof", created_at_us=CREATED, supersedes=old, **common))
    put(
        "images/roof repaired.image",
        image_record(
            id=newer, name="roof repaired", virtual_size=grown, block_size_log2=LOG2, digest=child_digest,
            layer=child_id, data_blocks=6, created_at_us=CREATED + 1_000_000, parent=("roof", roof_digest),
        ),
    )
    put("tmp/" + "0f" * 16, b"TGLAYER\n")
    for name in ("commit", "epoch-3", "gc", "index"):
        put(f"locks/{name}", b"")

    def image(name, data, digest, layers, data_blocks, parent):
        return {
            "name": name, "virtual_size": len(data), "digest": digest.hex(), "sha256": hashlib.sha256(data).hexdigest(),
            "layers": [id.hex() for id in layers], "data_blocks": data_blocks, "parent": parent,
        }

    return {
        "directory": "store",
        "what": "two images, a rename that was not tidied up, an unsealed segment, an unfinished file, a segment no run names",
        "id": STORE_ID.hex(),
        "images": [
            image("roof", roof_bytes, roof_digest, [full_id], 5, None),
            image("roof repaired", child_bytes, child_digest, [child_id, full_id], 6, "roof"),
        ],
        "segments": {"2": rows_of(first), "3": rows_of(second)},
        "files": sorted(files),
    }


def everything():
    v = Vectors()
    envelope_vectors(v)
    chunk_vectors(v)
    set_vectors(v)
    segment_vectors(v)
    run_vectors(v)
    sketch_vectors(v)
    layer_vectors(v)
    image_vectors(v)
    state_vectors(v)
    delta_vectors(v)
    journal_vectors(v)
    store = example_store(v)
    index = {
        "format_version": 1,
        "vectors": v.entries,
        "names": [{"name": name, "error": error} for name, error in NAMES],
        "digests": digests(),
        "stacks": stacks(),
        "store": store,
    }
    files = dict(v.files)
    files["index.json"] = (compact(json.dumps(index, indent=1, ensure_ascii=True)) + "\n").encode()
    return files


def compact(pretty):
    """Puts the lists of numbers on one line each; the rest keeps a line an entry."""
    return re.sub(r"\[\s*((?:-?\d+,\s*)*-?\d+)\s*\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", pretty)


# The examples of SPEC.md. A block fenced as "hex FILE" has lines of an offset and bytes of that vector, a remark after
# two spaces or more; or of a name and the value that index.json gives that field. A block fenced as "json FILE/path"
# has the value at that path of index.json.

HEX_EXAMPLE = re.compile(r"^```hex (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEX_LINE = re.compile(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)(?: +\S.*)?$")
FIELD_LINE = re.compile(r"^(\w+): ([0-9a-f]+)$")
JSON_EXAMPLE = re.compile(r"^```json index.json/(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def check_examples(files):
    spec = SPEC.read_text("utf-8")
    index = json.loads(files["index.json"])
    entries = {entry["file"]: entry for entry in index["vectors"]}
    faults = []
    for name, lines in HEX_EXAMPLE.findall(spec):
        for line in lines.splitlines():
            faults += check_line(name, line, files.get(name, b""), entries.get(name, {}))
    for path, stated in JSON_EXAMPLE.findall(spec):
        found = index
        for key in path.split("/"):
            found = found[int(key)] if isinstance(found, list) else found[key]
        if json.loads(stated) != found:
            faults.append(f"SPEC.md: index.json/{path} is {json.dumps(found)}")
    fences = len(re.findall(r"^```\w", spec, re.MULTILINE))
    known = len(HEX_EXAMPLE.findall(spec)) + len(JSON_EXAMPLE.findall(spec))
    if fences != known or known == 0:
        faults.append(f"SPEC.md has {fences} examples, of which {known} can be checked")
    return faults


def check_line(name, line, data, entry):
    if match := FIELD_LINE.match(line):
        found = entry.get("fields", {}).get(match[1])
        return [] if found == match[2] else [f"SPEC.md: {name}: {match[1]} is {found}"]
    if match := HEX_LINE.match(line):
        offset, stated = int(match[1], 16), bytes.fromhex(match[2])
        found = data[offset : offset + len(stated)]
        return [] if found == stated else [f"SPEC.md: {name} at {offset:#06x} has {found.hex(' ')}"]
    return [f"SPEC.md: {name}: not the line of an example: {line!r}"]


def check(files):
    faults = check_examples(files)
    present = {str(path.relative_to(VECTORS)) for path in VECTORS.rglob("*") if path.is_file()}
    faults += [f"{name} is missing" for name in sorted(files.keys() - present)]
    faults += [f"{name} is not ours" for name in sorted(present - files.keys())]
    faults += [
        f"{name} differs" for name in sorted(files.keys() & present) if (VECTORS / name).read_bytes() != files[name]
    ]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def write(files):
    for name, data in files.items():
        path = VECTORS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return 0


def main():
    parser = argparse.ArgumentParser(description="Makes the golden files of format-spec/vectors.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    files = everything()
    sys.exit(check(files) if parser.parse_args().check else write(files))


if __name__ == "__main__":
    main()
