"""Read, change and write the 2-D pictures of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import io
from skimage.transform import resize

from semi_nnunet.raw.readers import BrokenFileError

MASK_THRESHOLD = 127  # JPEG blurs the 0 and 255 of a mask
JPEG_ENDINGS, JPEG_NOISE = (".jpg", ".jpeg"), 32  # largest value of a mask that is 0 everywhere


def read_rgb(path: Path) -> np.ndarray:
    """Read a picture (y, x, 3) of 8 bits; grey becomes colour, transparency is dropped."""
    picture = _opaque(_read(path))
    picture = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture
    if picture.dtype != np.uint8 or picture.shape[-1] != 3:
        what = f"must be grey or colour of 8 bits, got {picture.dtype} {picture.shape}"
        raise BrokenFileError(what, "convert the picture")
    return picture


def read_grey(path: Path) -> np.ndarray:
    """Read a picture (y, x) of 8 bits; colours are averaged."""
    return read_rgb(path).mean(axis=-1).round().astype(np.uint8)


def read_masks(paths: Sequence[Path]) -> np.ndarray:
    """Read the union of masks (y, x), 0 and 1, over all channels.

    Raises:
        BrokenFileError: the masks differ in size, or the values of one are too small for a mask.
    """
    masks = [_bright(_read(path), path) for path in paths]
    if len({mask.shape for mask in masks}) > 1:
        what = f"masks of one picture must have one size, got {[mask.shape for mask in masks]}"
        raise BrokenFileError(what, "resize them to the picture")
    return np.any(masks, axis=0).astype(np.uint8)


def _read(path: Path) -> np.ndarray:
    picture = np.asarray(io.imread(path))
    if path.suffix.lower() in JPEG_ENDINGS and picture.ndim == 3 and picture.shape[-1] == 4:
        what = "must be grey or RGB, got a JPEG file of CMYK"  # JPEG has no transparency
        raise BrokenFileError(what, "convert the picture to RGB")
    return picture


def _bright(mask: np.ndarray, path: Path) -> np.ndarray:
    if mask.dtype == bool:
        return mask
    mask = _opaque(mask)
    mask = mask if mask.ndim == 2 else mask.max(axis=-1)
    noise = JPEG_NOISE if path.suffix.lower() in JPEG_ENDINGS else 0
    if noise < mask.max() <= MASK_THRESHOLD:
        what = f"must be a mask of 0 and 255, got values up to {mask.max()}"
        raise BrokenFileError(what, "write 255 inside, 0 outside")
    return np.asarray(mask > MASK_THRESHOLD)


def _opaque(picture: np.ndarray) -> np.ndarray:
    """Drop the transparency: (y, x) if grey, else (y, x, 3)."""
    if picture.ndim == 3 and picture.shape[-1] <= 2:
        return picture[..., 0]
    return picture if picture.ndim == 2 else picture[..., :3]


def resize_picture(picture: np.ndarray, size: int | None, is_label: bool) -> np.ndarray:
    """Resize a picture to size x size, labels by nearest neighbour, images linearly."""
    if size is None:
        return picture
    shape = (size, size, *picture.shape[2:])
    order, smooth = (0, False) if is_label else (1, True)
    result = resize(picture, shape, order, preserve_range=True, anti_aliasing=smooth)
    return result.round().astype(picture.dtype)


def save_picture(picture: np.ndarray, target: Path) -> None:
    """Write a PNG file."""
    content = BytesIO()
    Image.fromarray(picture.astype(np.uint8) if picture.dtype == bool else picture).save(
        content, "PNG"
    )
    target.write_bytes(content.getvalue())


# ---- steps of a conversion ----


def write_colour(source: Path, size: int | None, target: Path) -> None:
    """Write a colour picture."""
    save_picture(resize_picture(read_rgb(source), size, False), target)


def write_grey(source: Path, size: int | None, target: Path) -> None:
    """Write a grey picture."""
    save_picture(resize_picture(read_grey(source), size, False), target)


def write_mask(sources: Sequence[Path], image: Path, size: int | None, target: Path) -> None:
    """Write a mask of 0 and 1.

    Raises:
        BrokenFileError: its size is not that of the image.
    """
    union, shape = read_masks(sources), io.imread(image).shape[:2]
    if union.shape != shape:
        what = f"{sources[0].name} must have the size of the image, {shape}, got {union.shape}"
        raise BrokenFileError(what, "resize the mask to the picture")
    save_picture(resize_picture(union, size, True), target)
