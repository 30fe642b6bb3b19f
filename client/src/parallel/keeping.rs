//! What the calls of a batch name, kept until their outcomes were taken: an array that nobody else holds any
//! more must still be there when its task runs.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::shared::whole::Whole;

/// Something to be kept.
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

/// Kept arrays, by the places of the calls that name them. Neighbours that name the same are one entry.
#[derive(Debug, Default)]
pub(super) struct Keeping(VecDeque<Run>);

#[derive(Debug)]
struct Run {
    places: Range<usize>,
    /// Outcomes that were not taken.
    left: usize,
    named: Vec<Kept>,
}

impl Keeping {
    /// The call at `place` names these. Places ascend.
    pub(super) fn keep(&mut self, place: usize, named: Vec<Kept>) {
        let same = |run: &Run| {
            let address = |kept: &Kept| Arc::as_ptr(kept).cast::<()>();
            run.named.iter().map(address).eq(named.iter().map(address))
        };
        match self.0.back_mut() {
            Some(run) if run.places.end == place && same(run) => {
                run.places.end += 1;
                run.left += 1;
            }
            _ => {
                let run = Run { places: place..place + 1, left: 1, named };
                self.0.push_back(run);
            }
        }
    }

    /// Whether the last call that was kept names `one` as well: then it was provided for that.
    pub(super) fn names(&self, one: &Arc<Whole>) -> bool {
        let address = Arc::as_ptr(one).cast::<()>();
        let last = self.0.back();
        last.is_some_and(|run| {
            run.named.iter().any(|kept| Arc::as_ptr(kept).cast::<()>() == address)
        })
    }

    /// Whether nothing is kept.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The outcome of the call at `place` was taken, or its task has ended.
    #[inline]
    pub(super) fn release(&mut self, place: usize) {
        if !self.0.is_empty() {
            self.release_one(place);
        }
    }

    fn release_one(&mut self, place: usize) {
        let at = self.0.partition_point(|run| run.places.end <= place);
        let Some(run) = self.0.get_mut(at).filter(|run| run.places.contains(&place)) else {
            return;
        };
        run.left = run.left.saturating_sub(1);
        if run.left == 0 {
            run.named.clear();
        }
        while self.0.front().is_some_and(|run| run.left == 0) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shared;

    fn array(length: usize) -> (tempfile::NamedTempFile, Arc<Whole>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1u8; length]).unwrap();
        let whole = Arc::clone(Shared::<[u8]>::open(file.path()).unwrap().whole());
        (file, whole)
    }

    #[test]
    fn an_array_is_kept_until_the_last_of_its_outcomes_was_taken() {
        let ((_one, a), (_other, b)) = (array(3), array(4));
        let mut keeping = Keeping::default();
        (0..3).for_each(|place| keeping.keep(place, vec![a.clone()]));
        // The call at 3 names nothing.
        keeping.keep(4, vec![b.clone()]);
        keeping.keep(5, vec![a.clone()]);
        assert_eq!(keeping.0.len(), 3, "neighbours are one entry");
        assert!(keeping.names(&a) && !keeping.names(&b), "of the last one");
        assert_eq!((Arc::strong_count(&a), Arc::strong_count(&b)), (3, 2));
        [4, 3, 1, 0].into_iter().for_each(|place| keeping.release(place));
        assert_eq!((Arc::strong_count(&a), Arc::strong_count(&b)), (3, 1));
        keeping.release(2);
        assert_eq!(Arc::strong_count(&a), 2);
        keeping.release(5);
        assert_eq!((Arc::strong_count(&a), keeping.0.len()), (1, 0));
    }
}
