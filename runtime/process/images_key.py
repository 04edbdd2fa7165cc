"""What identifies the images of a prompt: a hash of their crops and sizes."""

from __future__ import annotations

import hashlib

import numpy as np

from ..backend import ModelInputs


def hash_images(inputs: ModelInputs) -> str:
    """Equal for equal crops. 23 MB, which are 17 crops, take some 20 ms, and do not hold the interpreter."""
    hashed = hashlib.blake2b(digest_size=16)
    for array in (inputs.pixel_values, inputs.image_sizes):
        assert array is not None
        data = np.ascontiguousarray(array)
        hashed.update(f"{data.dtype.str}{data.shape}".encode())
        hashed.update(data.view(np.uint8).data)
    return hashed.hexdigest()
