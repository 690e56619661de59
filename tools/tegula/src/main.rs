//! The tegula command line.

fn main() {}
