//! Tells the crate whether it is compiled for size. Functions that stand once are smaller then; otherwise they are inlined.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(for_size)");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "s" || level == "z") {
        println!("cargo::rustc-cfg=for_size");
    }
}
