// SPDX-License-Identifier: GPL-2.0

//! The module in whose place this one is.

use crate::bindings;
use kernel::{
    prelude::*,
    str::CStrExt, //
};

/// How the module `nf_flow_table_inet`, which registers the same types, is there.
pub(crate) enum CModule {
    Loaded,
    BuiltIn,
}

/// Returns how the module `nf_flow_table_inet` is there, if it is; it would keep its types.
pub(crate) fn c_module(module: &'static ThisModule) -> Option<CModule> {
    // SAFETY: `module` is being initialised, so that it is in sysfs.
    let loaded = unsafe {
        bindings::shim_module_is_loaded(module.as_ptr(), c"nf_flow_table_inet".as_char_ptr())
    };

    // SAFETY: A constant.
    if unsafe { bindings::shim_flow_table_inet_is_builtin() } {
        Some(CModule::BuiltIn)
    } else {
        loaded.then_some(CModule::Loaded)
    }
}
