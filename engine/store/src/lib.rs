//! Chunks, segments, index, layers, image records, garbage collection.
