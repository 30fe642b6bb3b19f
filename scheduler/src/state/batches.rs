//! The batches of the state: one dense list, and a table of where each is.
//!
//! In a B-tree of random ids a third of the room is empty, and a batch is what the state has most of. The
//! order is that of coming, except that the last batch takes the place of one that goes. That is a
//! function of the log and kept by snapshots: all replicas have the same.

use alloc::vec::Vec;
use core::ops::Index;

use allhands_common::id::BatchId;
use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Batch;

/// Room for batches that is kept when they are gone.
const ROOM_KEPT: usize = 1024;

/// Batches by id.
#[derive(Debug, Clone, Default)]
pub struct Batches {
    list: Vec<(BatchId, Batch)>,
    /// Places in the list, by the hash of the id.
    table: HashTable<u32>,
}

/// An id is a hash already: mixed just enough that ids that count do as well.
fn hash(id: &BatchId) -> u64 {
    let number = u128::from_le_bytes(id.0);
    let folded = (number >> 64) as u64 ^ (number as u64).rotate_left(32);
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

impl Batches {
    fn place(&self, id: &BatchId) -> Option<usize> {
        let found = self.table.find(hash(id), |place| self.list[*place as usize].0 == *id)?;
        Some(*found as usize)
    }

    /// A batch.
    pub fn get(&self, id: &BatchId) -> Option<&Batch> {
        self.place(id).map(|place| &self.list[place].1)
    }

    pub(super) fn get_mut(&mut self, id: &BatchId) -> Option<&mut Batch> {
        self.place(id).map(|place| &mut self.list[place].1)
    }

    /// Whether there is a batch of this id.
    pub fn contains_key(&self, id: &BatchId) -> bool {
        self.place(id).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All, alike on all replicas.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&BatchId, &Batch)> {
        self.list.iter().map(|(id, batch)| (id, batch))
    }

    /// Their ids.
    pub fn keys(&self) -> impl Iterator<Item = &BatchId> {
        self.list.iter().map(|(id, _)| id)
    }

    /// They.
    pub fn values(&self) -> impl Iterator<Item = &Batch> {
        self.list.iter().map(|(_, batch)| batch)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.list.iter_mut().map(|(_, batch)| batch)
    }

    /// Adds a batch. One of the same id is replaced.
    pub(super) fn insert(&mut self, id: BatchId, batch: Batch) {
        if let Some(known) = self.get_mut(&id) {
            *known = batch;
            return;
        }
        let Self { list, table } = self;
        let place = u32::try_from(list.len()).unwrap_or(u32::MAX);
        list.push((id, batch));
        table.insert_unique(hash(&id), place, |place| hash(&list[*place as usize].0));
    }

    /// Takes a batch out, and gives back room that is not needed any more.
    pub(super) fn remove(&mut self, id: &BatchId) -> Option<Batch> {
        let Self { list, table } = self;
        let same = |place: &u32| list[*place as usize].0 == *id;
        let (place, _) = table.find_entry(hash(id), same).ok()?.remove();
        let last = list.len() - 1;
        let moved = hash(&list[last].0);
        if let Some(of_last) = table.find_mut(moved, |place| *place as usize == last) {
            *of_last = place;
        }
        let (_, gone) = list.swap_remove(place as usize);
        if list.capacity() > ROOM_KEPT && list.capacity() / 4 > list.len() {
            list.shrink_to(list.len() * 2);
            table.shrink_to(list.len() * 2, |place| hash(&list[*place as usize].0));
        }
        Some(gone)
    }
}

impl PartialEq for Batches {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Index<&BatchId> for Batches {
    type Output = Batch;

    /// # Panics
    /// When there is no such batch.
    #[expect(clippy::expect_used, reason = "as with every index")]
    fn index(&self, id: &BatchId) -> &Batch {
        self.get(id).expect("a batch of this id")
    }
}

impl<'a> IntoIterator for &'a Batches {
    type Item = (&'a BatchId, &'a Batch);
    type IntoIter = core::iter::Map<
        core::slice::Iter<'a, (BatchId, Batch)>,
        fn(&'a (BatchId, Batch)) -> (&'a BatchId, &'a Batch),
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter().map(|(id, batch)| (id, batch))
    }
}

impl Serialize for Batches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<(BatchId, Batch)>::deserialize(deserializer)?;
        let mut batches = Self::default();
        list.into_iter().for_each(|(id, batch)| batches.insert(id, batch));
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::sync::Arc;

    use allhands_common::id::JobId;
    use allhands_common::policy::{BatchSpec, Policy};
    use allhands_common::time::ClusterTime;
    use proptest::prelude::*;
    use smallvec::SmallVec;

    use super::*;

    fn numbered(sequence: u32) -> Batch {
        let spec = Arc::new(BatchSpec {
            name: "".into(),
            functions: Vec::new(),
            policy: Policy::default(),
            env: Vec::new(),
        });
        Batch {
            job: JobId(0),
            sequence,
            call: sequence,
            tasks: 0,
            spec,
            opened: ClusterTime(0),
            arguments: SmallVec::new(),
            sealed: false,
            kept: false,
            progress: None,
        }
    }

    fn id(number: u8) -> BatchId {
        BatchId([number; 16])
    }

    proptest! {
        #[test]
        fn they_are_a_map(steps in prop::collection::vec((0u8..40, any::<bool>()), 0..200)) {
            let (mut batches, mut map) = (Batches::default(), BTreeMap::new());
            for (sequence, (number, add)) in (0..).zip(steps) {
                let id = id(number);
                if add {
                    batches.insert(id, numbered(sequence));
                    map.insert(id, sequence);
                } else {
                    let gone = batches.remove(&id).map(|batch| batch.sequence);
                    prop_assert_eq!(gone, map.remove(&id));
                }
                prop_assert_eq!(batches.len(), map.len());
                prop_assert_eq!(batches.get(&id).map(|batch| batch.sequence), map.get(&id).copied());
            }
            let all = |id: &BatchId| batches[id].sequence;
            prop_assert!(map.iter().all(|(id, sequence)| all(id) == *sequence));
        }
    }

    #[test]
    fn room_goes_with_the_batches() {
        let mut batches = Batches::default();
        let id = |number: u32| {
            BatchId(blake3::hash(&number.to_le_bytes()).as_bytes()[..16].try_into().unwrap())
        };
        (0..20_000).for_each(|number| batches.insert(id(number), numbered(number)));
        (0..19_990).for_each(|number| assert!(batches.remove(&id(number)).is_some()));
        assert!(batches.list.capacity() <= ROOM_KEPT && batches.table.capacity() <= 2 * ROOM_KEPT);
        (19_990..20_000).for_each(|number| assert_eq!(batches[&id(number)].sequence, number));
    }
}
