// SPDX-License-Identifier: GPL-2.0

//! What differs between the kernels that the module is built for.
//!
//! Kbuild.compat has the rest: what their headers have.

use core::borrow::Borrow;

/// Returns a copy of a module parameter.
///
/// `ModuleParamAccess::value()` returns a reference before Linux 7.3 and a copy from then on. To be
/// removed with support for 7.2.
pub(crate) fn param<T: Copy>(value: impl Borrow<T>) -> T {
    *value.borrow()
}
