// SPDX-License-Identifier: GPL-2.0

//! Socket buffers.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use crate::{
    bindings,
    net::device::{MacAddress, ETH_ALEN}, //
};
use kernel::types::Opaque;

/// A packet that the caller owns for the time of a call, `struct sk_buff`.
#[repr(transparent)]
pub(crate) struct SkBuff(Opaque<bindings::sk_buff>);

impl SkBuff {
    /// # Safety
    ///
    /// `ptr` must point to a packet with a device whose data begin with the network header, as they do
    /// in a hook at ingress, and not be used elsewhere during `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut bindings::sk_buff) -> &'a mut Self {
        // SAFETY: By the function's requirements; the type is transparent.
        unsafe { &mut *ptr.cast() }
    }

    /// Returns the protocol of the network header, in host byte order: a tag that is still in the packet is
    /// one.
    pub(crate) fn protocol(&self) -> u16 {
        // SAFETY: `self` is a valid packet, and this is where it has the member.
        u16::from_be(unsafe {
            self.0
                .get()
                .byte_add(bindings::SHIM_SKB_PROTOCOL as usize)
                .cast::<u16>()
                .read()
        })
    }

    /// Returns whether the device that the packet came in by takes it for the host's own (`PACKET_HOST`).
    pub(crate) fn is_to_host(&self) -> bool {
        // SAFETY: `self` is a valid packet, and this is where it has the bits of the member.
        let bits = unsafe {
            self.0
                .get()
                .byte_add(bindings::SHIM_SKB_PKT_TYPE as usize)
                .cast::<u8>()
                .read()
        };
        bits & bindings::SHIM_SKB_PKT_TYPE_MASK as u8 == 0
    }

    /// Returns the destination of a frame that has another's address than the device it came in by
    /// (`PACKET_OTHERHOST`); not of broadcasts and multicasts.
    pub(crate) fn other_dest(&self) -> Option<MacAddress> {
        let mut dest = [0; ETH_ALEN];

        // SAFETY: `self` is a valid packet, and there is room for an address.
        unsafe { bindings::shim_skb_other_dest(self.0.get(), dest.as_mut_ptr()) }.then_some(dest)
    }

    /// Returns how many bytes from the network header on are in the packet's linear part.
    pub(crate) fn linear_len(&self) -> usize {
        let skb = self.0.get();

        // SAFETY: `self` is a valid packet. What is not in the linear part is a part of the whole.
        unsafe { (*skb).len.wrapping_sub((*skb).data_len) as usize }
    }

    /// Returns a byte of the packet's linear part.
    ///
    /// # Safety
    ///
    /// `offset` must be less than [`Self::linear_len`].
    pub(crate) unsafe fn linear_byte(&self, offset: usize) -> u8 {
        // SAFETY: `self` is a valid packet; the rest is by the function's requirements.
        unsafe { (*self.0.get()).data.add(offset).read() }
    }

    /// Index of the device that the packet came in by.
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: `self` is a valid packet.
        unsafe { bindings::shim_skb_ifindex(self.0.get()) }
    }

    /// Protocol and content of the VLAN tag that the device has taken out of the packet
    /// (`skb_vlan_tag_get()`), in host byte order.
    pub(crate) fn vlan_tag(&self) -> Option<(u16, u16)> {
        let (mut proto, mut tci) = (0, 0);

        // SAFETY: `self` is a valid packet.
        unsafe { bindings::shim_skb_vlan_tag(self.0.get(), &mut proto, &mut tci) }
            .then(|| (u16::from_be(proto), tci))
    }

    /// Returns the first `len` bytes from the network header on, if the packet has as many
    /// (`pskb_may_pull`). Does not sleep; may move the packet's bytes into its linear part.
    pub(crate) fn network_bytes(&mut self, len: usize) -> Option<&[u8]> {
        // SAFETY: `self` is a valid packet, and `&mut` makes us its only user.
        let bytes = unsafe { bindings::shim_skb_pull(self.0.get(), len as u32) };

        if bytes.is_null() {
            return None;
        }
        // SAFETY: As many readable bytes, which stay in place while `self` is borrowed.
        Some(unsafe { core::slice::from_raw_parts(bytes, len) })
    }
}
