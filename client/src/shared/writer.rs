//! Arrays that are written piece by piece, and become shared when they are finished.

use std::fmt;
use std::io::{self, PipeWriter};
use std::marker::PhantomData;
use std::thread::JoinHandle;

use allhands_store::pieces::{Pieces, PiecesWriter};
use bytemuck::Pod;

use super::put::Place;
use super::whole::{self, Stored, Whole};
use super::{Shared, size_of_element};
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::executor::loans;
use crate::executor::loans::Pour;

/// Writes an array of any length, and gives a [`Shared`] handle on it when it is finished.
///
/// The elements go to disk as they come, so the array may be larger than memory. In a task that is the worker's disk,
/// and the handle is [a result](Shared#as-a-result); elsewhere it is the cluster's, as with
/// [`Cluster::put`](crate::Cluster::put). A writer that is dropped before [`finish`](Self::finish) leaves nothing.
///
/// ```no_run
/// use allhands::prelude::*;
/// use allhands::Failure;
///
/// /// Rows of 1,024 numbers, one after the other.
/// fn simulate(steps: u64) -> Result<Shared<[f64]>, Failure> {
///     let mut array = ArrayWriter::of_rows(&[1024])?;
///     let mut row = vec![0.0; 1024];
///     for step in 0..steps {
///         row.fill(step as f64);
///         array.push(&row)?;
///     }
///     Ok(array.finish()?)
/// }
/// ```
///
/// Of bytes it is an [`io::Write`].
pub struct ArrayWriter<T: Pod> {
    /// Elements along each axis but the first.
    row: Vec<u64>,
    elements: u64,
    /// Nothing once it has failed.
    sink: Option<Sink>,
    of: PhantomData<fn(T)>,
}

/// Who stores it.
enum Sink {
    /// The worker that has given this process the task.
    Worker(Pour),
    /// A thread, in a store of this process.
    Here { pieces: PiecesWriter<PipeWriter>, stored: JoinHandle<Result<Stored>> },
}

impl<T: Pod> ArrayWriter<T> {
    /// Begins an array of one axis.
    ///
    /// # Errors
    /// It is called in an executor on a thread on which no task runs; no cluster can be had; or the system refuses a
    /// pipe or a thread.
    pub fn new() -> Result<Self> {
        Self::of_rows(&[])
    }

    /// Begins an array of rows of this shape: its own is that with the number of rows before it.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if a row has no elements.
    pub fn of_rows(row: &[usize]) -> Result<Self> {
        match Place::here()? {
            Place::Worker(task) => {
                let sink = loans::pour(task).map_err(Error::blob)?;
                Self::with(row, Sink::Worker(sink))
            }
            Place::Cluster(cluster) => Self::of_rows_on(&cluster, row),
        }
    }

    /// Begins an array of rows in a store for `cluster`; no shape: of one axis.
    ///
    /// # Errors
    /// As [`of_rows`](Self::of_rows).
    pub fn of_rows_on(cluster: &Cluster, row: &[usize]) -> Result<Self> {
        let (reader, writer) = io::pipe().map_err(Error::data)?;
        let data = cluster.data().clone();
        let stored = std::thread::Builder::new()
            .name("allhands-writer".into())
            .spawn(move || data.put_reader(Pieces::new(reader)))
            .map_err(Error::data)?;
        Self::with(row, Sink::Here { pieces: PiecesWriter::new(writer), stored })
    }

    fn with(row: &[usize], sink: Sink) -> Result<Self> {
        let row: Vec<u64> = row.iter().map(|axis| *axis as u64).collect();
        let elements = row.iter().try_fold(1u64, |product, axis| product.checked_mul(*axis));
        if elements.is_none_or(|elements| elements == 0) {
            let what =
                format!("rows of the shape {row:?} cannot be written: each has to have elements");
            return Err(Error::new(ErrorKind::Shape(what)));
        }
        // An element without bytes is refused when this is compiled.
        _ = size_of_element::<T>();
        Ok(Self { row, elements: 0, sink: Some(sink), of: PhantomData })
    }

    /// Appends elements: those of a row, of many, or of a part of one.
    ///
    /// # Errors
    /// There is no room for them. Nothing can be written after that.
    pub fn push(&mut self, elements: &[T]) -> Result<()> {
        let bytes = bytemuck::cast_slice(elements);
        let pushed = match self.sink.as_mut().ok_or_else(failed_before)? {
            Sink::Worker(pour) => pour.push(bytes).map_err(Error::blob),
            Sink::Here { pieces, .. } => pieces.push(bytes).map_err(Error::data),
        };
        match pushed {
            Ok(()) => {
                self.elements += elements.len() as u64;
                Ok(())
            }
            // The thread knows why nobody takes it any more.
            Err(error) => Err(match self.sink.take() {
                Some(Sink::Here { pieces, stored }) => {
                    drop(pieces);
                    joined(stored).err().unwrap_or(error)
                }
                Some(Sink::Worker(_)) | None => error,
            }),
        }
    }

    /// How many elements were written.
    pub const fn elements(&self) -> u64 {
        self.elements
    }

    /// That is all of it: waits until it is stored.
    ///
    /// # Errors
    /// The last row is not complete, or there is no room. Nothing is left of it then.
    pub fn finish(self) -> Result<Shared<[T]>> {
        let Self { row, elements, sink, .. } = self;
        let of_row: u64 = row.iter().product();
        if !elements.is_multiple_of(of_row) {
            return Err(Error::new(ErrorKind::Shape(format!(
                "{elements} elements were written, which are no whole rows of the shape {row:?}"
            ))));
        }
        let whole = match sink.ok_or_else(failed_before)? {
            Sink::Worker(pour) => pour.finish().and_then(whole::made).map_err(Error::blob)?,
            Sink::Here { pieces, stored } => {
                // If it is not taken, the thread says why.
                _ = pieces.finish();
                Whole::put(joined(stored)?)?
            }
        };
        let shape: Vec<u64> = std::iter::once(elements / of_row).chain(row).collect();
        Shared::new(whole, 0, &shape)
    }
}

fn joined(stored: JoinHandle<Result<Stored>>) -> Result<Stored> {
    stored.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn failed_before() -> Error {
    Error::data(io::Error::new(io::ErrorKind::BrokenPipe, "it could not be written before"))
}

impl io::Write for ArrayWriter<u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pushed = self.push(bytes);
        pushed.map(|()| bytes.len()).map_err(|error| io::Error::other(chain(&error)))
    }

    /// Nothing is to be seen of it before [`finish`](ArrayWriter::finish).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Pod> fmt::Debug for ArrayWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, elements) = (std::any::type_name::<T>(), self.elements);
        write!(f, "ArrayWriter({of}, {elements} elements)")
    }
}

#[cfg(test)]
mod tests;
