//! A map from counted ids to small values, for ids that come in order and mostly go in order.
//!
//! A B-tree whose keys only ever come at its end is half empty, and each of its entries carries its key.
//! Here sixteen neighbours share a key and a heap object.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

const PAGE: u64 = 16;

/// The map. What a full page costs beside its values is two bytes a value.
#[derive(Debug, Clone, Default)]
pub struct Paged<T> {
    pages: BTreeMap<u64, Box<Page<T>>>,
}

/// The values of `PAGE` neighbours.
#[derive(Debug, Clone, Default)]
struct Page<T> {
    /// Bit by bit, which of them are there.
    present: u16,
    values: [T; PAGE as usize],
}

impl<T: Copy + Default> Paged<T> {
    /// Without a value.
    pub const fn new() -> Self {
        Self { pages: BTreeMap::new() }
    }

    /// The value of `key`.
    pub fn get(&self, key: u64) -> Option<&T> {
        let (slot, bit) = place(key);
        let page = self.pages.get(&(key / PAGE))?;
        (page.present & bit != 0).then(|| &page.values[slot])
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (slot, bit) = place(key);
        let page = self.pages.get_mut(&(key / PAGE))?;
        (page.present & bit != 0).then(|| &mut page.values[slot])
    }

    /// Sets the value of `key`; gives the one before.
    pub fn insert(&mut self, key: u64, value: T) -> Option<T> {
        let (slot, bit) = place(key);
        let page = self.pages.entry(key / PAGE).or_default();
        let before = (page.present & bit != 0).then_some(page.values[slot]);
        page.present |= bit;
        page.values[slot] = value;
        before
    }

    /// Takes the value of `key` out; a page goes with its last one.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let (slot, bit) = place(key);
        let page = self.pages.get_mut(&(key / PAGE))?;
        if page.present & bit == 0 {
            return None;
        }
        page.present &= !bit;
        let value = page.values[slot];
        if page.present == 0 {
            self.pages.remove(&(key / PAGE));
        }
        Some(value)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> + '_ {
        self.pages.iter().flat_map(|(number, page)| {
            let there = (0..PAGE).filter(|slot| page.present >> slot & 1 != 0);
            there.map(move |slot| (number * PAGE + slot, &page.values[slot as usize]))
        })
    }
}

/// Where `key` is within its page, and the bit that says so.
const fn place(key: u64) -> (usize, u16) {
    let slot = key % PAGE;
    (slot as usize, 1 << slot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u64..70, any::<Option<u32>>()), 0..200)) {
            let (mut paged, mut map) = (Paged::new(), BTreeMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(paged.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(paged.remove(key), map.remove(&key)),
                }
                prop_assert_eq!(paged.get(key), map.get(&key));
                prop_assert_eq!(paged.get_mut(key), map.get_mut(&key));
            }
            prop_assert!(paged.iter().eq(map.iter().map(|(key, value)| (*key, value))));
            prop_assert!(paged.pages.values().all(|page| page.present != 0));
        }
    }
}
