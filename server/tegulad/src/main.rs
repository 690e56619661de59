//! The program `tegulad`; what it does is in the library of this name, since the demonstration of `tegula` runs it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    tegulad::main()
}
