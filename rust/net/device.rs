// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use crate::{
    bindings,
    net::namespace::Net, //
};
use core::ptr::NonNull;
use kernel::{
    fmt,
    str::CStr,
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

    /// Whether the device is in this namespace at present.
    pub(crate) fn is_in(&self, net: &Net) -> bool {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_is_in(self.as_raw(), net.as_raw()) }
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

    /// Whether `hw-tc-offload`, which the driver has, is off (`ethtool -K`).
    pub(crate) fn is_switched_off(&self) -> bool {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_is_switched_off(self.as_raw()) }
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

/// What a device is that stands on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upper {
    Bridge,
    /// A bond or a team.
    Lag,
    Vlan,
    Ppp,
}

/// The names of the devices that send for another one, for messages.
pub(crate) struct LowerNames([u8; LowerNames::LEN]);

impl LowerNames {
    const LEN: usize = 8 * bindings::IFNAMSIZ as usize;

    pub(crate) fn is_empty(&self) -> bool {
        self.0[0] == 0
    }
}

impl fmt::Display for LowerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_c_chars(f, &self.0)
    }
}

impl NetDevice {
    /// What the device is, if it stands on others. What is no more than a driver's business is `None`.
    pub(crate) fn upper(&self) -> Option<Upper> {
        // SAFETY: The type invariant keeps the device alive.
        match unsafe { bindings::shim_dev_upper(self.as_raw()) } {
            bindings::shim_upper_SHIM_UPPER_BRIDGE => Some(Upper::Bridge),
            bindings::shim_upper_SHIM_UPPER_LAG => Some(Upper::Lag),
            bindings::shim_upper_SHIM_UPPER_VLAN => Some(Upper::Vlan),
            bindings::shim_upper_SHIM_UPPER_PPP => Some(Upper::Ppp),
            _ => None,
        }
    }

    /// The names of the devices that send for this one, as many as there is room for. Does not sleep.
    pub(crate) fn lower_names(&self) -> LowerNames {
        let mut names = LowerNames([0; LowerNames::LEN]);

        // SAFETY: The type invariant keeps the device alive; the buffer is as long as said.
        unsafe {
            bindings::shim_dev_lower_names(
                self.as_raw(),
                names.0.as_mut_ptr().cast(),
                names.0.len(),
            )
        };
        names
    }

    /// Whether the device is in a flowtable. Does not sleep.
    pub(crate) fn is_member(&self) -> bool {
        // SAFETY: The type invariant keeps the device alive.
        unsafe { bindings::shim_dev_is_member(self.as_raw()) }
    }
}

impl NetDevice {
    /// The name of the device's qdisc, if that does more than to queue. Does not sleep.
    pub(crate) fn shaper(&self) -> Option<Name> {
        let mut name = [0; bindings::IFNAMSIZ as usize];

        // SAFETY: The type invariant keeps the device alive, and `name` has room for `IFNAMSIZ`.
        let shapes = unsafe { bindings::shim_dev_shaper(self.as_raw(), name.as_mut_ptr().cast()) };
        shapes.then_some(Name(name))
    }
}

/// A name of a device or of its qdisc as it was when it was asked for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Name([u8; bindings::IFNAMSIZ as usize]);

impl Name {
    /// Returns it as it is. `None` if it does not end.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.0).ok()
    }
}

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
