// SPDX-License-Identifier: GPL-2.0

//! The flows of a namespace by the packets that they take.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex}, //
};

/// An object with two hashes that do not change.
pub(super) trait Hashed {
    /// Returns the hashes, all 64 bits of which are random.
    fn hashes(&self) -> [u64; 2];
}

/// Tables of objects by their first hash and by their second one, in neither of which two have the same:
/// a new one takes the place of an old one.
///
/// Each object costs a pointer in each table and the free slot beside it, a third to the whole of one.
#[pin_data]
pub(super) struct HashTable<T> {
    #[pin]
    first: [Mutex<Shard<T, 0>>; SHARDS],
    #[pin]
    second: [Mutex<Shard<T, 1>>; SHARDS],
    /// So that of two objects that meet it is always the later one that finds the other.
    #[pin]
    inserting: Mutex<()>,
}

/// So that a table that grows holds up few others.
const SHARDS: usize = 32;

/// A part of the table by hash `BY`: open addressing with linear probing.
struct Shard<T, const BY: usize> {
    /// As many as a power of two, or none.
    slots: KVVec<Option<Arc<T>>>,
    used: usize,
}

impl<T: Hashed, const BY: usize> Shard<T, BY> {
    const fn new() -> Self {
        Self {
            slots: KVVec::new(),
            used: 0,
        }
    }

    fn start(&self, hash: u64) -> usize {
        (hash as usize / SHARDS) & (self.slots.len() - 1)
    }

    /// Returns where the object with this hash is, or else the free slot where it would be. There must
    /// be a free slot.
    fn find(&self, hash: u64) -> usize {
        let mut at = self.start(hash);

        while self.slots[at]
            .as_ref()
            .is_some_and(|found| found.hashes()[BY] != hash)
        {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    /// Makes room for one more.
    fn grow(&mut self) -> Result {
        if (self.used + 1) * 4 <= self.slots.len() * 3 {
            return Ok(());
        }
        let len = (self.slots.len() * 2).max(16);
        let mut slots = KVVec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..len {
            slots.push(None, GFP_KERNEL_ACCOUNT)?;
        }

        let mut old = core::mem::replace(&mut self.slots, slots);
        for object in old.iter_mut().filter_map(Option::take) {
            let at = self.find(object.hashes()[BY]);
            self.slots[at] = Some(object);
        }
        Ok(())
    }

    fn insert(&mut self, object: Arc<T>) -> Result<Option<Arc<T>>> {
        self.grow()?;
        let at = self.find(object.hashes()[BY]);
        let old = self.slots[at].replace(object);

        self.used += usize::from(old.is_none());
        Ok(old)
    }

    fn get(&self, hash: u64) -> Option<&Arc<T>> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots[self.find(hash)].as_ref()
    }

    fn remove(&mut self, object: &T) -> Option<Arc<T>> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut hole = self.find(object.hashes()[BY]);
        self.slots[hole]
            .as_ref()
            .filter(|found| core::ptr::eq(&***found, object))?;
        let removed = self.slots[hole].take();
        self.used -= 1;

        // Those behind the hole move up, unless that would be before their start.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(next) = self.slots[at].as_ref() else {
                break;
            };
            let from_start = at.wrapping_sub(self.start(next.hashes()[BY])) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_start >= from_hole {
                self.slots[hole] = self.slots[at].take();
                hole = at;
            }
        }
        removed
    }
}

fn shard<T, const BY: usize>(
    shards: &[Mutex<Shard<T, BY>>; SHARDS],
    hash: u64,
) -> &Mutex<Shard<T, BY>> {
    &shards[hash as usize % SHARDS]
}

fn get<T: Hashed, const BY: usize>(
    shards: &[Mutex<Shard<T, BY>>; SHARDS],
    hash: u64,
) -> Option<Arc<T>> {
    shard(shards, hash).lock().get(hash).cloned()
}

fn remove<T: Hashed, const BY: usize>(
    shards: &[Mutex<Shard<T, BY>>; SHARDS],
    hash: u64,
    object: &T,
) {
    let removed = shard(shards, hash).lock().remove(object);
    // Without the lock.
    drop(removed);
}

