#!/usr/bin/env python3
"""Reads delta streams: a second implementation, written from SPEC.md section 15 alone.

Usage:
    delta_reader.py show DELTA [--json]
    delta_reader.py apply DELTA BASE OUT      make OUT, a new raw disk, of BASE, a raw disk (- if the delta has no base)

Slow and plain on purpose, as tegula_reader.py is, whose parts it uses. It holds whole files in memory and never changes one.

Exit status: 0 all is well, 1 something is damaged, not there or does not fit, 2 wrong usage.
"""

import argparse
import json
import os
import struct
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import tegula_reader as reader
from tegula_reader import Damage, b3, need, need_field

TRAILER_BYTES = 60
SET_BYTES_MAX = 4 + 8192 + 65536 * (4 + 4 + 8192)
RECORDS_PER_BLOCK_MAX = 64
RECORDS_BY_NAME = 1


@dataclass
class Delta:
    block_size_log2: int
    base: tuple | None  # virtual size and digest
    virtual_size: int
    digest: bytes
    data: dict  # block: chunk id
    zero: set
    records: list  # rows and payloads, in the order of the stream
    record_bytes: int

    @property
    def block_bytes(self):
        return 1 << self.block_size_log2

    @property
    def blocks(self):
        return reader.blocks_in(self.virtual_size, self.block_size_log2)


def read_delta(data):
    """Sections 15.2 to 15.5."""
    body, at = reader.open_envelope(b"TGDELTA\n", data, RECORDS_BY_NAME)
    log2 = body.u8()
    base = body.option(lambda: (body.u64(), body.take(32)))
    virtual_size, digest = body.u64(), body.take(32)
    data_blocks, zero_blocks = body.u64(), body.u64()
    data_length, data_hash = body.u64(), body.take(32)
    zero_length, zero_hash = body.u64(), body.take(32)
    ids_hash = body.take(32)
    body.end()
    reader.read_block_size_log2(log2)
    if base:
        reader.check_virtual_size(base[0], log2)
    reader.check_virtual_size(virtual_size, log2)
    blocks = reader.blocks_in(virtual_size, log2)
    base_blocks = reader.blocks_in(base[0], log2) if base else 0
    need_field(data_blocks <= blocks, "data_blocks", data_blocks)
    need_field(zero_blocks <= min(base_blocks, blocks - data_blocks), "zero_blocks", zero_blocks)
    need_field(data_length <= SET_BYTES_MAX, "data_length", data_length)
    need_field(zero_length <= SET_BYTES_MAX, "zero_length", zero_length)

    def part(length):
        nonlocal at
        need(length <= len(data) - at, "Truncated", f"{length} bytes needed at {at:#x}, {len(data) - at} are left")
        at += length
        return data[at - length : at]

    parts = part(data_length), part(zero_length), part(32 * data_blocks)
    need(len(data) - at >= TRAILER_BYTES, "Truncated", "there is no room for a trailer")
    for bytes, hash, name in zip(parts, (data_hash, zero_hash, ids_hash), ("data set", "zero set", "ids")):
        need(b3(bytes) == hash, "Hash", f"the {name} has another hash")
    data_set = reader.read_set(parts[0], blocks)
    need_field(len(data_set) == data_blocks, "data_blocks", data_blocks)
    zero = set(reader.read_set(parts[1], min(base_blocks, blocks)))
    need_field(len(zero) == zero_blocks, "zero_blocks", zero_blocks)
    need(zero.isdisjoint(data_set), "Field", "a block is both set and zeroed", "zero set")
    ids = [parts[2][n : n + 32] for n in range(0, len(parts[2]), 32)]
    need_field(b3(bytes_of_zeros(log2)) not in ids, "ids", "that of the chunk of zeros")

    end = len(data) - TRAILER_BYTES
    magic, count, record_bytes, hash, checksum = struct.unpack("<8sQQ32sI", data[end:])
    need(magic == b"TGDELEND", "BadMagic", f"no trailer, but {magic!r}")
    computed = zlib.crc32(data[end : end + 56])
    need(computed == checksum, "Checksum", f"the trailer's checksum is {checksum:#010x}, its bytes give {computed:#010x}")
    need_field(record_bytes == end - at, "record_bytes", record_bytes)
    need_field(count <= RECORDS_PER_BLOCK_MAX * data_blocks, "records", count)
    records, hashed = [], data[:at]
    while at < end:
        row, payload = reader.read_record(data[:end], at, 1 << log2)
        records.append((row, payload))
        named = row.id + struct.pack("<I", row.end() - at)
        hashed += named if body.refuse & RECORDS_BY_NAME else data[at : row.end()]
        at = row.end()
    need_field(count == len(records), "records", count)
    need(b3(hashed + data[end : end + 24]) == hash, "Hash", "everything before has another hash")
    return Delta(log2, base, virtual_size, digest, dict(zip(data_set, ids)), zero, records, record_bytes)


