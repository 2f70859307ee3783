// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    fmt,
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// The length of an Ethernet address.
pub(crate) const ETH_ALEN: usize = bindings::ETH_ALEN as usize;

/// An Ethernet address.
pub(crate) type MacAddress = [u8; ETH_ALEN];

/// A network device, `struct net_device`.
///
/// # Invariants
///
/// Instances are always reference counted: `dev_hold` keeps the device from being freed. It may be
/// unregistered all the same, so a reference must not be held for longer than its `NETDEV_UNREGISTER`.
#[repr(transparent)]
pub(crate) struct NetDevice(Opaque<bindings::net_device>);

impl NetDevice {
    /// # Safety
    ///
    /// `ptr` must point to a device that has been registered and is not freed during `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::net_device) -> &'a Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::net_device {
        self.0.get()
    }

    /// The device's index in its network namespace. It changes when the device moves to another
    /// namespace, never otherwise.
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_ifindex(self.as_raw()) as u32 }
    }

    /// The device's name at this moment, for messages.
    pub(crate) fn name(&self) -> Name {
        let mut name = [0; bindings::IFNAMSIZ as usize];

        // SAFETY: The type invariant keeps the device alive, and `name` has room for `IFNAMSIZ`.
        unsafe { bindings::shim_dev_name(self.as_raw(), name.as_mut_ptr().cast()) };
        Name(name)
    }

    /// The device's own Ethernet address.
    pub(crate) fn address(&self) -> MacAddress {
        let mut addr = [0; ETH_ALEN];

        // SAFETY: The type invariant keeps the device alive, and `addr` has room for `ETH_ALEN`.
        unsafe { bindings::shim_dev_addr(self.as_raw(), addr.as_mut_ptr()) };
        addr
    }

    /// Whether the device's own driver takes offload requests (`ndo_setup_tc`).
    pub(crate) fn has_setup_tc(&self) -> bool {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_has_setup_tc(self.as_raw()) }
    }
}

// SAFETY: `struct net_device` is reference counted and used from any thread.
unsafe impl Send for NetDevice {}

// SAFETY: The methods above only read what C reads without locks.
unsafe impl Sync for NetDevice {}

// SAFETY: `dev_hold` and `dev_put` count references to the device.
unsafe impl AlwaysRefCounted for NetDevice {
    fn inc_ref(&self) {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_hold(self.as_raw()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { bindings::shim_dev_put(obj.as_ref().as_raw()) }
    }
}

/// A device's name as it was when it was asked for.
pub(crate) struct Name([u8; bindings::IFNAMSIZ as usize]);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_c_chars(f, &self.0)
    }
}

/// Writes `bytes` up to the first NUL, with a `?` for what is not printable ASCII.
pub(super) fn write_c_chars(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    use kernel::fmt::Write;

    for &byte in bytes.iter().take_while(|&&byte| byte != 0) {
        let printable = byte.is_ascii_graphic() || byte == b' ';
        f.write_char(if printable { byte as char } else { '?' })?;
    }
    Ok(())
}
