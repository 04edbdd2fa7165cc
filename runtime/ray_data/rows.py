"""The rows of a batch as Ray hands it over: a mapping of columns, or a pyarrow or pandas table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ImageError, OptionError
from ..images.source import HeldFile
from ..process.siblings import order_siblings
from .buckets import is_bucket_url, open_bucket_url

_IMAGE, _IMAGES, _QUESTION = "image", "images", "question"


@dataclass(frozen=True)
class Rows:
    """Columns of equal length, as Python lists; `arrays` are the same as they came."""

    columns: Mapping[str, list[Any]]
    arrays: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @cached_property
    def _held(self) -> dict[str, HeldFile]:
        """Files in buckets, each once."""
        return {}

    def question(self, number: int) -> str | None:
        """A row's own question; None if it has none. Raises OptionError if it is not text."""
        found = self.columns[_QUESTION][number] if _QUESTION in self.columns else None
        if found is not None and not isinstance(found, str):
            raise OptionError(f"question is {found!r}; allowed: text")
        return found or None

    def images(self, number: int) -> list[Any]:
        """A row's images, as sources. Raises ImageError for anything else."""
        several = self.columns[_IMAGES][number] if _IMAGES in self.columns else None
        one = self.columns[_IMAGE][number] if _IMAGE in self.columns else None
        if several is not None and not isinstance(several, list | tuple | np.ndarray):
            raise ImageError(f"images is a {type(several).__name__}; allowed: a list of bytes, paths or URLs")
        return [self._source(image) for image in ([] if one is None else [one]) + list(several or ())]

    def siblings_together(self) -> list[int]:
        """The numbers of all rows, those about the same images side by side."""
        return order_siblings([self._images_key(number) for number in range(len(self))])

    def _images_key(self, number: int) -> Hashable:
        cells = [self.columns[name][number] for name in (_IMAGE, _IMAGES) if name in self.columns]
        images = [image for cell in cells for image in (cell if isinstance(cell, list) else [cell])]
        known = images and all(isinstance(image, str | bytes) for image in images)
        return tuple(images) if known else number

    def _source(self, image: Any) -> Any:
        if isinstance(image, str) and is_bucket_url(image):
            return self._held.setdefault(image, HeldFile(image, lambda: open_bucket_url(image)))
        if isinstance(image, str | bytes | np.ndarray):
            return image
        raise ImageError(f"image is a {type(image).__name__}; allowed: bytes, a path, a URL, or uint8 [H, W, 3]")

    def carried(self, *, keep_images: bool) -> dict[str, Any]:
        """The columns that travel along, as they came: images only if they are kept, or are paths and URLs."""
        return {
            name: array
            for name, array in self.arrays.items()
            if keep_images or name not in (_IMAGE, _IMAGES) or not _holds_pixels(self.columns[name])
        }


def read_rows(batch: Any) -> Rows:
    """The rows of a batch. Raises OptionError if it has neither images nor questions."""
    if hasattr(batch, "to_pylist"):
        arrays = {name: batch.column(name) for name in batch.column_names}
    else:
        arrays = {str(name): batch[name] for name in (batch.columns if hasattr(batch, "columns") else batch)}
    if not arrays.keys() & {_IMAGE, _IMAGES, _QUESTION}:
        raise OptionError(
            f"the rows have the columns {', '.join(map(repr, arrays)) or 'none'}, and none of image, images and "
            "question; rename one with ds.rename_columns"
        )
    return Rows({name: _as_list(array) for name, array in arrays.items()}, arrays)


def _as_list(array: Any) -> list[Any]:
    if hasattr(array, "to_pylist"):
        return list(array.to_pylist())
    if isinstance(array, np.ndarray) and array.ndim > 1:
        return list(array)  # images as pixels
    values = array.tolist() if hasattr(array, "tolist") else list(array)
    return [value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value for value in values]


def _holds_pixels(values: Sequence[Any]) -> bool:
    """Whether a column of images holds anything but paths and URLs."""
    images = (image for value in values for image in (value if isinstance(value, list) else [value]))
    return not all(image is None or isinstance(image, str) for image in images)