def read_journal(data):
    """Section 15.7. A journal without a whole seal is `Truncated`: nothing was changed."""
    body, at = reader.open_envelope(b"TGJOURN\n", data)
    delta, disk, log2 = body.take(32), [body.u64(), body.u64()], body.u8()
    count, saved_count = body.u64(), body.u64()
    body.end()
    reader.read_block_size_log2(log2)
    need_field(count <= 1 << 32, "rows", count)
    need_field(saved_count <= count, "saved", saved_count)
    saved_start = at + 40 * count
    seal_start = saved_start + (saved_count << log2)
    need(len(data) >= seal_start + 44, "Truncated", "there is no seal")
    rows = []
    for start in range(at, saved_start, 40):
        id, kind, number = struct.unpack_from("<32sII", data, start)
        need_field(kind <= 1, "kind", kind)
        need_field(kind == 0 or number < saved_count, "number", number)
        rows.append({"id": id.hex(), "kind": kind, "number": number})
    saved = [data[start : start + (1 << log2)] for start in range(saved_start, seal_start, 1 << log2)]
    magic, hash, checksum = struct.unpack_from("<8s32sI", data, seal_start)
    need(magic == b"TGJSEALD", "BadMagic", f"no seal, but {magic!r}")
    need(zlib.crc32(data[seal_start : seal_start + 40]) == checksum, "Checksum", "the seal has another checksum")
    need(b3(data[:seal_start]) == hash, "Hash", "what is before the seal has another hash")
    done = 0
    for start in range(seal_start + 44, len(data) - 15, 16):
        magic, steps, checksum = struct.unpack_from("<4sQI", data, start)
        if magic == b"TGJM" and zlib.crc32(data[start : start + 12]) == checksum:
            done = steps
    shown = {"delta": delta.hex(), "disk": disk, "block_size_log2": log2, "rows": rows}
    return shown | {"saved": [b3(chunk).hex() for chunk in saved], "done": done}


def bytes_of_zeros(log2):
    return bytes(1 << log2)


def chunks_of(disk, log2):
    """Section 2.1: the chunk of every block, None for zeros."""
    size = 1 << log2
    chunks = [disk[at : at + size].ljust(size, b"\0") for at in range(0, len(disk), size)]
    return [chunk if any(chunk) else None for chunk in chunks]


def digest_of(chunks, virtual_size, log2):
    return reader.image_digest(virtual_size, log2, [chunk and b3(chunk) for chunk in chunks])


def apply(delta, base):
    """Section 15.1: returns the bytes of the target."""
    log2 = delta.block_size_log2
    old = chunks_of(base, log2)
    size, digest = delta.base or (0, digest_of([], 0, log2))
    fits = len(base) == size and digest_of(old, size, log2) == digest
    need(fits, "Missing", f"this disk is not the base: that has {size} bytes and digest {digest.hex()}")
    chunks = {b3(chunk): chunk for chunk in old if chunk}
    for row, payload in delta.records:
        chunks[row.id] = reader.unpack(row, payload, delta.block_bytes)
    new = []
    for block in range(delta.blocks):
        if block in delta.data:
            id = delta.data[block]
            need(id in chunks, "Missing", f"chunk {id.hex()} of block {block} is neither carried nor in the base")
            new.append(chunks[id])
        elif block in delta.zero or block >= len(old):
            new.append(None)
        else:
            new.append(old[block])
    found = digest_of(new, delta.virtual_size, log2)
    need(found == delta.digest, "Hash", f"the target has digest {found.hex()}, not {delta.digest.hex()}")
    whole = b"".join(chunk or bytes_of_zeros(log2) for chunk in new)
    need(not any(whole[delta.virtual_size :]), "Field", "the last block goes on after the end of the image")
    return whole[: delta.virtual_size]


def shown(delta):
    base = delta.base and {"virtual_size": delta.base[0], "digest": delta.base[1].hex()}
    return {
        "block_size": delta.block_bytes, "base": base, "virtual_size": delta.virtual_size, "digest": delta.digest.hex(),
        "data_blocks": len(delta.data), "zero_blocks": len(delta.zero), "records": len(delta.records),
        "record_bytes": delta.record_bytes,
    }


def write_new(path, data):
    """Writes a file that is there whole or not at all."""
    directory = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)
        finally:
            os.unlink(file.name)


def main():
    parser = argparse.ArgumentParser(description="Reads Tegula's delta streams, independently of the engine.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="show what a delta is")
    show.add_argument("delta")
    show.add_argument("--json", action="store_true", help="print JSON")
    make = commands.add_parser("apply", help="make a disk of a delta and its base")
    make.add_argument("delta")
    make.add_argument("base")
    make.add_argument("out")
    asked = parser.parse_args()
    try:
        delta = read_delta(Path(asked.delta).read_bytes())
        if asked.command == "apply":
            base = b"" if asked.base == "-" else Path(asked.base).read_bytes()
            write_new(asked.out, apply(delta, base))
        elif asked.json:
            print(json.dumps(shown(delta), indent=1))
        else:
            for name, value in shown(delta).items():
                print(f"{name}  {value}")
        return 0
    except (Damage, OSError) as error:
        print(f"{asked.delta}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
