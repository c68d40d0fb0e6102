//! Rebuilds the crate when a migration is added: the compiler sees only the files that were there at the last build.

fn main() {
    println!("cargo:rerun-if-changed=../../../migrations");
}
