// SPDX-License-Identifier: GPL-2.0

//! Netlink attributes: what is put into messages, and what is read from requests.
//!
//! C header: [`include/net/netlink.h`](srctree/include/net/netlink.h)

use super::family::Extack;
use crate::bindings;
use core::{
    marker::PhantomData,
    net::IpAddr,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    str::CStr, //
};

/// The longest payload of an attribute, whose length has 16 bits.
const MAX_LEN: usize = u16::MAX as usize - size_of::<bindings::nlattr>();

/// The end of a message or of a nest in one, to which attributes are added.
///
/// # Invariants
///
/// `skb` is a valid netlink message, which nothing else writes to during `'a`.
pub(crate) struct Attrs<'a> {
    skb: NonNull<bindings::sk_buff>,
    _skb: PhantomData<&'a mut bindings::sk_buff>,
}

impl Attrs<'_> {
    /// # Safety
    ///
    /// `skb` must be a valid netlink message, which nothing else writes to as long as the value lives.
    pub(super) unsafe fn from_raw(skb: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: By the function's requirements.
        Self {
            skb,
            _skb: PhantomData,
        }
    }

    fn put(&mut self, attrtype: u16, value: &[u8]) -> Result {
        if value.len() > MAX_LEN {
            return Err(EMSGSIZE);
        }
        // SAFETY: By the type invariant; the value is as long as said.
        to_result(unsafe {
            bindings::nla_put(
                self.skb.as_ptr(),
                attrtype.into(),
                value.len() as c_int,
                value.as_ptr().cast(),
            )
        })
    }

    /// Puts a flag. `EMSGSIZE` if there is no room, as of all of these.
    pub(crate) fn put_flag(&mut self, attrtype: u16) -> Result {
        self.put(attrtype, &[])
    }

    /// Puts a flag if `is_set`.
    pub(crate) fn put_flag_if(&mut self, attrtype: u16, is_set: bool) -> Result {
        if is_set {
            self.put_flag(attrtype)?;
        }
        Ok(())
    }

    /// Puts a number.
    pub(crate) fn put_u8(&mut self, attrtype: u16, value: u8) -> Result {
        self.put(attrtype, &[value])
    }

    /// Puts a number.
    pub(crate) fn put_u16(&mut self, attrtype: u16, value: u16) -> Result {
        self.put(attrtype, &value.to_ne_bytes())
    }

    /// Puts a number.
    pub(crate) fn put_u32(&mut self, attrtype: u16, value: u32) -> Result {
        self.put(attrtype, &value.to_ne_bytes())
    }

    /// Puts a number.
    pub(crate) fn put_s32(&mut self, attrtype: u16, value: i32) -> Result {
        self.put(attrtype, &value.to_ne_bytes())
    }

    /// Puts a number of 32 bits, or of 64 bits if that is needed (`uint`). C: `nla_put_uint()`.
    pub(crate) fn put_uint(&mut self, attrtype: u16, value: u64) -> Result {
        match u32::try_from(value) {
            Ok(value) => self.put_u32(attrtype, value),
            Err(_) => self.put(attrtype, &value.to_ne_bytes()),
        }
    }

    /// Puts a string.
    pub(crate) fn put_string(&mut self, attrtype: u16, value: &CStr) -> Result {
        self.put(attrtype, value.to_bytes_with_nul())
    }

    /// Puts bytes.
    pub(crate) fn put_bytes(&mut self, attrtype: u16, value: &[u8]) -> Result {
        self.put(attrtype, value)
    }

    /// Puts an IP address, as 4 or 16 bytes.
    pub(crate) fn put_addr(&mut self, attrtype: u16, addr: IpAddr) -> Result {
        match addr {
            IpAddr::V4(addr) => self.put(attrtype, &addr.octets()),
            IpAddr::V6(addr) => self.put(attrtype, &addr.octets()),
        }
    }

    /// Puts a nest with what `fill` puts; if that fails, none.
    pub(crate) fn nest(
        &mut self,
        attrtype: u16,
        fill: impl FnOnce(&mut Attrs<'_>) -> Result,
    ) -> Result {
        let skb = self.skb.as_ptr();
        // SAFETY: By the type invariant.
        let start = unsafe { bindings::shim_nla_nest_start(skb, attrtype.into()) };
        if start.is_null() {
            return Err(EMSGSIZE);
        }

        // SAFETY: `self` is borrowed.
        let result = fill(&mut unsafe { Attrs::from_raw(self.skb) });
        // SAFETY: `start` was made in this message, which has only become longer since.
        unsafe {
            let result = result.and(
                if bindings::shim_nla_nest_len(skb, start) <= u16::MAX.into() {
                    Ok(())
                } else {
                    Err(EMSGSIZE)
                },
            );
            match result {
                Ok(()) => bindings::shim_nla_nest_end(skb, start),
                Err(_) => bindings::shim_nla_nest_cancel(skb, start),
            }
            result
        }
    }
}

