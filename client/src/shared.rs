//! Arrays that tasks read where they lie: one copy a machine, mapped by everybody who uses them.
//!
//! A [`Shared`] is a handle: what it belongs to (a blob, or a file in place), which bytes of it, and a shape.
//! Serialised it is a hundred bytes. In an executor it maps the same pages as everybody else on the machine.
//!
//! * `whole` is the mapped bytes that handles look at, and finds them again when a handle is decoded.
//! * `kept` is what an executor keeps mapped, `task` what the running task uses.
//! * `put` and `writer` make arrays, in tasks and outside of them; `left` is one that a task has left with a worker.
//! * `mention` notes which handles the arguments of a call hold, so that the call keeps them.

mod handle;
mod kept;
pub(crate) mod left;
pub(crate) mod mention;
mod mutable;
#[cfg(feature = "npy")]
mod npy;
pub(crate) mod put;
pub(crate) mod task;
#[cfg(feature = "ndarray")]
mod view;
pub(crate) mod whole;
mod writer;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use allhands_common::blob::Content;
use allhands_common::failure::Cause;
use allhands_store::in_place::FileInPlace;
use allhands_store::map::Map;
use bytemuck::Pod;

pub use self::mutable::SharedMut;
pub use self::put::put;
use self::whole::Whole;
pub use self::writer::ArrayWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::context;

/// A read-only array that is shared by everybody who uses it: [`Cluster::put`](crate::Cluster::put) copies one
/// into the cluster, once, and [`Shared::open`] uses a file where it lies. As an argument of a task it costs a
/// hundred bytes, and the task reads it as a slice, straight from the map.
///
/// ```no_run
/// use allhands::{Cluster, Parallel, Shared, delayed};
///
/// fn mean(part: Shared<[f64]>) -> f64 {
///     part.iter().sum::<f64>() / part.len() as f64
/// }
///
/// let cluster = Cluster::from_env()?;
/// let array = cluster.put(&vec![0.5; 1 << 20])?;
/// let parts = (0..16).map(|part| array.slice(part << 16..(part + 1) << 16));
/// let means = Parallel::new().run(parts.map(delayed(mean)))?;
/// # Ok::<(), allhands::Error>(())
/// ```
///
/// Only the bytes under a handle travel to the machine that uses it. What was put stays for as long as a
/// handle on it is there, or a call that was given one.
///
/// # As a result
///
/// A task may return one, or several, anywhere in its result: of an array that it has [`put`](crate::put), or written
/// with an [`ArrayWriter`]. The array stays with the worker. The handle can be given to other tasks, which find it
/// there; and this program fetches what is under a handle when it first reads it, and not before. Of a handle that was
/// sliced, that is the slice.
///
/// ```no_run
/// use allhands::prelude::*;
///
/// fn squares(signal: Shared<[f64]>) -> Result<(f64, Shared<[f64]>), allhands::Failure> {
///     let squares: Vec<f64> = signal.iter().map(|x| x * x).collect();
///     Ok((squares.iter().sum(), allhands::put(&squares)?))
/// }
/// # let signal: Shared<[f64]> = Shared::open("signal")?;
/// let results = Parallel::new().try_run([delayed(squares)(signal)]).unwrap();
/// let (sum, squares) = &results[0];
/// println!("{sum}; the first: {:?}", &squares.slice(0..10)[..]);
/// # Ok::<(), allhands::Error>(())
/// ```
///
/// To read a handle as a slice may have to wait for the bytes, and panics if they are nowhere any more: their worker
/// was lost, and no other had them. [`load`](Self::load) gives that as an error. What a task is *given* is there before
/// the task begins.
///
/// Elements are plain data ([`Pod`](bytemuck::Pod)): numbers, arrays of them, and `#[repr(C)]` structs that
/// derive it. Elements are laid out as this program's machines lay them out.
pub struct Shared<T: ?Sized> {
    whole: Arc<Whole>,
    /// Which bytes of the content; they lie in what the whole has mapped.
    bytes: Range<u64>,
    /// Elements along each axis, the first one outermost; their product is the number of elements.
    shape: Box<[u64]>,
    /// The map of these bytes alone, where the whole is not mapped.
    part: OnceLock<Arc<Map>>,
    elements: PhantomData<fn() -> Box<T>>,
}

