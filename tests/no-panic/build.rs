//! An undefined symbol must be an error, also in a shared library.

fn main() {
    println!("cargo::rustc-link-arg=-nostartfiles");
    println!("cargo::rustc-link-arg=-Wl,-z,defs");
    println!("cargo::rustc-link-arg=-lc");
    println!("cargo::rerun-if-changed=build.rs");
}