/// What an attribute of a request has to be like, `struct nla_policy`.
#[repr(transparent)]
pub(crate) struct NlaPolicy(bindings::nla_policy);

// SAFETY: It is constant.
unsafe impl Sync for NlaPolicy {}

impl NlaPolicy {
    const fn new(kind: u32) -> Self {
        Self(bindings::nla_policy {
            type_: kind as u8,
            ..pin_init::zeroed()
        })
    }

    /// Is refused.
    pub(crate) const NONE: Self = Self::new(bindings::NLA_UNSPEC);
    /// A number of 8 bits.
    pub(crate) const U8: Self = Self::new(bindings::NLA_U8);
    /// A number of 16 bits.
    pub(crate) const U16: Self = Self::new(bindings::NLA_U16);
    /// A number of 32 bits.
    pub(crate) const U32: Self = Self::new(bindings::NLA_U32);

    /// Not less than this.
    pub(crate) const fn min(mut self, min: i16) -> Self {
        self.0.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_MIN as u8;
        self.0.__bindgen_anon_1.__bindgen_anon_1 =
            bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 { min, max: 0 };
        self
    }

    /// Not more than this.
    pub(crate) const fn max(mut self, max: i16) -> Self {
        self.0.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_MAX as u8;
        self.0.__bindgen_anon_1.__bindgen_anon_1 =
            bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 { min: 0, max };
        self
    }

    /// Not less than `min`, and not more than `max`.
    pub(crate) const fn range(mut self, min: i16, max: i16) -> Self {
        self.0.validation_type = bindings::nla_policy_validation_NLA_VALIDATE_RANGE as u8;
        self.0.__bindgen_anon_1.__bindgen_anon_1 =
            bindings::nla_policy__bindgen_ty_1__bindgen_ty_1 { min, max };
        self
    }

    /// Bytes, not more than these.
    pub(crate) const fn bytes(max_len: u16) -> Self {
        let mut policy = Self::new(bindings::NLA_BINARY);
        policy.0.len = max_len;
        policy
    }

    /// A nest of attributes, each by its type.
    pub(crate) const fn nested(policy: &'static [NlaPolicy]) -> Self {
        let mut nested = Self::new(bindings::NLA_NESTED);
        nested.0.len = policy.len() as u16 - 1;
        nested.0.__bindgen_anon_1.nested_policy = policy.as_ptr().cast();
        nested
    }
}

/// An attribute of a request.
///
/// # Invariants
///
/// It points to an attribute, which is as long as it says, header included, and valid during `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Attr<'a>(NonNull<bindings::nlattr>, PhantomData<&'a [u8]>);

