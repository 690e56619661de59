#!/usr/bin/env python3
"""Reads Tegula stores: a second implementation, written from SPEC.md alone.

Usage:
    tegula_reader.py list STORE [--json]
    tegula_reader.py extract STORE IMAGE OUT
    tegula_reader.py verify STORE [--json]

It is slow and plain on purpose, never writes to a store but to take a session's lock (SPEC 13.2), and finds chunks
through the segments' tables of contents alone; index runs are only verified. The section numbers below are SPEC.md's.

Exit status: 0 all is well, 1 something is damaged or not there, 2 wrong usage.
"""

import argparse
import fcntl
import io
import json
import os
import re
import struct
import sys
import tempfile
import zlib
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path

import zstandard
from blake3 import blake3

LAYER_DIFFERS = 1
LAYER_ID_CONTEXT = "tegula 2026-11-22 layer id v1"
GROUP_CONTEXT = "tegula 2026-11-22 image digest group v1"
ROOT_CONTEXT = "tegula 2026-11-22 image digest root v1"

BODY_BYTES_MAX = 16 << 20
ENVELOPE_BYTES = 32
DATA_START = 73
RECORD_HEADER_BYTES = 52
ROW_BYTES = 48
TRAILER_BYTES = 64
PAGE_BYTES = 65536
DEPTH_MAX = 65536
BASES_MAX = 2
BASE_DEPTH_MAX = 4
PREFIX_FRAMES = 1
HAS_COPY = 1
DICTIONARY_MAGIC = bytes.fromhex("37a430ec")
NO_ID = bytes(32)


class Damage(Exception):
    """Something wrong with a store. `error` is one of the names of section 1.4, or "Missing" for what is not there."""

    def __init__(self, error, message, field=None):
        super().__init__(f"{error}: {message}")
        self.error = error
        self.field = field


def need(condition, error, message, field=None):
    if not condition:
        raise Damage(error, message, field)


def need_field(condition, name, found):
    need(condition, "Field", f"{name} is {found}", name)


def b3(data):
    return blake3(data).digest()


# Section 1.3


