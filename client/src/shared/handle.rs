//! How a [`Shared`] travels, and what makes one valid.

use std::ops::Range;

use allhands_common::blob::Content;
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Shared, mention, size_of_element, whole};
use crate::error::{Error, ErrorKind, Result};

/// Axes of an array, at most: as many as anybody has a name for, and then some.
const AXES_MAX: usize = 16;

/// The serialised form: about a hundred bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Shared")]
struct Handle {
    content: Content,
    /// First byte in the content.
    offset: u64,
    shape: Vec<u64>,
    /// Bytes of an element: read as another type, it would be another array.
    element_bytes: u32,
}

impl<T: Pod> Serialize for Shared<[T]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;

        mention::note(&self.whole, &self.bytes);
        let content = self.whole.travels_as().map_err(S::Error::custom)?;
        let offset = self.bytes.start;
        let (shape, element_bytes) = (self.shape.to_vec(), size_of::<T>() as u32);
        Handle { content, offset, shape, element_bytes }.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Shared<[T]> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let Handle { content, offset, shape, element_bytes } = Handle::deserialize(deserializer)?;
        if element_bytes as usize != size_of::<T>() {
            return Err(D::Error::custom(format!(
                "it is an array of elements of {element_bytes} bytes, and {} has {}",
                std::any::type_name::<T>(),
                size_of::<T>()
            )));
        }
        let bytes = bytes_of::<T>(offset, &shape, content).map_err(D::Error::custom)?;
        let whole = whole::find(content, &bytes).map_err(D::Error::custom)?;
        Ok(Self::of(whole, bytes, shape.into()))
    }
}

/// The bytes of an array of this shape that begins at byte `offset` of its content.
pub(super) fn bytes_of<T: Pod>(offset: u64, shape: &[u64], content: Content) -> Result<Range<u64>> {
    let wrong = |what: String| Error::new(ErrorKind::Shape(what));
    if shape.len() > AXES_MAX {
        return Err(wrong(format!("an array has at most {AXES_MAX} axes, not {}", shape.len())));
    }
    let align = align_of::<T>() as u64;
    if !offset.is_multiple_of(align) {
        return Err(wrong(format!(
            "elements cannot begin at byte {offset} of {content}: one has to lie at a multiple of {align}"
        )));
    }
    let size = size_of_element::<T>();
    let length = shape.iter().try_fold(size, |product, axis| product.checked_mul(*axis));
    length
        .and_then(|length| offset.checked_add(length))
        .filter(|end| *end <= content.bytes())
        .map(|end| offset..end)
        .ok_or_else(|| {
            wrong(format!(
                "{content} has no room for an array of the shape {shape:?}, of {size} bytes an \
                 element, from byte {offset} on"
            ))
        })
}
