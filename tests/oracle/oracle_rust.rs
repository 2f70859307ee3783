// SPDX-License-Identifier: GPL-2.0

//! The translation of `nft_offload.ko`, from the very same files, in a form that C can call.

#![expect(dead_code)]

use kernel::{
    ffi::{c_char, c_void},
    str::CStrExt, //
};

#[path = "../../rust/bindings/mod.rs"]
mod bindings;

#[path = "../../rust/net"]
mod net {
    pub(crate) mod device;
    pub(crate) mod flow_rule;
    pub(crate) mod namespace;

    /// What drivers would be given.
    pub(crate) fn raw_rule(rule: &flow_rule::FlowRule<'_>) -> *const crate::bindings::flow_rule {
        rule.as_raw()
    }
}

#[path = "../../rust/netfilter"]
mod netfilter {
    pub(crate) mod conntrack;
    pub(crate) mod flow;

    /// # Safety
    ///
    /// As for [`flow::FlowOffload::from_cookie`], but for the table.
    pub(crate) unsafe fn flow_from_cookie<'a>(
        cookie: usize,
    ) -> (&'a flow::FlowOffload, conntrack::Direction) {
        // SAFETY: By the function's requirements. What the translation reads of a flow has nothing
        // to do with its table, nor with its conntrack entry.
        unsafe { flow::FlowOffload::from_cookie(cookie) }
    }
}

#[path = "../../rust/offload"]
mod offload {
    mod translate;

    use crate::{
        net::flow_rule::Rule,
        netfilter::{conntrack::Direction, flow::Flow}, //
    };
    use core::ffi::CStr;
    use translate::{Dialect, Unsupported};

    /// The rule, or the reason as the C part knows it.
    pub(crate) fn rule(flow: &Flow, dir: Direction, tc: bool) -> Result<Rule, &'static CStr> {
        let dialect = if tc { Dialect::Tc } else { Dialect::Router };

        let mut rule = Rule::new();

        let result = translate::translate(flow, dir, dialect, &mut rule);
        result.map(|()| rule).map_err(|why| match why {
            Unsupported::Protocol(_) => c"protocol",
            Unsupported::Nat => c"translation",
            Unsupported::Encapsulation(_) => c"within PPPoE",
            Unsupported::IngressTag(_) => c"802.1ad",
            Unsupported::VlanRewrite => c"exchange",
            Unsupported::Priority => c"priority",
            Unsupported::Tunnel => c"tunnel",
            Unsupported::LwTunnel(_) => c"lightweight tunnel",
            Unsupported::TunnelOptions => c"tunnel options",
            Unsupported::Ipsec => c"IPsec",
            Unsupported::Unresolved => c"unresolved",
            Unsupported::Xmit => c"path",
            Unsupported::TooLong => c"too long",
        })
    }
}

/// Translates the direction of a flow that `cookie` is the address of, and shows the rule to `f`.
///
/// Returns NULL, or the reason why there is no rule.
///
/// # Safety
///
/// `net` must be a network namespace and `cookie` the address of a tuple of a flow, both for the
/// time of the call. `f` must be sound to call with `data`.
#[no_mangle]
pub unsafe extern "C" fn oracle_translate(
    net: *mut c_void,
    cookie: usize,
    tc: bool,
    f: unsafe extern "C" fn(*const c_void, *mut c_void),
    data: *mut c_void,
) -> *const c_char {
    // SAFETY: By the function's requirements.
    let net = unsafe { net::namespace::Net::from_raw(net.cast()) };
    // SAFETY: By the function's requirements.
    let (flow, dir) = unsafe { netfilter::flow_from_cookie(cookie) };

    let mut description = netfilter::flow::Flow::new();
    if flow.describe(net, &mut description).is_none() {
        return c"not IP".as_char_ptr();
    }
    let rule = match offload::rule(&description, dir, tc) {
        Ok(rule) => rule,
        Err(why) => return why.as_char_ptr(),
    };
    let mut buffer = net::flow_rule::RuleBuffer::new();
    let result = match buffer.write(&rule, net) {
        Ok(rule) => {
            // SAFETY: The rule is complete, and lives until the call returns.
            unsafe { f(net::raw_rule(&rule).cast(), data) };
            core::ptr::null()
        }
        Err(errno) if errno == kernel::error::code::ENODEV => c"no device".as_char_ptr(),
        Err(_) => c"no memory".as_char_ptr(),
    };
    result
}