impl<'a> Attr<'a> {
    /// # Safety
    ///
    /// `raw` must be NULL, or point to an attribute of a request that netlink has validated, and be valid during
    /// `'a`.
    pub(super) unsafe fn from_raw(raw: *mut bindings::nlattr) -> Option<Self> {
        // INVARIANT: By the function's requirements.
        Some(Self(NonNull::new(raw)?, PhantomData))
    }

    pub(super) fn as_raw(self) -> *const bindings::nlattr {
        self.0.as_ptr()
    }

    /// Returns the payload.
    pub(crate) fn bytes(self) -> &'a [u8] {
        const HEADER: usize = size_of::<bindings::nlattr>();

        // SAFETY: By the type invariant.
        unsafe {
            let len = usize::from((*self.as_raw()).nla_len).saturating_sub(HEADER);
            core::slice::from_raw_parts(self.as_raw().cast::<u8>().add(HEADER), len)
        }
    }

    fn number<const N: usize>(self) -> Result<[u8; N]> {
        self.bytes().try_into().map_err(|_| EINVAL)
    }

    /// Returns a number; `EINVAL` if it does not have so many bits.
    pub(crate) fn u8(self) -> Result<u8> {
        self.number().map(u8::from_ne_bytes)
    }

    /// Returns a number; `EINVAL` if it does not have so many bits.
    pub(crate) fn u16(self) -> Result<u16> {
        self.number().map(u16::from_ne_bytes)
    }

    /// Returns a number; `EINVAL` if it does not have so many bits.
    pub(crate) fn u32(self) -> Result<u32> {
        self.number().map(u32::from_ne_bytes)
    }

    /// Returns an IP address; `EINVAL` if it has neither 4 nor 16 bytes, and then says so.
    pub(crate) fn addr(self, extack: Extack<'_>) -> Result<IpAddr> {
        let bytes = self.bytes();

        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            Ok(IpAddr::from(v4))
        } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
            Ok(IpAddr::from(v6))
        } else {
            Err(extack.bad(self, EINVAL, c"an address has 4 or 16 bytes"))
        }
    }

    /// Reads a nest, in which `policy` says what there may be.
    pub(crate) fn nested<const N: usize>(
        self,
        policy: &'static [NlaPolicy; N],
        extack: Extack<'_>,
    ) -> Result<Nested<'a, N>> {
        let mut attrs = [core::ptr::null_mut(); N];
        let bytes = self.bytes();

        // SAFETY: The array and the policy have room for types up to N - 1, the payload is as long as
        // said.
        to_result(unsafe {
            bindings::__nla_parse(
                attrs.as_mut_ptr(),
                N as c_int - 1,
                bytes.as_ptr().cast(),
                bytes.len() as c_int,
                policy.as_ptr().cast(),
                bindings::SHIM_NL_VALIDATE_STRICT,
                extack.as_raw(),
            )
        })?;
        // INVARIANT: What is not NULL is an attribute within the payload.
        Ok(Nested {
            nest: self,
            attrs,
            _attrs: PhantomData,
        })
    }
}

/// A nest of a request.
///
/// # Invariants
///
/// Each pointer is NULL or an attribute that was validated, and valid during `'a`.
pub(crate) struct Nested<'a, const N: usize> {
    nest: Attr<'a>,
    attrs: [*mut bindings::nlattr; N],
    _attrs: PhantomData<Attr<'a>>,
}

impl<'a, const N: usize> Nested<'a, N> {
    /// Returns the attribute of this type, if it is there.
    pub(crate) fn get(&self, attrtype: u16) -> Option<Attr<'a>> {
        let raw = *self.attrs.get(usize::from(attrtype))?;

        // SAFETY: By the type invariant.
        unsafe { Attr::from_raw(raw) }
    }

    /// As [`Self::get`]; `EINVAL` if it is not there, and then says so.
    pub(crate) fn require(&self, attrtype: u16, extack: Extack<'_>) -> Result<Attr<'a>> {
        self.get(attrtype)
            .ok_or_else(|| extack.missing(Some(self.nest), attrtype))
    }
}
