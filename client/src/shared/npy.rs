//! Arrays in NumPy's files (feature `npy`).

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, Write as _};
use std::path::Path;

use bytemuck::Pod;
use npyz::{AutoSerialize, NpyFile, Order, WriteOptions, WriterBuilder as _};

use super::Shared;
use crate::error::{Error, ErrorKind, Result};

impl<T: Pod + AutoSerialize> Shared<[T]> {
    /// [`open`](Self::open)s the array in a `.npy` file where it lies, with its shape. (Feature `npy`.)
    ///
    /// # Errors
    /// As [`open`](Self::open); also if it is no such file, its elements are of another type than `T`, or it
    /// lies column by column (`order='F'` in NumPy).
    pub fn open_npy(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let wrong =
            |what: String| Error::new(ErrorKind::Shape(format!("{} {what}", path.display())));
        let file = File::open(path).map_err(|error| wrong(format!("cannot be opened: {error}")))?;
        let npy = NpyFile::new(BufReader::new(file))
            .map_err(|error| wrong(format!("is no .npy file: {error}")))?;
        let (is, wanted) = (npy.dtype(), T::default_dtype());
        if is.descr() != wanted.descr() {
            return Err(wrong(format!(
                "holds elements of the type {}, not {} ({}): convert it with NumPy's astype",
                is.descr(),
                wanted.descr(),
                std::any::type_name::<T>()
            )));
        }
        if npy.order() == Order::Fortran && npy.shape().len() > 1 {
            return Err(wrong(
                "lies column by column: save it with np.save(path, np.ascontiguousarray(array))"
                    .into(),
            ));
        }
        let shape: Vec<usize> = npy.shape().iter().map(|axis| *axis as usize).collect();
        let offset = npy.into_inner().stream_position();
        let offset = offset.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        Self::open_part(path, offset, &shape)
    }

    /// Writes it as a `.npy` file, which must not be there. (Feature `npy`.)
    ///
    /// # Errors
    /// The file is there, or cannot be written.
    pub fn write_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let file = File::create_new(path.as_ref()).map_err(Error::data)?;
        let shape: Vec<u64> = self.shape.to_vec();
        let mut out = BufWriter::new(file);
        let mut writer = WriteOptions::<T>::new()
            .default_dtype()
            .shape(&shape)
            .writer(&mut out)
            .begin_nd()
            .map_err(Error::data)?;
        writer.extend(self.iter().copied()).map_err(Error::data)?;
        writer.finish().map_err(Error::data)?;
        out.flush().map_err(Error::data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_written_and_opened_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("raw");
        let numbers: Vec<f64> = (0..24).map(f64::from).collect();
        std::fs::write(&raw, bytemuck::cast_slice(&numbers)).unwrap();
        let array = Shared::<[f64]>::open(&raw).unwrap().reshape(&[2, 3, 4]).unwrap();
        let path = folder.path().join("array.npy");
        array.write_npy(&path).unwrap();
        let again = Shared::<[f64]>::open_npy(&path).unwrap();
        assert_eq!((again.shape(), &*again), (vec![2, 3, 4], &numbers[..]));
        let there = array.write_npy(&path).unwrap_err();
        assert!(format!("{there:?}").contains("exists"), "{there:?}");

        let error = Shared::<[f32]>::open_npy(&path).unwrap_err().to_string();
        assert!(error.contains("<f8") && error.contains("f32"), "{error}");
        let error = Shared::<[f64]>::open_npy(&raw).unwrap_err().to_string();
        assert!(error.contains("is no .npy file"), "{error}");
    }

    #[test]
    fn what_lies_column_by_column_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array.npy");
        let header = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let padded = format!("{header:<117}\n");
        bytes.extend((padded.len() as u16).to_le_bytes());
        bytes.extend(padded.bytes());
        bytes.extend([0; 32]);
        std::fs::write(&path, bytes).unwrap();
        let error = Shared::<[f64]>::open_npy(&path).unwrap_err().to_string();
        assert!(error.contains("column by column"), "{error}");
    }
}
