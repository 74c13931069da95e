//! Which CPython this is built for, as `cfg`s: `Py_3_12` and the like, and `plain` where the raw awaitable
//! cannot be had or is not asked for.

use std::env;

const WITHOUT_RAW_TYPES: [&str; 4] = ["Py_LIMITED_API", "Py_GIL_DISABLED", "PyPy", "GraalPy"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(plain)");
    pyo3_build_config::use_pyo3_cfgs();
    let told = pyo3_build_config::get().build_script_outputs().join("\n");
    let unable = WITHOUT_RAW_TYPES.iter().any(|name| told.contains(name));
    if unable || env::var_os("CARGO_FEATURE_PLAIN").is_some() {
        println!("cargo:rustc-cfg=plain");
    }
}