impl<T: Hashed> HashTable<T> {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            first <- pin_init::pin_init_array_from_fn(|_| new_mutex!(Shard::new())),
            second <- pin_init::pin_init_array_from_fn(|_| new_mutex!(Shard::new())),
            inserting <- new_mutex!(()),
        })
    }

    /// Inserts an object; returns those that have one of its hashes, as first or second. Sleeps; fails
    /// with `ENOMEM`, and then nothing has changed.
    pub(super) fn insert(&self, object: &Arc<T>) -> Result<[Option<Arc<T>>; 4]> {
        let [first, second] = object.hashes();
        let _inserting = self.inserting.lock();
        let mut shard_of_first = shard(&self.first, first).lock();
        let mut shard_of_second = shard(&self.second, second).lock();
        // What may fail comes first.
        shard_of_first.grow()?;
        shard_of_second.grow()?;
        let by_first = shard_of_first.insert(object.clone())?;
        let by_second = shard_of_second.insert(object.clone())?;
        drop(shard_of_second);
        drop(shard_of_first);
        let found = [
            by_first,
            by_second,
            get(&self.second, first),
            get(&self.first, second),
        ];

        Ok(found.map(|found| found.filter(|found| !Arc::ptr_eq(found, object))))
    }

    /// Returns the object with this first hash. Sleeps.
    pub(super) fn get(&self, first: u64) -> Option<Arc<T>> {
        get(&self.first, first)
    }

    /// The parts of the table.
    pub(super) const PARTS: core::ops::Range<usize> = 0..SHARDS;

    /// Returns the objects of a part of which `is` is true. Sleeps; `is` must not. Fails with `ENOMEM`.
    pub(super) fn some(&self, part: usize, is: impl Fn(&T) -> bool) -> Result<KVec<Arc<T>>> {
        let mut found = KVec::new();
        let shard = self.first[part].lock();
        for object in shard.slots.iter().flatten().filter(|object| is(object)) {
            found.push(object.clone(), GFP_KERNEL)?;
        }
        Ok(found)
    }

    /// Removes an object, as far as it is there and no newer one has its place. Sleeps.
    pub(super) fn remove(&self, object: &T) {
        let [first, second] = object.hashes();
        remove(&self.first, first, object);
        remove(&self.second, second, object);
    }
}

#[kernel::macros::kunit_tests(nft_offload_flow_hash)]
mod tests {
    use super::*;

    struct Object(u64);

    impl Hashed for Object {
        fn hashes(&self) -> [u64; 2] {
            [self.0, !self.0]
        }
    }

    fn object(hash: u64) -> Result<Arc<Object>> {
        Ok(Arc::new(Object(hash), GFP_KERNEL)?)
    }

    #[test]
    fn what_is_inserted_is_found_until_it_is_removed() -> Result {
        let mut shard = Shard::<_, 0>::new();
        // Many that begin at the same slot, at the end of the slots too.
        let hash = |i: u64| (i % 7) * 15 * SHARDS as u64 | i << 40;
        let mut objects = KVec::new();

        for i in 0..200 {
            let new = object(hash(i))?;
            assert!(shard.insert(new.clone())?.is_none());
            objects.push(new, GFP_KERNEL)?;
        }
        assert_eq!(shard.used, 200);
        for removed in 0..200 {
            assert!(shard.remove(&objects[removed]).is_some());
            assert!(shard.remove(&objects[removed]).is_none());
            for (i, object) in objects.iter().enumerate() {
                let found = shard
                    .get(object.0)
                    .is_some_and(|found| Arc::ptr_eq(found, object));
                assert_eq!(found, i > removed);
            }
        }
        assert_eq!(shard.used, 0);
        Ok(())
    }

    #[test]
    fn what_has_a_hash_of_another_one_meets_it_either_way_round() -> Result {
        let table = KBox::pin_init(HashTable::new(), GFP_KERNEL)?;
        let meets = |found: &[Option<Arc<Object>>], other: &Arc<Object>| {
            found
                .iter()
                .flatten()
                .any(|found| Arc::ptr_eq(found, other))
        };
        let (one, same, reverse) = (object(5)?, object(5)?, object(!5)?);

        assert!(!table.insert(&one)?.iter().any(Option::is_some));
        assert!(meets(&table.insert(&same)?, &one));
        assert!(meets(&table.insert(&reverse)?, &same));
        table.remove(&same);
        table.remove(&reverse);
        assert!(!table.insert(&one)?.iter().any(Option::is_some));
        Ok(())
    }

    #[test]
    fn a_new_one_takes_the_place_of_an_old_one() -> Result {
        let mut shard = Shard::<_, 0>::new();
        let (old, new) = (object(5)?, object(5)?);

        assert!(shard.insert(old.clone())?.is_none());
        assert!(shard
            .insert(new.clone())?
            .is_some_and(|found| Arc::ptr_eq(&found, &old)));
        assert!(shard.remove(&old).is_none());
        assert!(shard.remove(&new).is_some());
        assert!(shard.get(5).is_none());
        Ok(())
    }
}