class Body:
    """Takes the fields of a body one after the other."""

    def __init__(self, data, refuse=0, ignore=0):
        self.data = data
        self.at = 0
        self.refuse, self.ignore = refuse, ignore  # the bits of these masks that are set

    def take(self, count):
        need(count <= len(self.data) - self.at, "Body", f"a field needs {count} bytes, {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width, signed=False):
        return int.from_bytes(self.take(width), "little", signed=signed)

    def u8(self):
        return self.number(1)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def i32(self):
        return self.number(4, signed=True)

    def i64(self):
        return self.number(8, signed=True)

    def option(self, read):
        tag = self.u8()
        need(tag <= 1, "Body", f"an option begins with {tag}")
        return read() if tag else None

    def text(self):
        try:
            return self.take(self.u64()).decode("utf-8", "strict")
        except UnicodeDecodeError as error:
            raise Damage("Body", f"a text is no UTF-8: {error}") from None

    def list(self, width, read):
        count = self.u64()
        need(count * width <= len(self.data) - self.at, "Body", f"a list of {count} items is longer than the body")
        return [read() for _ in range(count)]

    def end(self):
        need(self.at == len(self.data), "Body", f"{len(self.data) - self.at} bytes follow the last field")


# Section 2.2


def read_block_size_log2(value):
    need_field(12 <= value <= 22, "block_size_log2", value)
    return value


def blocks_in(virtual_size, block_size_log2):
    return -(-virtual_size >> block_size_log2)


def check_virtual_size(virtual_size, block_size_log2):
    need_field(virtual_size <= 1 << (32 + block_size_log2), "virtual_size", virtual_size)


# Section 2.3


def open_envelope(magic, data, known=0):
    """Returns the body, and how many bytes envelope and body take. `known` are the bits of the refuse mask that mean something."""
    need(len(data) >= ENVELOPE_BYTES, "Truncated", f"{len(data)} bytes hold no head of {ENVELOPE_BYTES}")
    found, version, reserved, refuse, ignore, _clear, length, checksum = struct.unpack_from("<8sHHIIIII", data)
    need(found == magic, "BadMagic", f"the magic is {found!r}, expected {magic!r}")
    if version != 1:
        need_field(version != 0, "version", version)
        meant = zlib.crc32(data[:8] + b"\x01\x00" + data[10:28] + data[ENVELOPE_BYTES : ENVELOPE_BYTES + length])
        whole = len(data) >= ENVELOPE_BYTES + length
        need(not whole or meant != checksum, "Checksum", f"the checksum is {checksum:#010x}, that of version 1")
        need(False, "UnsupportedVersion", f"the version is {version}, this program reads 1")
    need_field(length <= BODY_BYTES_MAX, "body_length", length)
    end = ENVELOPE_BYTES + length
    need(len(data) >= end, "Truncated", f"{len(data)} bytes, {end} needed")
    computed = zlib.crc32(data[:28] + data[ENVELOPE_BYTES:end])
    need(computed == checksum, "Checksum", f"the checksum is {checksum:#010x}, the bytes give {computed:#010x}")
    need_field(reserved == 0, "reserved", reserved)
    need(refuse & ~known == 0, "UnsupportedFeatures", f"unknown features {refuse & ~known:#010x}")
    return Body(data[ENVELOPE_BYTES:end], refuse, ignore), end


def open_whole_envelope(magic, data, known=0):
    body, end = open_envelope(magic, data, known)
    need(len(data) == end, "Body", f"{len(data) - end} bytes follow the structure")
    return body


# Section 2.4


def read_set(data, limit):
    """Returns the numbers of a set that fills `data`, ascending; all must be below `limit`."""
    numbers = []
    at = 0

    def take(count):
        nonlocal at
        need(count <= len(data) - at, "Body", "a set is cut short")
        at += count
        return data[at - count : at]

    def u16():
        return int.from_bytes(take(2), "little")

    cookie = u16()
    if cookie == 12346:
        need(u16() == 0, "Body", "a set has an unknown cookie")
        count = int.from_bytes(take(4), "little")
        need(count <= 65536, "Body", f"a set has {count} containers")
        is_run = [False] * count
        has_offsets = True
    elif cookie == 12347:
        count = u16() + 1
        flags = take((count + 7) // 8)
        is_run = [bool(flags[n // 8] >> n % 8 & 1) for n in range(count)]
        has_offsets = count >= 4
    else:
        raise Damage("Body", f"a set has the unknown cookie {cookie}")
    descriptions = [(u16(), u16() + 1) for _ in range(count)]
    keys = [key for key, _ in descriptions]
    need(all(a < b for a, b in zip(keys, keys[1:])), "Body", "the keys of a set do not ascend")
    if has_offsets:
        take(4 * count)
    for (key, size), run in zip(descriptions, is_run):
        if run:
            lows = read_runs(u16, take)
        elif size <= 4096:
            lows = struct.unpack(f"<{size}H", take(2 * size))
            need(all(a < b for a, b in zip(lows, lows[1:])), "Body", "an array of a set does not ascend")
        else:
            lows = [8 * at + bit for at, byte in enumerate(take(8192)) for bit in range(8) if byte >> bit & 1]
            need(len(lows) == size, "Body", f"a bitmap of a set has {len(lows)} bits, {size} stated")
        numbers += [key << 16 | low for low in lows]
    need(at == len(data), "Body", f"{len(data) - at} bytes follow a set")
    if numbers:
        need(numbers[-1] < limit, "Field", f"a set holds {numbers[-1]}, the limit is {limit}")
    return numbers


def read_runs(u16, take):
    count = u16()
    need(count > 0, "Body", "a run container of a set has no run")
    lows, before = [], -2
    for first, more in struct.iter_unpack("<HH", take(4 * count)):
        need(first > before + 1 and first + more <= 65535, "Body", "the runs of a set overlap, touch or end too far")
        before = first + more
        lows += range(first, before + 1)
    return lows


def is_in_its_form(data, numbers):
    """Whether `data` is the one form in which a writer puts that set, by counting what each kind would take."""
    kinds, sizes, counts = [], [], []
    by_key = {}
    for number in numbers:
        by_key.setdefault(number >> 16, []).append(number & 0xFFFF)
    for lows in by_key.values():
        runs = 1 + sum(b != a + 1 for a, b in zip(lows, lows[1:]))
        plain = min(2 * len(lows), 8192)
        kinds.append(2 + 4 * runs < plain)
        sizes.append(min(2 + 4 * runs, plain))
        counts.append(len(lows))
    if any(kinds):
        flags = bytes(sum(run << bit for bit, run in enumerate(kinds[at : at + 8])) for at in range(0, len(kinds), 8))
        head = struct.pack("<HH", 12347, len(kinds) - 1) + flags
    else:
        head = struct.pack("<II", 12346, len(kinds))
    head += b"".join(struct.pack("<HH", key, count - 1) for key, count in zip(by_key, counts))
    if not any(kinds) or len(kinds) >= 4:
        starts = [len(head) + 4 * len(kinds) + sum(sizes[:n]) for n in range(len(sizes))]
        head += struct.pack(f"<{len(starts)}I", *starts)
    return data.startswith(head) and len(data) == len(head) + sum(sizes)


# Section 3


@dataclass
class StoreConfig:
    id: bytes
    block_size_log2: int
    zstd_level: int
    created_at_us: int
    prefix_frames: bool
    has_copy: bool


def read_store_config(data):
    body = open_whole_envelope(b"TGSTORE\n", data, known=PREFIX_FRAMES)
    masks = bool(body.refuse & PREFIX_FRAMES), bool(body.ignore & HAS_COPY)
    config = StoreConfig(body.take(16), body.u8(), body.i32(), body.i64(), *masks)
    body.end()
    need_field(-7 <= config.zstd_level <= 19, "zstd_level", config.zstd_level)
    read_block_size_log2(config.block_size_log2)
    return config


# Section 4


@dataclass
class SegmentHeader:
    store: bytes
    number: int
    block_size_log2: int
    ingest: bytes


def read_segment_header(data):
    body, _ = open_envelope(b"TGSEGMT\n", data)
    header = SegmentHeader(body.take(16), body.u32(), body.u8(), body.take(16))
    reserved = body.u32()
    body.end()
    read_block_size_log2(header.block_size_log2)
    need_field(reserved == 0, "reserved", reserved)
    return header


@dataclass
class Row:
    """A row of a table of contents, or what a record says of itself."""

    id: bytes
    offset: int
    stored_length: int
    codec: int
    bases: tuple = ()  # chunk ids

    def end(self):
        return self.offset + RECORD_HEADER_BYTES + self.stored_length


def check_lengths(codec, bases, stored_length, raw_length, block_bytes, prefix_frames):
    need_field(codec in (0, 1), "codec", codec)
    need_field(bases <= (BASES_MAX if prefix_frames and codec == 1 else 0), "bases", bases)
    need_field(raw_length == block_bytes, "raw_length", raw_length)
    fits = stored_length == raw_length if codec == 0 else 32 * bases < stored_length < raw_length
    need_field(fits, "stored_length", stored_length)


def split_bases(id, bases, data):
    """The ids at the start of `data` of the chunks that are the prefix of chunk `id`."""
    ids = tuple(data[32 * n : 32 * n + 32] for n in range(bases))
    need(id not in ids, "Field", "a chunk has itself as its base", "base")
    need(len(set(ids)) == len(ids), "Field", "a chunk has the same base twice", "base")
    return ids


def read_record(data, offset, block_bytes, prefix_frames=True):
    """Returns what the record at `offset` says of itself, and its frame, after checking its checksum."""
    header = data[offset : offset + RECORD_HEADER_BYTES]
    need(len(header) == RECORD_HEADER_BYTES, "Truncated", f"{len(header)} bytes hold no record header")
    magic, codec, bases, reserved, stored_length, raw_length, id, checksum = struct.unpack("<4sBBHII32sI", header)
    need(magic == b"TGRC", "BadMagic", f"no record, but {magic!r}")
    check_lengths(codec, bases, stored_length, raw_length, block_bytes, prefix_frames)
    need_field(reserved == 0, "reserved", reserved)
    row = Row(id, offset, stored_length, codec)
    payload = data[offset + RECORD_HEADER_BYTES : row.end()]
    need(len(payload) == stored_length, "Truncated", f"a payload has {len(payload)} bytes of {stored_length}")
    computed = zlib.crc32(header[:48] + payload)
    need(computed == checksum, "Checksum", f"a record's checksum is {checksum:#010x}, its bytes give {computed:#010x}")
    row.bases = split_bases(id, bases, payload)
    return row, payload[32 * bases :]


def unpack(row, frame, block_bytes, fetch=None):
    """Returns the chunk that a frame holds, after checking it against its id. `fetch` gives the bases' bytes by id."""
    bases = [fetch(base) for base in row.bases]
    chunk = frame if row.codec == 0 else decompress(frame, block_bytes, bases)
    need(b3(chunk) == row.id, "Hash", f"chunk {row.id.hex()} hashes to {b3(chunk).hex()}")
    return chunk


def decompress(payload, block_bytes, bases=()):
    prefix = b"".join(bases)
    need(prefix[:4] != DICTIONARY_MAGIC, "Field", "a first base begins as a dictionary does", "base")
    need(payload[:4] == bytes.fromhex("28b52ffd"), "Body", "a payload is no zstd frame")
    try:
        frame = zstandard.get_frame_parameters(payload)
        unknown = (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR)
        need(frame.content_size in (block_bytes, *unknown), "Body", f"a frame says it holds {frame.content_size} bytes")
        need(frame.dict_id == 0, "Body", "a frame wants a dictionary")
        plain = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        decompressor = zstandard.ZstdDecompressor(dict_data=plain)
        chunk = decompressor.decompress(payload, max_output_size=block_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damage("Body", f"a frame does not decode: {error}") from None
    need(len(chunk) == block_bytes, "Body", f"a frame holds {len(chunk)} bytes, not {block_bytes}")
    return chunk


def read_table(data, block_bytes, prefix_frames=True):
    """Checks the trailer of a sealed segment, and returns the rows of its table of contents."""
    need(len(data) >= TRAILER_BYTES, "Truncated", f"{len(data)} bytes hold no trailer")
    trailer = data[-TRAILER_BYTES:]
    magic, toc_offset, count, toc_hash, base_count, reserved, checksum = struct.unpack("<8sII32sI8sI", trailer)
    need(magic == b"TGSEALED", "BadMagic", f"no trailer, but {magic!r}")
    computed = zlib.crc32(trailer[:60])
    need(computed == checksum, "Checksum", f"the trailer's checksum is {checksum:#010x}, its bytes give {computed:#010x}")
    need_field(reserved == bytes(8), "reserved", reserved.hex())
    need_field(count <= 65536, "rows", count)
    need_field(base_count <= BASES_MAX * count, "base_ids", base_count)
    end = toc_offset + count * ROW_BYTES + 32 * base_count + TRAILER_BYTES
    fills = toc_offset >= DATA_START and end == len(data)
    need_field(fills, "toc_offset", toc_offset)
    table = data[toc_offset:-TRAILER_BYTES]
    need(b3(table) == toc_hash, "Hash", "the table of contents does not have the hash the trailer states")
    rows, expected, base_ids = [], DATA_START, table[count * ROW_BYTES :]
    for raw in struct.iter_unpack("<32sIIIBBH", table[: count * ROW_BYTES]):
        id, offset, stored_length, raw_length, codec, bases, reserved = raw
        check_lengths(codec, bases, stored_length, raw_length, block_bytes, prefix_frames)
        need_field(reserved == 0, "reserved", reserved)
        need_field(offset == expected, "offset", offset)
        need_field(32 * bases <= len(base_ids), "base_ids", base_count)
        rows.append(Row(id, offset, stored_length, codec, split_bases(id, bases, base_ids)))
        base_ids = base_ids[32 * bases :]
        expected = rows[-1].end()
    need_field(expected == toc_offset, "toc_offset", toc_offset)
    need_field(not base_ids, "base_ids", base_count)
    return rows


def valid_prefix(data, block_bytes, prefix_frames=True):
    """The whole records of an unsealed segment, and where they end (4.5)."""
    rows, offset = [], DATA_START
    while True:
        try:
            row, _ = read_record(data, offset, block_bytes, prefix_frames)
        except Damage:
            return rows, offset
        rows.append(row)
        offset = row.end()


# Section 5


@dataclass
class RunRow:
    id: bytes
    segment: int
    slot: int
    offset: int
    stored_length: int
    bases: int


def read_run(data):
    """Checks a whole run; returns the segments it names, and its rows."""
    body, start = open_envelope(b"TGINDEX\n", data)
    count, segments_length, segments_crc = body.u64(), body.u32(), body.u32()
    filter_blocks, filter_crc, rows_crc = body.u32(), body.u32(), body.u32()
    body.end()
    filter_start = start + segments_length
    rows_start = filter_start + 32 * filter_blocks
    end = rows_start + ROW_BYTES * count
    need(end == len(data), "Truncated", f"{len(data)} bytes, {end} stated")
    need_field(filter_blocks >= 1, "filter_blocks", filter_blocks)
    parts = {
        "list of segments": (data[start:filter_start], segments_crc),
        "filter": (data[filter_start:rows_start], filter_crc),
        "rows": (data[rows_start:], rows_crc),
    }
    for name, (part, checksum) in parts.items():
        need(zlib.crc32(part) == checksum, "Checksum", f"the {name} of a run does not have the checksum stated")
    segments = set(read_set(data[start:filter_start], 1 << 32))
    words = struct.unpack(f"<{8 * filter_blocks}I", data[filter_start:rows_start])
    rows, before = [], None
    for id, segment, offset, stored_length, slot, bases, reserved in struct.iter_unpack("<32sIIIHBB", data[rows_start:]):
        order = (id, segment, slot)
        need(before is None or before < order, "Field", "the rows of a run do not ascend", "row")
        need(segment in segments, "Field", f"a row is in segment {segment}, which the run does not name", "row")
        need_field(reserved == 0, "reserved", reserved)
        need_field(bases <= BASES_MAX, "bases", bases)
        need(passes(words, filter_blocks, id), "Field", f"the filter does not know {id.hex()}", "filter")
        rows.append(RunRow(id, segment, slot, offset, stored_length, bases))
        before = order
    return segments, rows


def passes(words, blocks, id):
    block = int.from_bytes(id[8:16], "little") * blocks >> 64
    return all(words[8 * block + word] >> (id[16 + word] & 31) & 1 for word in range(8))


# Sections 5.4 and 5.5: sketches


def sketch(chunk):
    """Returns the features of a whole block, ascending."""
    gear = struct.unpack("<256Q", blake3(b"tegula gear 1").digest(length=2048))
    shift = 64 - (len(chunk).bit_length() - 6)
    rolled, features = 0, set()
    for byte in chunk:
        rolled = (rolled << 1) + gear[byte] & 0xFFFFFFFFFFFFFFFF
        if not rolled >> shift:
            features.add((rolled * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32)
    return sorted(features)[:64]


def read_sketch_run(data):
    """Checks a whole sketch run; returns its rows, each a feature and the head of a chunk's id."""
    body, start = open_envelope(b"TGSKETCH", data)
    count, rows_crc = body.u64(), body.u32()
    body.end()
    end = start + 12 * count
    need(end == len(data), "Truncated", f"{len(data)} bytes, {end} stated")
    need(zlib.crc32(data[start:]) == rows_crc, "Checksum", "the rows of a sketch run do not have the checksum stated")
    rows = list(struct.iter_unpack("<I8s", data[start:]))
    for before, row in zip(rows, rows[1:]):
        need_field(before < row, "row", row[0])
    return rows


# Section 6


@dataclass
class Layer:
    id: bytes
    ingest: bytes
    block_size_log2: int
    virtual_size: int
    parent: bytes | None
    depth: int
    data: dict  # block -> chunk id
    zero: set
    differs: bool  # whether its writer says that no block is as in the layers below
    stray_forms: list = field(default_factory=list)  # sets that are not in their one form

    def blocks(self):
        return blocks_in(self.virtual_size, self.block_size_log2)


def read_layer(data):
    body, start = open_envelope(b"TGLAYER\n", data)
    ingest, block_size_log2, virtual_size = body.take(16), body.u8(), body.u64()
    parent, depth = body.option(lambda: body.take(32)), body.u32()
    data_blocks, zero_blocks = body.u64(), body.u64()
    data_length, data_hash = body.u64(), body.take(32)
    zero_length, zero_hash = body.u64(), body.take(32)
    pages_hash, ids_hash = body.take(32), body.take(32)
    body.end()
    read_block_size_log2(block_size_log2)
    check_virtual_size(virtual_size, block_size_log2)
    blocks = blocks_in(virtual_size, block_size_log2)
    need_field(data_blocks <= blocks, "data_blocks", data_blocks)
    need_field(zero_blocks <= (blocks - data_blocks if parent else 0), "zero_blocks", zero_blocks)
    need_field(2 <= depth <= DEPTH_MAX if parent else depth == 1, "depth", depth)
    ids_length = 32 * data_blocks
    pages = -(-ids_length // PAGE_BYTES)
    ends = [start + data_length]
    for length in (zero_length, 4 * pages, ids_length):
        ends.append(ends[-1] + length)
    need(ends[-1] == len(data), "Truncated", f"{len(data)} bytes, {ends[-1]} stated")
    data_set, zero_set = data[start : ends[0]], data[ends[0] : ends[1]]
    page_checksums, ids = data[ends[1] : ends[2]], data[ends[2] :]
    numbers = []
    for name, part, stated, count in (("data", data_set, data_hash, data_blocks), ("zero", zero_set, zero_hash, zero_blocks)):
        need(b3(part) == stated, "Hash", f"the {name} set of a layer does not have the hash stated")
        numbers.append(read_set(part, blocks))
        need(len(numbers[-1]) == count, "Field", f"the {name} set of a layer has {len(numbers[-1])} blocks, {count} stated")
    need(not set(numbers[0]) & set(numbers[1]), "Field", "a layer sets and zeroes the same block")
    need(b3(page_checksums) == pages_hash, "Hash", "the page checksums of a layer do not have the hash stated")
    for page, (stated,) in enumerate(struct.iter_unpack("<I", page_checksums)):
        computed = zlib.crc32(ids[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])
        need(computed == stated, "Checksum", f"page {page} of the ids: {stated:#010x} stated, its bytes give {computed:#010x}")
    need(b3(ids) == ids_hash, "Hash", "the ids of a layer do not have the hash stated")
    forms = zip(("data", "zero"), (data_set, zero_set), numbers)
    return Layer(
        id=blake3(data[:start], derive_key_context=LAYER_ID_CONTEXT).digest(),
        ingest=ingest,
        block_size_log2=block_size_log2,
        virtual_size=virtual_size,
        parent=parent,
        depth=depth,
        data={block: ids[32 * n : 32 * n + 32] for n, block in enumerate(numbers[0])},
        zero=set(numbers[1]),
        differs=body.ignore & LAYER_DIFFERS != 0,
        stray_forms=[name for name, part, found in forms if not is_in_its_form(part, found)],
    )


def resolve(stack, block):
    """The chunk id of a block of the image whose stack is given, newest first, or None if it reads as zeros (6.2)."""
    for layer in stack:
        if block >= layer.blocks() or block in layer.zero:
            return None
        if block in layer.data:
            return layer.data[block]
    return None


# Section 7

# Rule 3 of 7.1. Tab, line feed and the like are excluded by rule 1 already.
WHITE_SPACE = {0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000}


def is_excluded(code):
    return (
        code == 0x2F
        or code <= 0x1F
        or 0x7F <= code <= 0x9F
        or 0x200B <= code <= 0x200F
        or 0x2028 <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or code == 0xFEFF
    )


def broken_name_rule(name):
    """Returns the name of the rule that an image name breaks, or None."""
    if not name:
        return "Empty"
    if len(name.encode("utf-8", "surrogatepass")) > 200:
        return "TooLong"
    if any(is_excluded(ord(character)) for character in name):
        return "Character"
    if name[0] in ".-" or ord(name[0]) in WHITE_SPACE or ord(name[-1]) in WHITE_SPACE:
        return "Edge"
    return None


@dataclass
class ImageRecord:
    id: bytes
    name: str
    virtual_size: int
    block_size_log2: int
    digest: bytes
    layer: bytes
    parent: tuple | None  # name, digest
    supersedes: bytes | None
    data_blocks: int
    created_at_us: int


def read_image_record(data):
    body = open_whole_envelope(b"TGIMAGE\n", data)
    record = ImageRecord(
        id=body.take(16),
        name=body.text(),
        virtual_size=body.u64(),
        block_size_log2=body.u8(),
        digest=body.take(32),
        layer=body.take(32),
        parent=body.option(lambda: (body.text(), body.take(32))),
        supersedes=body.option(lambda: body.take(16)),
        data_blocks=body.u64(),
        created_at_us=body.i64(),
    )
    body.end()
    read_block_size_log2(record.block_size_log2)
    check_virtual_size(record.virtual_size, record.block_size_log2)
    need_field(record.data_blocks <= blocks_in(record.virtual_size, record.block_size_log2), "data_blocks", record.data_blocks)
    for name in (record.name, record.parent and record.parent[0]):
        rule = None if name is None else broken_name_rule(name)
        need(rule is None, "Body", f"{name!r} is no image name: {rule}")
    return record


# Section 8


def image_digest(virtual_size, block_size_log2, ids):
    """`ids` gives, for every block in order, its chunk id or None if it reads as zeros."""
    root = blake3(derive_key_context=ROOT_CONTEXT)
    root.update(struct.pack("<QI", virtual_size, 1 << block_size_log2))
    group = []
    for id in ids:
        group.append(id or NO_ID)
        if len(group) == 1024:
            root.update(blake3(b"".join(group), derive_key_context=GROUP_CONTEXT).digest())
            group = []
    if group:
        root.update(blake3(b"".join(group), derive_key_context=GROUP_CONTEXT).digest())
    return root.digest()


# Sections 9 and 10


@dataclass
class CollectionState:
    epoch: int
    segment_floor: int
    condemned_segments: list
    condemned_layers: list


def ascends(items):
    return all(a < b for a, b in zip(items, items[1:]))


def read_collection_state(data):
    body = open_whole_envelope(b"TGCOLLE\n", data)
    state = CollectionState(body.u64(), body.u32(), body.list(4, body.u32), body.list(32, lambda: body.take(32)))
    body.end()
    need(ascends(state.condemned_segments) and ascends(state.condemned_layers), "Body", "a list does not ascend")
    return state


def read_quarantine(data):
    """Returns the places as (segment, slot)."""
    body = open_whole_envelope(b"TGQUARA\n", data)
    ordinals = body.list(8, body.u64)
    body.end()
    need(all(ordinal < 1 << 48 for ordinal in ordinals) and ascends(ordinals), "Body", "the places do not ascend, or end too far")
    return [(ordinal >> 16, ordinal & 0xFFFF) for ordinal in ordinals]


# Section 11

SEGMENT_FILE = re.compile(r"^([0-9a-f]{8})\.seg$")
OPEN_FILE = re.compile(r"^([0-9a-f]{8})\.open$")
RUN_FILE = re.compile(r"^[0-9a-f]{32}\.run$")
SKETCH_FILE = re.compile(r"^[0-9a-f]{32}\.sketches$")
LAYER_FILE = re.compile(r"^([0-9a-f]{64})\.layer$")
RANDOM_FILE = re.compile(r"^[0-9a-f]{32}$")
LOCK_FILE = re.compile(r"^(epoch-(0|[1-9][0-9]*)|ingest-[0-9a-f]{32}|commit|gc|index)$")
DIRECTORIES = ("segments", "layers", "images", "index", "quarantine", "tmp", "locks")
NEEDED_DIRECTORIES = DIRECTORIES[:3]


class Store:
    """The files of one store. Everything is read when it is asked for, and nothing is kept but places."""

    def __init__(self, path):
        self.path = Path(path)
        self.config = read_store_config(self.read("tegula.store"))
        self.block_bytes = 1 << self.config.block_size_log2
        self.rules = self.block_bytes, self.config.prefix_frames
        for name in NEEDED_DIRECTORIES:
            need((self.path / name).is_dir(), "Missing", f"the store has no directory {name}")

    def read(self, name):
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise Damage("Missing", f"there is no {name}") from None

    def names(self, directory):
        path = self.path / directory
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def matching(self, directory, pattern):
        return [(name, match) for name in self.names(directory) if (match := pattern.match(name))]

    def state(self):
        return read_collection_state(self.read("gc.state"))

    def condemned_segments(self):
        """None of them if the collection state is damaged: that must not keep anyone from saving what there is."""
        try:
            return self.state().condemned_segments
        except Damage:
            return []

    def quarantine(self):
        if not (self.path / "quarantine/places").exists():
            return set()
        return set(read_quarantine(self.read("quarantine/places")))

    def record(self, file_name):
        record = read_image_record(self.read(f"images/{file_name}"))
        need(f"{record.name}.image" == file_name, "Field", f"the record names the image {record.name!r}", "name")
        need_field(record.block_size_log2 == self.config.block_size_log2, "block_size_log2", record.block_size_log2)
        return record

    def record_files(self):
        return [name for name in self.names("images") if name.endswith(".image")]

    def images(self):
        """The records of the images there are, by name; those superseded are left out (7.2)."""
        records = [self.record(name) for name in self.record_files()]
        return {record.name: record for record in without_superseded(records)}

    def layer(self, id):
        layer = read_layer(self.read(f"layers/{id.hex()}.layer"))
        need(layer.id == id, "Hash", f"the file of layer {id.hex()} holds layer {layer.id.hex()}")
        need_field(layer.block_size_log2 == self.config.block_size_log2, "block_size_log2", layer.block_size_log2)
        return layer

    def stack(self, record):
        """The layers of an image, newest first."""
        layers = self.layers_from(record.layer)
        need_field(layers[0].virtual_size == record.virtual_size, "virtual_size", layers[0].virtual_size)
        return layers

    def layers_from(self, id):
        """A layer and all below it, newest first."""
        layers = [self.layer(id)]
        while layers[-1].parent:
            child = layers[-1]
            layers.append(self.layer(child.parent))
            need_field(layers[-1].depth == child.depth - 1, "depth", layers[-1].depth)
        return layers

    def ids(self, record):
        """The chunk id of every block of an image, None for one that reads as zeros, checked against the digest."""
        stack = self.stack(record)
        ids = [resolve(stack, block) for block in range(stack[0].blocks())]
        digest = image_digest(record.virtual_size, record.block_size_log2, ids)
        need(digest == record.digest, "Hash", f"the image has the digest {digest.hex()}, its record states {record.digest.hex()}")
        data_blocks = sum(id is not None for id in ids)
        need_field(record.data_blocks == data_blocks, "data_blocks", record.data_blocks)
        return ids

    def segment(self, number):
        """The bytes of a sealed segment and the rows of its table of contents."""
        data = self.read(f"segments/{number:08x}.seg")
        header = read_segment_header(data)
        need(header.store == self.config.id, "Field", f"the segment is of store {header.store.hex()}", "store")
        need_field(header.number == number, "number", header.number)
        need_field(header.block_size_log2 == self.config.block_size_log2, "block_size_log2", header.block_size_log2)
        return data, read_table(data, *self.rules)

    def segment_numbers(self):
        return [int(match[1], 16) for _, match in self.matching("segments", SEGMENT_FILE)]

    def chunk(self, data, row, data_start=0, fetch=None):
        """The chunk of a row, after every check there is. `data` are the segment's bytes from `data_start` on."""
        found, frame = read_record(data, row.offset - data_start, *self.rules)
        found.offset += data_start
        need(found == row, "Field", f"the record at {row.offset:#x} is not what the table of contents says", "offset")
        return unpack(row, frame, self.block_bytes, fetch)

    def chunk_at(self, number, row, fetch=None):
        """Reads one chunk from its segment's file."""
        with open(self.path / f"segments/{number:08x}.seg", "rb") as file:
            file.seek(row.offset)
            return self.chunk(file.read(row.end() - row.offset), row, row.offset, fetch)

    def places(self):
        """Chunk id -> segment and row, of every place not in quarantine, those in condemned segments last (12.3).

        Segments that cannot be read have none.
        """
        places, quarantine, condemned = {}, self.quarantine(), self.condemned_segments()
        for number in sorted(self.segment_numbers(), key=lambda number: (number in condemned, number)):
            try:
                _, rows = self.segment(number)
            except Damage as damage:
                print(f"segment {number:08x}: {damage}", file=sys.stderr)
                continue
            for slot, row in enumerate(rows):
                if (number, slot) not in quarantine:
                    places.setdefault(row.id, []).append((number, row))
        return places

    @contextmanager
    def session(self):
        """Holds what is read against collection (13.2). If that cannot be, the store is read without, and it is said."""
        lock = None
        try:
            while lock is None:
                epoch = self.state().epoch
                lock = take_shared(self.path / "locks" / f"epoch-{epoch}")
                if self.state().epoch != epoch:
                    os.close(lock)
                    lock = None
        except (OSError, Damage) as error:
            print(f"reading without a session, which is safe only if nobody writes: {error}", file=sys.stderr)
        try:
            yield self
        finally:
            if lock is not None:
                os.close(lock)


def take_shared(path):
    """Takes a shared lock on the file of that name, as it is when the lock is held (13.1)."""
    while True:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(handle, fcntl.LOCK_SH)
        held = os.fstat(handle)
        try:
            named = os.stat(path)
        except FileNotFoundError:
            named = None
        if named and (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino):
            return handle
        os.close(handle)


def without_superseded(records):
    gone = {record.supersedes for record in records if record.supersedes not in (None, record.id)}
    return [record for record in records if record.id not in gone]


# What the program does


def list_images(store):
    images = []
    for record in store.images().values():
        shown = {
            "name": record.name,
            "virtual_size": record.virtual_size,
            "block_size": 1 << record.block_size_log2,
            "data_blocks": record.data_blocks,
            "digest": record.digest.hex(),
            "layer": record.layer.hex(),
            "record": record.id.hex(),
            "created_at_us": record.created_at_us,
            "parent": record.parent and {"name": record.parent[0], "digest": record.parent[1].hex()},
        }
        images.append(shown)
    return sorted(images, key=lambda image: image["name"].encode())


def extract(store, name, out):
    """Writes an image to `out`; blocks of zeros become holes. `out` appears only if all of it is right."""
    record = store.images().get(name)
    if record is None:
        raise Damage("Missing", f"there is no image {name!r}")
    ids, places = store.ids(record), store.places()
    out = Path(out)
    handle, unfinished = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.truncate(record.virtual_size)
            for block, id in enumerate(ids):
                if id is not None:
                    start = block * store.block_bytes
                    file.seek(start)
                    file.write(find_chunk(store, places, id)[: record.virtual_size - start])
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, out)
    except BaseException:
        os.unlink(unfinished)
        raise


class BaseDamage(Damage):
    """A chunk cannot be decoded because one that it stands on cannot be had."""


def find_base(store, places, id, depth=1):
    try:
        return find_chunk(store, places, id, depth)
    except Damage as damage:
        raise BaseDamage(damage.error, f"its base cannot be had: {damage}", damage.field) from None


def find_chunk(store, places, id, depth=0):
    """Reads a chunk from the first place that has it whole; `depth` is how many chunks this one is the base of (4.2)."""
    need(depth <= BASE_DEPTH_MAX, "Field", f"chunk {id.hex()} is a base too deep down", "bases")
    last = Damage("Missing", f"chunk {id.hex()} is nowhere")
    for number, row in sorted(places.get(id, []), key=lambda place: len(place[1].bases)):
        try:
            return store.chunk_at(number, row, lambda base: find_base(store, places, base, depth + 1))
        except Damage as damage:
            last = damage
    raise last


@dataclass
class Finding:
    """`level` is "damage" for what must not be, "note" for what may be and is worth knowing."""

    level: str
    file: str
    error: str | None
    message: str


class Verifier:
    """Checks a whole store: structure, checksums, hashes, every chunk, every image."""

    def __init__(self, store):
        self.store = store
        self.findings = []
        self.layers = 0
        self.indexed = set()
        self.rows = {}  # segment -> rows
        self.sound = {}  # chunk id -> segment -> row, of every whole copy outside quarantine
        self.images = []
        self.zero_id = b3(bytes(store.block_bytes))

    def damage(self, file, damage):
        self.findings.append(Finding("damage", file, damage.error, str(damage)))

    def note(self, file, message):
        self.findings.append(Finding("note", file, None, message))

    def run(self):
        self.state = self.try_to("gc.state", self.store.state)
        self.quarantine = self.try_to("quarantine/places", self.store.quarantine) or set()
        self.check_names()
        self.try_to("tegula.store.copy", self.check_config_copy)
        with redirect_stderr(io.StringIO()):  # what is damaged is said below
            self.places = self.try_to("quarantine/places", self.store.places) or {}
        for number in self.store.segment_numbers():
            self.check_segment(number)
        for name, _ in self.store.matching("segments", OPEN_FILE):
            self.try_to(f"segments/{name}", self.look_at_unsealed, name)
        for name, _ in self.store.matching("index", RUN_FILE):
            self.try_to(f"index/{name}", self.check_run, name)
        for name, _ in self.store.matching("index", SKETCH_FILE):
            try:
                read_sketch_run(self.store.read(f"index/{name}"))
            except Damage as damage:  # advice that is wrong is no damage
                self.note(f"index/{name}", str(damage))
        for number in sorted(self.rows.keys() - self.indexed):
            self.note(f"segments/{number:08x}.seg", "is named by no index run")
        for name, match in self.store.matching("layers", LAYER_FILE):
            self.try_to(f"layers/{name}", self.check_layer, bytes.fromhex(match[1]))
        self.check_images()
        return self

    def try_to(self, file, act, *arguments):
        try:
            return act(*arguments)
        except Damage as damage:
            self.damage(file, damage)
            return None

    def check_config_copy(self):
        if "tegula.store.copy" in self.store.names(".") or self.store.config.has_copy:
            copy = read_store_config(self.store.read("tegula.store.copy"))
            need(copy == self.store.config, "Field", "it does not say what tegula.store says", "copy")

    def check_names(self):
        known = {
            "segments": [SEGMENT_FILE, OPEN_FILE], "layers": [LAYER_FILE], "images": [re.compile(r"\.image$")],
            "index": [RUN_FILE, SKETCH_FILE], "tmp": [RANDOM_FILE], "locks": [LOCK_FILE],
        }
        for name in self.store.names("."):
            if name not in ("tegula.store", "tegula.store.copy", "gc.state", *DIRECTORIES):
                self.note(name, "no file of a store has this name")
        for directory in DIRECTORIES:
            for name in self.store.names(directory):
                if directory == "quarantine" and name != "places":
                    self.note(f"quarantine/{name}", "was moved aside by repair")
                elif directory in known and not any(pattern.search(name) for pattern in known[directory]):
                    self.note(f"{directory}/{name}", "no file of a store has this name")
                elif directory == "tmp":
                    self.note(f"tmp/{name}", "is being written, or was abandoned")

    def check_segment(self, number):
        file = f"segments/{number:08x}.seg"
        segment = self.try_to(file, self.store.segment, number)
        if segment is None:
            return
        data, rows = segment
        self.rows[number] = rows
        for slot, row in enumerate(rows):
            try:
                self.store.chunk(data, row, fetch=self.base)
                need(row.id != self.zero_id, "Field", f"slot {slot} holds the chunk of all zeros", "id")
            except BaseDamage as damage:
                self.note(file, f"slot {slot} is of use to no image: {damage}")
                continue
            except Damage as damage:
                if (number, slot) in self.quarantine:
                    self.note(file, f"slot {slot}, in quarantine: {damage}")
                else:
                    self.damage(file, Damage(damage.error, f"slot {slot} at {row.offset:#x}: {damage}"))
                continue
            if (number, slot) not in self.quarantine:
                self.sound.setdefault(row.id, {})[number] = row

    def base(self, id):
        return find_base(self.store, self.places, id)

    def look_at_unsealed(self, name):
        data = self.store.read(f"segments/{name}")
        try:
            read_segment_header(data)
        except Damage as damage:
            self.note(f"segments/{name}", f"is being written, or was abandoned; it has no header: {damage}")
            return
        rows, end = valid_prefix(data, *self.store.rules)
        self.note(f"segments/{name}", f"is being written, or was abandoned; {len(rows)} whole records, up to {end:#x}")

    def check_run(self, name):
        segments, rows = read_run(self.store.read(f"index/{name}"))
        listed = set()
        for row in rows:
            if row.segment not in self.rows:
                continue
            table = self.rows[row.segment]
            need(row.slot < len(table), "Field", f"segment {row.segment:08x} has no slot {row.slot}", "slot")
            found = table[row.slot]
            stated = (row.id, row.offset, row.stored_length, row.bases)
            agree = stated == (found.id, found.offset, found.stored_length, len(found.bases))
            need(agree, "Field", f"segment {row.segment:08x} has another chunk in slot {row.slot}", "row")
            listed.add((row.segment, row.slot))
        for segment in segments & self.rows.keys():
            slots = {(segment, slot) for slot in range(len(self.rows[segment]))}
            lacking = slots - listed - self.quarantine
            need(not lacking, "Field", f"names segment {segment:08x}, but lacks {len(lacking)} of its rows", "rows")
        gone = sorted(segments - set(self.store.segment_numbers()))
        if gone:
            self.note(f"index/{name}", "names segments that are gone: " + ", ".join(f"{n:08x}" for n in gone))
        self.indexed |= segments

    def check_layer(self, id):
        layer = self.store.layer(id)
        self.layers += 1
        need(self.zero_id not in layer.data.values(), "Field", "sets a block to the chunk of all zeros", "ids")
        for name in layer.stray_forms:
            raise Damage("Body", f"its {name} set is not written in its one form")
        if layer.differs and layer.parent:
            below = self.store.layers_from(layer.parent)
            said = layer.data | dict.fromkeys(layer.zero)
            same = [block for block, id in said.items() if resolve(below, block) == id]
            need(not same, "Field", f"says that it differs, but {len(same)} blocks are as below", "ignore")

    def check_images(self):
        records = []
        for name in self.store.record_files():
            record = self.try_to(f"images/{name}", self.store.record, name)
            if record:
                records.append(record)
        living = without_superseded(records)
        for record in records:
            if record not in living:
                self.note(f"images/{record.name}.image", "is superseded: a rename was not tidied up")
        for record in living:
            before = len(self.findings)
            self.check_image(record)
            self.images.append({"name": record.name, "digest": record.digest.hex(), "whole": len(self.findings) == before})

    def check_image(self, record):
        file = f"images/{record.name}.image"
        ids = self.try_to(file, self.store.ids, record)
        if ids is None:
            return
        lost = [block for block, id in enumerate(ids) if id and id not in self.sound]
        if lost:
            first = f"the first is block {lost[0]}, chunk {ids[lost[0]].hex()}"
            self.damage(file, Damage("Missing", f"{len(lost)} blocks have no whole chunk; {first}"))
        if self.state:
            condemned = set(self.state.condemned_segments)
            leaving = [id for id in ids if id in self.sound and not self.stays(id, condemned)]
            if leaving:
                self.damage(file, Damage("Field", f"{len(leaving)} blocks stand only in condemned segments"))
            if set(self.state.condemned_layers) & {layer.id for layer in self.store.stack(record)}:
                self.damage(file, Damage("Field", "needs a condemned layer"))
        short = record.virtual_size % self.store.block_bytes
        if short and ids[-1] in self.sound:
            number, row = next(iter(self.sound[ids[-1]].items()))
            if any(self.store.chunk_at(number, row, self.base)[short:]):
                self.damage(file, Damage("Field", "the last block goes on after the end of the image"))

    def stays(self, id, condemned, depth=0):
        """Whether a chunk, and all it stands on, is somewhere outside the condemned segments."""
        rows = [row for number, row in self.sound.get(id, {}).items() if number not in condemned]
        deeper = depth < BASE_DEPTH_MAX
        return any(all(deeper and self.stays(base, condemned, depth + 1) for base in row.bases) for row in rows)

    def report(self):
        damages = [finding for finding in self.findings if finding.level == "damage"]
        return {
            "store": self.store.config.id.hex(),
            "sound": not damages,
            "images": sorted(self.images, key=lambda image: image["name"].encode()),
            "segments": len(self.rows),
            "layers": self.layers,
            "chunks": len(self.sound),
            "findings": [asdict(finding) for finding in self.findings],
        }


def show_list(images):
    for image in images:
        parent = f"  from {image['parent']['name']}" if image["parent"] else ""
        print(f"{image['digest']}  {image['virtual_size']:>16}  {image['name']}{parent}")


def show_report(report):
    for finding in report["findings"]:
        print(f"{finding['level']}: {finding['file']}: {finding['message']}")
    for image in report["images"]:
        print(f"{'whole' if image['whole'] else 'DAMAGED'}  {image['digest']}  {image['name']}")
    counts = f"{report['segments']} segments, {report['chunks']} chunks, {report['layers']} layers"
    print(f"store {report['store']}: {'sound' if report['sound'] else 'DAMAGED'}; {counts}")


def main():
    parser = argparse.ArgumentParser(description="Reads Tegula stores, independently of the engine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in (("list", "show the images"), ("extract", "write an image to a file"), ("verify", "check everything")):
        command = commands.add_parser(name, help=help)
        command.add_argument("store")
        if name == "extract":
            command.add_argument("image")
            command.add_argument("out")
        else:
            command.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        with Store(asked.store).session() as store:
            return act(asked, store)
    except Damage as damage:
        print(f"{asked.store}: {damage}", file=sys.stderr)
        return 1


def act(asked, store):
    if asked.command == "extract":
        extract(store, asked.image, asked.out)
        return 0
    if asked.command == "list":
        images = list_images(store)
        if asked.json:
            print(json.dumps({"store": store.config.id.hex(), "images": images}, indent=1))
        else:
            show_list(images)
        return 0
    report = Verifier(store).run().report()
    if asked.json:
        print(json.dumps(report, indent=1))
    else:
        show_report(report)
    return 0 if report["sound"] else 1


if __name__ == "__main__":
    sys.exit(main())
