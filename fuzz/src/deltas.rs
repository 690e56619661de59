//! Delta streams, applied in a store that has the base of some of them.

use crate::reseal;
use crate::world::{self, WORLD};
use tegula_engine::{DeltaRequest, DeltaSource, Depth, Task};

/// What is made of any stream is the image that it names, and the store stays sound.
pub fn delta(data: &[u8]) {
    for bytes in [data.to_vec(), reseal::delta(data)] {
        let (_, engine) = world::open(&WORLD.files).unwrap();
        let mut stream = bytes.as_slice();
        let request = DeltaRequest {
            source: DeltaSource::Stream(&mut stream),
            name: world::name("made"),
            replace: false,
            base: tegula_engine::DeltaBase::ByDigest,
        };
        let before = engine.list().unwrap();
        match engine.apply_delta(request, Task::unattended()) {
            Ok(applied) => {
                let digest = *applied.record.digest.as_bytes();
                assert!(bytes.windows(32).any(|window| window == digest));
                // A long image of zeros is one too.
                if applied.record.virtual_size < 1 << 20 {
                    world::get(&engine, &world::name("made")).unwrap();
                }
            }
            Err(_) => assert_eq!(engine.list().unwrap(), before),
        }
        let found = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
        assert_eq!(found.findings, []);
    }
}
