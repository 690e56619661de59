"""Bytes of images: plain ones, and such as formats that are looked into begin with."""

import random
import struct

MIB = 1 << 20


def noise(length, seed=1):
    """Bytes that no format begins with and nothing compresses; the same for the same seed."""
    return random.Random(seed).randbytes(length)


def qcow2(virtual_size=MIB, *, version=3, backing=b"", incompatible=0, magic=b"QFI\xfb"):
    """An empty qcow2 image (QEMU, docs/interop/qcow2.txt): header, refcount table and block, L1 table; nothing allocated."""
    cluster = 1 << 16
    clusters = -(-virtual_size // cluster)
    l1_entries = max(1, -(-clusters // (cluster // 8)))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        magic, version, 0, 0, 16, virtual_size, 0, l1_entries, 3 * cluster, cluster, 1, 0, 0,
    )
    if version >= 3:
        header += struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    header += bytes(8)  # the end of the extensions
    if backing:
        header = header[:8] + struct.pack(">QI", len(header), len(backing)) + header[20:] + backing
    refcount_table = struct.pack(">Q", 2 * cluster)
    refcounts = struct.pack(">HHHH", 1, 1, 1, 1)
    parts = [header, refcount_table, refcounts, b""]
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


def mbr(partitions=1, length=MIB):
    """A disk with a partition table of the old kind and that many partitions in it."""
    entries = b"".join(
        struct.pack("<B3sB3sII", 0x80 if index == 0 else 0, b"\1\1\0", 0x83, b"\xfe\xff\xff", 64 + 128 * index, 128)
        for index in range(partitions)
    )
    sector = bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"
    return sector.ljust(length, b"\0")


def iso(length=MIB):
    """The beginning of a CD-ROM (ECMA-119): a primary volume descriptor at sector 16."""
    descriptor = b"\x01CD001\x01\0" + bytes(72)
    blocks = length // 2048
    descriptor += struct.pack("<I", blocks) + struct.pack(">I", blocks) + bytes(40)
    descriptor += struct.pack("<H", 2048) + struct.pack(">H", 2048)
    end = b"\xffCD001\x01"
    return (bytes(16 * 2048) + descriptor.ljust(2048, b"\0") + end.ljust(2048, b"\0")).ljust(length, b"\0")


def vmdk(kind="monolithicSparse", extent="disk.vmdk", capacity_sectors=2048):
    """The beginning of a sparse VMware disk: header and descriptor of that kind, naming that extent."""
    descriptor = (
        f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="{kind}"\n\n'
        f'# Extent description\nRW {capacity_sectors} SPARSE "{extent}"\n\n# The Disk Data Base\n#DDB\n\n'
        'ddb.adapterType = "ide"\n'
    ).encode()
    header = struct.pack(
        "<4sIIQQQQIQQQBcccc",
        b"KDMV", 1, 3, capacity_sectors, 128, 1, 20, 512, 21, 26, 128, 0, b"\n", b" ", b"\r", b"\n",
    )
    return (header.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0")).ljust(128 * 512, b"\0")
