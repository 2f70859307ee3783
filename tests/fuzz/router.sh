#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# machines: uml
# no-kmemleak: it makes and frees namespaces without an end
# timeout: 500
# in-tree: it is for those who change the module
# exclusive: how long a router takes to follow is measured
#
# A router without a flowtable, one with `flags offload` and one without, side by side, fed with the same frames: what
# leaves them must be alike (fuzz.py). Through the stories of stories.d, and some at random: $STORIES of those from BASE on,
# or, by `make fuzz-router`, of others, for FUZZ_SECONDS. A story again, by its seed or from a file:
#
#   scripts/vm -- env SEED=N tests/fuzz/router.sh
#   scripts/vm --share DIR -- env STORY=/share/FILE /src/tests/fuzz/router.sh
#
# ONLY=rule,xfrm,… are kinds of events (stories.py); SKIP=RE are differences that are not told (the line
# below "not ok", of which it is a regular expression); BASE=N is the first story's seed; C=1 has the C module instead
# of this one; VERBOSE=1 prints each step.
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH=$PYTHONPATH:$here
need "$NIC_KO"

if [ -n "${C:-}" ]; then load_c_module; else load_module report_ms=0; fi
# A limit of rates of all namespaces (see world.py).
was=$(sysctl -n net.ipv4.route.error_cost)
sysctl -qw net.ipv4.route.error_cost=0
at_exit sysctl -qw net.ipv4.route.error_cost="$was"
# So that none of them is waited for in a story.
modprobe -a xfrm_user esp4 esp6 8021q bridge dummy veth nft_chain_nat nft_masq nft_ct nft_flow_offload

corpus=$here/stories.d
if [ -n "${SEED:-}${STORY:-}${BASE:-}${ONLY:-}" ]; then
	corpus=
elif [ -z "${FUZZ_SECONDS:-}" ]; then
	BASE=1000 STORIES=${STORIES:-20}
fi
# shellcheck disable=SC2086 # there may be several stories
fuzz() {
	"$here/fuzz.py" --nic "$NIC_KO" --seconds "${FUZZ_SECONDS:-0}" --stories "${STORIES:-0}" --slowness "$SLOWNESS" ${SEED:+--seed "$SEED"} \
		${BASE:+--base "$BASE"} ${STORY:+--story $STORY} ${ONLY:+--only "$ONLY"} ${SHRINK:+--shrink "$SHRINK"} \
		${SKIP:+--skip "$SKIP"} ${VERBOSE:+--verbose} ${corpus:+--corpus "$corpus"}
}
relay "stories" fuzz
