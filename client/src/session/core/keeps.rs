//! Results that this process has handles on: workers are told to keep them, by way of each leader anew; and results
//! that it has, which they need not keep.

use std::collections::btree_map::Entry;

use allhands_common::id::{BatchId, BlobId};
use allhands_common::limit::BLOB_NEWS_MAX;
use allhands_common::range::TaskRange;
use allhands_common::wire::client::{FromClient, Keep};

use super::{Action, Core, Peer};

/// Task ranges of one message: 16 KiB at most.
const FETCHED_MAX: usize = 1024;

/// What is kept.
#[derive(Debug)]
pub(super) struct Kept {
    keep: Keep,
    /// How many have asked for it.
    guards: usize,
}

impl Core {
    /// One more has a handle on each of these.
    pub(super) fn keep(&mut self, keeps: Vec<Keep>, out: &mut Vec<Action>) {
        self.has_kept = true;
        let mut new = Vec::new();
        for keep in keeps {
            match self.kept.entry(keep.blob.id) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Kept { keep, guards: 1 });
                    new.push(keep);
                }
                Entry::Occupied(mut occupied) => {
                    let known = occupied.get_mut();
                    known.guards += 1;
                    if known.keep.replicas < keep.replicas {
                        known.keep.replicas = keep.replicas;
                        new.push(known.keep);
                    }
                }
            }
        }
        if let Some(peer) = self.leader {
            self.say_keeps(peer, &new, false, out);
        }
    }

    /// One fewer has.
    pub(super) fn let_go(&mut self, blobs: Vec<BlobId>, out: &mut Vec<Action>) {
        let mut gone = Vec::new();
        for blob in blobs {
            if let Entry::Occupied(mut occupied) = self.kept.entry(blob) {
                occupied.get_mut().guards -= 1;
                if occupied.get().guards == 0 {
                    occupied.remove();
                    gone.push(blob);
                }
            }
        }
        if let Some(peer) = self.leader {
            for some in gone.chunks(BLOB_NEWS_MAX) {
                self.say(peer, FromClient::LetGo { blobs: some.to_vec() }, out);
            }
        }
    }

    /// A leader that has taken the session knows of none, or of some that were let go meanwhile.
    pub(super) fn keep_all(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if self.has_kept {
            let keeps: Vec<Keep> = self.kept.values().map(|kept| kept.keep).collect();
            self.say_keeps(peer, &keeps, true, out);
        }
    }

    fn say_keeps(&mut self, peer: Peer, keeps: &[Keep], all: bool, out: &mut Vec<Action>) {
        let mut some = keeps.chunks(BLOB_NEWS_MAX).peekable();
        if some.peek().is_none() && all {
            self.say(peer, FromClient::Keep { blobs: Vec::new(), all }, out);
        }
        while let Some(blobs) = some.next() {
            let all = all && some.peek().is_none();
            self.say(peer, FromClient::Keep { blobs: blobs.to_vec(), all }, out);
        }
    }

    /// What the outcomes of these tasks name is here, or kept.
    pub(super) fn note_fetched(&mut self, batch: BatchId, tasks: TaskRange) {
        self.fetched.entry(batch).or_default().insert(tasks);
    }

    /// Says so, where there is a leader. What is lost on the way goes with its batch.
    pub(super) fn say_fetched(&mut self, peer: Peer, out: &mut Vec<Action>) {
        for (batch, tasks) in std::mem::take(&mut self.fetched) {
            let tasks: Vec<TaskRange> = tasks.iter().collect();
            for some in tasks.chunks(FETCHED_MAX) {
                self.say(peer, FromClient::Fetched { batch, tasks: some.to_vec() }, out);
            }
        }
    }
}
