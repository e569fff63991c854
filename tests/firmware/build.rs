//! Where the image lies in memory, and that nothing of an operating system is in it.

use std::env;

fn main() {
    let folder = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let machine = env::var("CARGO_CFG_TARGET_ARCH").expect("Cargo sets it");
    let script = format!("{folder}/src/machine/{machine}.ld");
    println!("cargo::rerun-if-changed={script}");
    // On a target with an operating system the C compiler links, and would add its own startup code.
    let hosted = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system != "none");
    let own = ["-nostartfiles", "-nostdlib", "-static", "-no-pie"];
    for argument in own.iter().filter(|_| hosted) {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
