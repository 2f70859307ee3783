// SPDX-License-Identifier: GPL-2.0

//! Which flows have to do with a device.

use crate::offload::record::{Installed, Record, State};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{Arc, Mutex}, //
};

/// Finds the flows of which a rule takes packets from a device or sends packets to it, so that an
/// event costs in proportion to these flows.
///
/// An entry is in the index from before its first rule is installed until after its last one is
/// withdrawn.
#[pin_data]
pub(super) struct Index {
    /// By index of the device and [`Record::id`].
    #[pin]
    flows: Mutex<RBTree<(u32, u64), Arc<Record>>>,
}

impl Index {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            flows <- new_mutex!(RBTree::new()),
        })
    }

    /// Adds `record` to the flows of both devices of a rule. Adding it again changes nothing. May
    /// sleep; fails with `ENOMEM`.
    pub(super) fn insert(&self, rule: Installed, record: &Arc<Record>) -> Result {
        let mut flows = self.flows.lock();

        for device in rule.devices() {
            let key = (device, record.id());
            if flows.get(&key).is_none() {
                flows.try_create_and_insert(key, record.clone(), GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Takes `record` out of the flows of both devices of a rule that is no longer in `state`,
    /// unless the other rule has to do with the device too.
    pub(super) fn remove(&self, rule: Installed, record: &Record, state: &State) {
        for device in rule.devices() {
            if state.uses(device) {
                continue;
            }
            // The last reference may be dropped with the node, so let go of the lock first.
            let node = self.flows.lock().remove_node(&(device, record.id()));
            drop(node);
        }
    }

    /// Any of the flows of `device`.
    pub(super) fn first(&self, device: u32) -> Option<Arc<Record>> {
        let flows = self.flows.lock();
        let cursor = flows.cursor_lower_bound(&(device, 0))?;
        let (&(found, _), record) = cursor.current();

        (found == device).then(|| record.clone())
    }
}
