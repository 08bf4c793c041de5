//! Tells the linker what lies where in the binary: scripts/order has the why.

#[allow(clippy::disallowed_macros, reason = "so cargo is told")]
fn main() {
    let order = "scripts/order.ld";
    println!("cargo:rerun-if-changed={order}");
    println!("cargo:rerun-if-changed=scripts/build.rs");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    // Made for release builds of one architecture; in others it names nothing that is there.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/{order}");
    }
}
