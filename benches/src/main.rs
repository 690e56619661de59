//! `tegula-benches engine --data DIR`: every row of the cost table that applies, as a ratio against limits measured in
//! the same run, with CPU seconds and peak memory.
//!
//! Each step runs in a process of its own, so that CPU time and peak memory are its alone. Wall times on a shared
//! machine are noise; the ratios are between steps that ran one after the other, repeated, and the best of each counts.

mod chain;
mod engine;
mod measure;
mod peers;
mod scale;
mod server;
mod steps;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Measures tegula against the machine's limits and the installed peers.
#[derive(Debug, Parser)]
#[command(name = "tegula-benches", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The engine: ingest, restore, scale, stored bytes.
    Engine {
        /// A series of images: v1.raw to v6.raw and other.raw, as tools/make-series makes them.
        #[arg(long)]
        data: PathBuf,
        /// Where to put stores and restored images: on a real file system, with room for a few images.
        #[arg(long, default_value = "target/bench")]
        scratch: PathBuf,
        /// Repetitions of each timed step; the best counts.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Also write the results to this file as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Chunks in the synthetic index and images of the scale rows.
        #[arg(long, default_value_t = 16 << 20)]
        scale_chunks: u64,
        /// Leave out the peers even if they are installed.
        #[arg(long)]
        no_peers: bool,
    },
    /// A large image under a long chain of children: open, diff, clone, delete, coalesce, flatten.
    Scale {
        /// Where to put the store: on a real file system, with room for 32 bytes a block and 25 times that for a
        /// thousand children. It is used again if it is there.
        #[arg(long, default_value = "target/bench")]
        scratch: PathBuf,
        /// Blocks of the image, of 64 KiB each: a tebibyte of them if not said.
        #[arg(long, default_value_t = 16 << 20)]
        blocks: u64,
        /// Children in the chain.
        #[arg(long, default_value_t = 1000)]
        children: u64,
        /// Repetitions of each timed step; the best counts.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Also write the results to this file as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// The catalog server: requests, uploads and downloads, idle connections. Needs `tegulad` built beside this program.
    Server {
        /// Where to put its database and store: on a real file system, with room for the uploaded image.
        #[arg(long, default_value = "target/bench")]
        scratch: PathBuf,
        /// Requests of each kind.
        #[arg(long, default_value_t = 20_000)]
        requests: u32,
        /// The length of the image that is uploaded and downloaded, in MiB.
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
        /// Images among which pages are listed, put into the database beforehand: their cost is told beside that among
        /// 1,000.
        #[arg(long, default_value_t = 1000)]
        images: u64,
        /// Also write the results to this file as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// One step in this process; prints its measurements as JSON. Used by the other commands.
    #[command(hide = true)]
    Step {
        #[command(subcommand)]
        step: steps::Step,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Engine {
            data,
            scratch,
            rounds,
            json,
            scale_chunks,
            no_peers,
        } => engine::run(&engine::Plan {
            data,
            scratch,
            rounds,
            json,
            scale_chunks,
            peers: !no_peers,
        }),
        Command::Scale {
            scratch,
            blocks,
            children,
            rounds,
            json,
        } => chain::run(&chain::Plan {
            scratch,
            blocks,
            children,
            rounds,
            json,
        }),
        Command::Server {
            scratch,
            requests,
            mebibytes,
            images,
            json,
        } => server::run(&server::Plan {
            scratch,
            requests,
            mebibytes,
            images,
            json,
        }),
        Command::Step { step } => {
            let measured = step.run()?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
    }
}
