// SPDX-License-Identifier: GPL-2.0

//! The C side, raw: what bindgen makes of `helper.h`.
//!
//! Private to the abstractions in [`crate::net`] and [`crate::netfilter`]. What the kernel crate
//! binds already is taken from there; a definition here shadows one of the same name there (the
//! kernel crate's `flow_rule` is a placeholder of one byte).

#[allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]
mod raw {
    pub use kernel::bindings::*;

    use kernel::ffi;
    use pin_init::{MaybeZeroable, Zeroable};

    include!(concat!(env!("NFT_OFFLOAD_OBJ"), "/bindings_generated.rs"));
}

pub(crate) use raw::*;
