//! Writes the seeds of every target into `fuzz/corpus`: `cargo run -p tegula-fuzz --bin seeds`.
//!
//! To be run again when the format or a target's way of reading its bytes changes. Inputs that a fuzzer found are kept:
//! only files named `seed-*` are replaced.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in tegula_fuzz::TARGETS {
        let directory = corpus.join(target.name);
        std::fs::create_dir_all(&directory)?;
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("seed-") {
                std::fs::remove_file(&path)?;
            }
        }
        for (number, bytes) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number:02}")), bytes)?;
        }
    }
    Ok(())
}