impl<T: Pod> Shared<[T]> {
    /// Uses the file at `path` where it lies, all of it, as elements one after the other. Nothing is copied, and on
    /// an embedded cluster nothing is read that no task reads. For a cluster of other machines it is read once, by the
    /// first call that is given it, to learn the hash of each chunk; what no task reads never leaves this machine.
    ///
    /// The file must be left alone while it is in use, its name and its attributes too: a task that used it then fails
    /// with [`Cause::SourceChanged`](crate::Cause::SourceChanged), also one whose process ends because it reads beyond
    /// the new end of a file that was cut. (A program that does so itself ends.)
    ///
    /// # Errors
    /// It cannot be opened, is no regular file, or its length is no multiple of an element's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Arc::new(FileInPlace::open(path.as_ref()).map_err(Error::data)?);
        let bytes = file.identity().bytes;
        let elements = bytes / size_of_element::<T>();
        if elements * size_of_element::<T>() != bytes {
            return Err(Error::new(ErrorKind::Shape(format!(
                "{} has {bytes} bytes, which is no multiple of the {} of one element: open it as \
                 `Shared<[u8]>`, or a part of it with `open_part`",
                path.as_ref().display(),
                size_of::<T>()
            ))));
        }
        Self::new(Whole::in_place(file)?, 0, &[elements])
    }

    /// [`open`](Self::open)s the elements of a file that begin `offset` bytes after its start, behind a header
    /// for example, as an array of `shape`.
    ///
    /// # Errors
    /// As [`open`](Self::open); also if the file has fewer, or `offset` is no multiple of an element's alignment.
    pub fn open_part(path: impl AsRef<Path>, offset: u64, shape: &[usize]) -> Result<Self> {
        let file = Arc::new(FileInPlace::open(path.as_ref()).map_err(Error::data)?);
        let shape: Vec<u64> = shape.iter().map(|axis| *axis as u64).collect();
        Self::new(Whole::in_place(file)?, offset, &shape)
    }

    /// The elements of `whole` from byte `offset` of its content on.
    pub(crate) fn new(whole: Arc<Whole>, offset: u64, shape: &[u64]) -> Result<Self> {
        let bytes = handle::bytes_of::<T>(offset, shape, whole.content())?;
        Ok(Self::of(whole, bytes, shape.into()))
    }

    pub(crate) const fn of(whole: Arc<Whole>, bytes: Range<u64>, shape: Box<[u64]>) -> Self {
        Self { whole, bytes, shape, part: OnceLock::new(), elements: PhantomData }
    }

    /// The elements, as reading the handle gives them; here whatever is amiss is an error. Waits until they are here:
    /// those of a result are fetched now, unless they were before. May be called on several threads at a time, for
    /// several handles or the same; blocks, so in async code it belongs on a thread that may.
    ///
    /// # Errors
    /// They are nowhere any more ([`Cause::BlobLost`](crate::Cause::BlobLost)): the worker that had them is lost. To
    /// call the task again helps. Or they cannot be had at the moment ([`Cause::Unlent`](crate::Cause::Unlent)): no
    /// coordinator leads, say, or there is no room. See [`Error::cause`](crate::Error::cause).
    pub fn load(&self) -> Result<&[T]> {
        self.held().map(elements_of).map_err(Error::blob)
    }

    #[inline]
    fn held(&self) -> Result<&[u8], Cause> {
        match self.whole.bytes(&self.bytes) {
            Some(bytes) => Ok(bytes),
            None => self.fetched(),
        }
    }

    #[cold]
    fn fetched(&self) -> Result<&[u8], Cause> {
        if let Some(part) = self.part.get() {
            return Ok(part);
        }
        match self.whole.load(&self.bytes)? {
            Some(part) => Ok(self.part.get_or_init(|| Arc::new(part))),
            None => Ok(self.whole.bytes(&self.bytes).unwrap_or_default()),
        }
    }

    /// The elements `range`, as an array of one axis.
    ///
    /// # Panics
    /// As slicing does: when the range ends beyond the array, or before it begins.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let len = self.len();
        assert!(
            range.start <= range.end && range.end <= len,
            "the elements {range:?} of a shared array of {len}"
        );
        self.part(range.start as u64..range.end as u64, Box::new([range.len() as u64]))
    }

    /// The rows `range`: what lies under these indices of the first axis. Only their bytes travel.
    ///
    /// # Panics
    /// When the range ends beyond the first axis, or before it begins.
    pub fn rows(&self, range: Range<usize>) -> Self {
        let rows = self.shape.first().copied().unwrap_or(0);
        let (start, end) = (range.start as u64, range.end as u64);
        assert!(start <= end && end <= rows, "the rows {range:?} of a shared array of {rows}");
        // Where there are no rows, one may be longer than anything.
        let row = self
            .shape
            .iter()
            .skip(1)
            .try_fold(1u64, |row, axis| row.checked_mul(*axis))
            .unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = end - start;
        self.part(start * row..end * row, shape)
    }

    #[cfg(test)]
    pub(crate) const fn whole(&self) -> &Arc<Whole> {
        &self.whole
    }

    fn part(&self, elements: Range<u64>, shape: Box<[u64]>) -> Self {
        let size = size_of_element::<T>();
        let start = self.bytes.start;
        let bytes = start + elements.start * size..start + elements.end * size;
        Self::of(Arc::clone(&self.whole), bytes, shape)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// A shape of another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let elements = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        if elements != Some(self.len()) {
            return Err(Error::new(ErrorKind::Shape(format!(
                "{} elements cannot have the shape {shape:?}",
                self.len()
            ))));
        }
        let shape = shape.iter().map(|axis| *axis as u64).collect();
        Ok(Self { shape, ..self.clone() })
    }

    /// The same bytes as elements of another type, as an array of one axis.
    ///
    /// # Errors
    /// The bytes are no multiple of such an element, or do not begin where one may lie.
    pub fn cast<U: Pod>(&self) -> Result<Shared<[U]>> {
        let bytes = self.bytes.end - self.bytes.start;
        let elements = bytes / size_of_element::<U>();
        if elements * size_of_element::<U>() != bytes {
            return Err(Error::new(ErrorKind::Shape(format!(
                "{bytes} bytes are no multiple of the {} of one element",
                size_of::<U>()
            ))));
        }
        Shared::new(Arc::clone(&self.whole), self.bytes.start, &[elements])
    }

    /// Has as many workers keep a copy of all of it, of what was put or is a task's result, for as long as a handle on
    /// it is there; at most eight, and as many as there are. Returns at once, and workers fetch it in their own time;
    /// one that is lost is replaced. What was put is also with this program; without this, workers have what their
    /// tasks have read, as long as there is room. See also [`Parallel::replicas`](crate::Parallel::replicas). Does
    /// nothing on an embedded cluster, which is one machine.
    ///
    /// # Errors
    /// It is a file in place, or this program has workers keep too many arrays already.
    pub fn replicate(&self, workers: u8) -> Result<()> {
        self.whole.replicate(workers)
    }

    /// How many elements it has. Nothing is fetched to say so.
    pub const fn len(&self) -> usize {
        ((self.bytes.end - self.bytes.start) / size_of_element::<T>()) as usize
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements along each axis, the first one outermost.
    pub fn shape(&self) -> Vec<usize> {
        self.shape.iter().map(|axis| *axis as usize).collect()
    }

    /// A private copy that can be written: pages are copied as they are written to, and nobody else sees what
    /// is written.
    ///
    /// # Errors
    /// The system has no memory for another map, or a file in place was changed.
    pub fn to_mut(&self) -> Result<SharedMut<[T]>> {
        Ok(SharedMut::of(self.whole.private(&self.bytes)?, self.shape()))
    }
}

