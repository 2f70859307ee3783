// SPDX-License-Identifier: GPL-2.0

//! The numbers of the generic netlink family, as Documentation/netlink/specs/nft_offload.yaml has them.

use crate::bindings;

/// The family's name, with its NUL.
pub(crate) const FAMILY_NAME: &[u8] = bindings::NFT_OFFLOAD_FAMILY_NAME;
/// The family's version.
pub(crate) const FAMILY_VERSION: u32 = bindings::NFT_OFFLOAD_FAMILY_VERSION;

/// A module of constants, each of which is one of C's without the prefix.
macro_rules! constants {
    ($(#[$doc:meta])* $module:ident: $type:ty, $prefix:ident $($name:ident)*) => {
        $(#[$doc])*
        pub(crate) mod $module {
            ::kernel::macros::paste! {
                $(pub(crate) const $name: $type = crate::bindings::[<$prefix $name>] as $type;)*
            }
        }
    };
}

constants!(
    /// Operations.
    cmd: u8, NFT_OFFLOAD_CMD_
    DEVICE_GET TABLE_GET FLOW_GET TOTAL_GET REASON_GET EVICT FLUSH_DEVICE PIN UNPIN
);
constants!(
    /// Attributes of requests and messages.
    message: u16, NFT_OFFLOAD_A_MESSAGE_
    DEVICE TABLE FLOW TOTAL REASON_COUNT TUPLE FILTER IFINDEX COUNT TIMEOUT
);
constants!(
    /// Attributes of a flowtable.
    table: u16, NFT_OFFLOAD_A_TABLE_
    FAMILY TABLE FLOWTABLE PRIORITY OFFLOAD COUNTER ENTRIES PORT CONTINUED
);
constants!(
    /// Attributes of a device in a flowtable.
    port: u16, NFT_OFFLOAD_A_PORT_
    IFINDEX NAME BOUND RULES STALE_RULES
);
constants!(
    /// Attributes of how often there was an error.
    errors: u16, NFT_OFFLOAD_A_ERRORS_
    ERRNO COUNT
);
constants!(
    /// Attributes of how long calls took.
    latency: u16, NFT_OFFLOAD_A_LATENCY_
    COUNT MEAN P50 P99 LONGEST
);
constants!(
    /// Attributes of a device.
    device: u16, NFT_OFFLOAD_A_DEVICE_
    IFINDEX NAME BIND_TYPE DIALECT SWITCHED_OFF RULES RULES_MAX STALE_RULES FULL_FOR FAILING QUEUED_ADDS
    QUEUED_WITHDRAWALS QUEUED_POLLS ADD_LATENCY WITHDRAW_LATENCY ADD_ERRORS WITHDRAW_ERRORS LOST_RULES FORWARDED
);
constants!(
    /// Attributes of packets.
    tuple: u16, NFT_OFFLOAD_A_TUPLE_
    L4PROTO SRC DST SPORT DPORT ZONE MAX
);
constants!(
    /// Attributes of a header.
    encap: u16, NFT_OFFLOAD_A_ENCAP_
    PROTO ID BY_SWITCH
);
constants!(
    /// Attributes of a reason.
    why: u16, NFT_OFFLOAD_A_WHY_
    REASON BY ERRNO WORDS IFINDEX DETAIL
);
constants!(
    /// Attributes of a route.
    route: u16, NFT_OFFLOAD_A_ROUTE_
    IFINDEX NEIGHBOUR EGRESS SMAC DMAC ENCAP MTU MARK DSCP
);
constants!(
    /// Attributes of counters.
    counters: u16, NFT_OFFLOAD_A_COUNTERS_
    PACKETS BYTES
);
constants!(
    /// Attributes of a direction.
    direction: u16, NFT_OFFLOAD_A_DIRECTION_
    TUPLE INGRESS ENCAP TUNNEL XMIT ROUTE STATE SINCE WHY CONNECTION HARDWARE
);
constants!(
    /// Attributes of a flow.
    flow: u16, NFT_OFFLOAD_A_FLOW_
    FAMILY TABLE FLOWTABLE ORIGINAL REPLY SNAT DNAT MARK ZONE OFFERS LAST_USE TIMES_LEFT
);
constants!(
    /// Attributes of a filter.
    filter: u16, NFT_OFFLOAD_A_FILTER_
    IFINDEX STATE REASON ADDRESS PREFIX_LEN PORT L4PROTO MAX
);
constants!(
    /// Attributes of what is counted.
    total: u16, NFT_OFFLOAD_A_TOTAL_
    TABLES FLOWS IN_HARDWARE HALF_IN_HARDWARE LEFT
);
constants!(
    /// Attributes of how many flows have a reason.
    reason_count: u16, NFT_OFFLOAD_A_REASON_COUNT_
    REASON BY FLOWS
);
constants!(
    /// For what a driver is bound.
    bind_type: u32, nft_offload_bind_type_NFT_OFFLOAD_BIND_TYPE_
    FLOWTABLE TC INDIRECT
);
constants!(
    /// How a driver reads rules.
    dialect: u32, nft_offload_dialect_NFT_OFFLOAD_DIALECT_
    TC ROUTER
);
constants!(
    /// Who stands against a direction.
    origin: u8, nft_offload_origin_NFT_OFFLOAD_ORIGIN_
    NFTABLES KERNEL MODULE DRIVER
);
constants!(
    /// Why a direction is not in hardware.
    reason: u8, nft_offload_reason_NFT_OFFLOAD_REASON_
    NO_FLAG NOT_OFFERED NOT_BOUND SWITCHED_OFF NOT_IP PROTOCOL NAT ENCAPSULATION INGRESS_TAG
    VLAN_REWRITE VLAN_PRIORITY VARYING_PRIORITY TUNNEL LWTUNNEL TUNNEL_OPTIONS IPSEC UNRESOLVED XMIT TOO_LONG
    MTU SHAPED ROUTE_MISMATCH ROUTE_TUNNEL NOT_FORWARDED PREPARE STALE_RULE REFUSED NO_ROOM FAILING
    OTHER_DIRECTION ENDING LEFT_TO_HOST NEW_RULESET PINNED MAX
);
constants!(
    /// Where a direction is.
    flow_state: u8, nft_offload_flow_state_NFT_OFFLOAD_FLOW_STATE_
    SOFTWARE QUEUED HARDWARE WITHDRAWING STALE LEFT
);
constants!(
    /// How packets leave.
    xmit: u32, nft_offload_xmit_NFT_OFFLOAD_XMIT_
    ETHERNET UNRESOLVED IPSEC OTHER
);
