//! Micro-benchmarks of the inner loops: `cargo bench -p tegula-benches`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, ImageDigester, Place, RunHeader, RunRow, RunSections,
    SegmentNumber, Slot, encode_run,
};
use tegula_store::{compress, decode_record};

/// A block that compresses about 3:1.
fn block() -> Vec<u8> {
    (0u32..16_384)
        .flat_map(|n| {
            if n % 3 == 0 {
                n.wrapping_mul(2_654_435_761).to_le_bytes()
            } else {
                [7; 4]
            }
        })
        .collect()
}

fn chunks(criterion: &mut Criterion) {
    let block = block();
    let id = ChunkId::of(&block);
    let record = compress(id, &block, 1).record;
    let mut group = criterion.benchmark_group("chunk of 64 KiB");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("hash", |b| b.iter(|| ChunkId::of(black_box(&block))));
    group.bench_function("compress, zstd 1", |b| {
        b.iter(|| compress(id, black_box(&block), 1))
    });
    let mut out = vec![0; block.len()];
    group.bench_function("decode and verify", |b| {
        b.iter(|| decode_record(black_box(&record), &id, &mut out))
    });
    group.finish();
}

fn index(criterion: &mut Criterion) {
    let place = Place {
        segment: SegmentNumber::new(1),
        slot: Slot::new(0),
    };
    let mut rows: Vec<RunRow> = (0u64..1 << 20)
        .map(|n| RunRow {
            id: ChunkId::of(&n.to_le_bytes()),
            place,
            offset: 73,
            stored_length: 9,
            bases: 0,
        })
        .collect();
    rows.sort_unstable();
    let bytes = encode_run(&rows, [place.segment]);
    let header =
        RunHeader::decode(&bytes, bytes.len() as u64).expect("because it was just encoded");
    let run = RunSections::new(&header, &bytes).expect("because it was just encoded");
    let mut group = criterion.benchmark_group("run of 1 M rows");
    group.throughput(Throughput::Elements(1));
    let mut n = 0u64;
    group.bench_function("hit", |b| {
        b.iter(|| {
            n = (n + 7919) % (1 << 20);
            run.find(
                &rows
                    .get(usize::try_from(n).unwrap_or(0))
                    .expect("because n is below the count")
                    .id,
            )
            .next()
        });
    });
    group.bench_function("miss, by the filter", |b| {
        b.iter(|| {
            n += 1;
            run.may_contain(&ChunkId::of(&(n + (1 << 40)).to_le_bytes()))
        });
    });
    group.finish();
}

fn maps(criterion: &mut Criterion) {
    let mut set: BlockSet = (0u32..160_000)
        .map(|n| BlockIndex::new(n.wrapping_mul(104_729) % (1 << 24)))
        .collect();
    set.insert_range(1 << 20..(1 << 20) + 50_000);
    let bytes = set.encode();
    let mut group = criterion.benchmark_group("block set, 1 % of 2^24");
    group.bench_function("encode", |b| b.iter(|| black_box(&set).encode()));
    group.bench_function("decode", |b| {
        b.iter(|| BlockSet::decode(black_box(&bytes), 1 << 24, tegula_format::Structure::Layer));
    });
    group.finish();
    let mut group = criterion.benchmark_group("image digest");
    group.throughput(Throughput::Elements(1 << 14));
    let ids: Vec<ChunkId> = (0u32..1 << 14)
        .map(|n| ChunkId::of(&n.to_le_bytes()))
        .collect();
    group.bench_function("1 GiB of data blocks", |b| {
        b.iter(|| {
            let mut digester = ImageDigester::new(1 << 30, BlockSize::DEFAULT);
            ids.iter().for_each(|id| digester.push_data(id));
            digester.finish()
        });
    });
    group.finish();
}

criterion_group!(benches, chunks, index, maps);
criterion_main!(benches);
