//! Shared arrays as those of the crate `ndarray` (feature `ndarray`).

use bytemuck::Pod;
use ndarray::{ArrayViewD, IxDyn};

use super::Shared;
use crate::error::{Error, Result};

impl<T: Pod> Shared<[T]> {
    /// The array, in its shape, where it lies. (Feature `ndarray`.)
    ///
    /// # Errors
    /// Its shape is longer than `ndarray` takes.
    pub fn view(&self) -> Result<ArrayViewD<'_, T>> {
        ArrayViewD::from_shape(IxDyn(&self.shape()), self).map_err(Error::data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_the_shape_and_the_elements() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let numbers: Vec<u32> = (0..12).collect();
        std::fs::write(file.path(), bytemuck::cast_slice(&numbers)).unwrap();
        let array = Shared::<[u32]>::open(file.path()).unwrap().reshape(&[3, 4]).unwrap();
        let view = array.view().unwrap();
        assert_eq!((view.shape(), view[[2, 1]]), (&[3, 4][..], 9));
        assert_eq!(view.as_ptr(), array.as_ptr());
        let row = array.rows(1..2);
        assert_eq!(row.view().unwrap().sum(), 4 + 5 + 6 + 7);
    }
}