/// As a number of bytes. An element without any is refused when this is compiled.
const fn size_of_element<T>() -> u64 {
    const { assert!(size_of::<T>() > 0, "an array's elements have to have bytes") };
    size_of::<T>() as u64
}

/// Bytes whose length and alignment were looked at when their handle was made.
fn elements_of<T: Pod>(bytes: &[u8]) -> &[T] {
    // No bytes lie nowhere, at no alignment.
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

impl<T: Pod> Deref for Shared<[T]> {
    type Target = [T];

    /// # Panics
    /// They are those of a task's result, and nowhere any more: see [`load`](Shared::load).
    fn deref(&self) -> &[T] {
        match self.held() {
            Ok(bytes) => elements_of(bytes),
            Err(cause) => lost(cause),
        }
    }
}

/// Nothing else can be done where a slice is expected. A task ends of the cause, not of the panic.
#[cold]
fn lost(cause: Cause) -> ! {
    let words = cause.to_string();
    if context::is_set() {
        task::refuse(Some(cause));
    }
    panic!("a shared array cannot be read: {words}")
}

impl<T: Pod> AsRef<[T]> for Shared<[T]> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            whole: Arc::clone(&self.whole),
            bytes: self.bytes.clone(),
            shape: self.shape.clone(),
            part: self.part.clone(),
            elements: PhantomData,
        }
    }
}

impl<T: ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (element, content) = (std::any::type_name::<T>(), self.whole.content());
        write!(f, "Shared({element} {:?}, ", self.shape)?;
        match content {
            Content::Blob { .. } => write!(f, "{content}, ")?,
            Content::File(_) => match self.whole.path() {
                Some(path) => write!(f, "{}, ", path.display())?,
                None => write!(f, "{content}, ")?,
            },
        }
        write!(f, "bytes {}..{})", self.bytes.start, self.bytes.end)
    }
}

#[cfg(test)]
mod tests;
