//! Tells the linker what lies where in the binary, and what is left out: scripts/order and scripts/tables.ld have the why.

#[allow(clippy::disallowed_macros, reason = "so cargo is told")]
fn main() {
    let scripts = ["scripts/order.ld", "scripts/tables.ld"];
    scripts.iter().for_each(|script| println!("cargo:rerun-if-changed={script}"));
    println!("cargo:rerun-if-changed=scripts/build.rs");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let is = |name, value| std::env::var(name).is_ok_and(|own| own == value);
    // Made for release builds of one architecture, and for the linker that this has.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        scripts.iter().for_each(|script| println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/{script}"));
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}
