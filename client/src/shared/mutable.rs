//! A private copy of a shared array that can be written.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use allhands_store::map::PrivateMap;
use bytemuck::Pod;

/// What [`Shared::to_mut`](crate::Shared::to_mut) gives: the array, to be written by whoever has this. Pages
/// that are written become private to this process; others are still those of everybody.
pub struct SharedMut<T: ?Sized> {
    pages: PrivateMap,
    shape: Vec<usize>,
    elements: PhantomData<fn() -> Box<T>>,
}

impl<T: Pod> SharedMut<[T]> {
    pub(super) fn of(pages: PrivateMap, shape: Vec<usize>) -> Self {
        Self { pages, shape, elements: PhantomData }
    }

    /// Elements along each axis, the first one outermost.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

impl<T: Pod> Deref for SharedMut<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        super::elements_of(&self.pages)
    }
}

impl<T: Pod> DerefMut for SharedMut<[T]> {
    fn deref_mut(&mut self) -> &mut [T] {
        // No bytes lie nowhere, at no alignment.
        if self.pages.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(&mut self.pages) }
    }
}

impl<T: ?Sized> fmt::Debug for SharedMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMut({} {:?})", std::any::type_name::<T>(), self.shape)
    }
}
