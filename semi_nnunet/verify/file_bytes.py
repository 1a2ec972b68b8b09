"""Checks of an image file's bytes before a reader opens it: does it exist, complete and undamaged?

nnU-Net's readers forgive too much: SimpleITK returns zeros for the missing half of a truncated
``.nii.gz``, turns NaN in NIfTI into 0, repairs a spacing of 0, and ignores the checksums inside
``.mha`` and ``.nrrd``; tifffile drops the missing pages of a ``.tif``. Files ``.png`` and ``.bmp``
are only checked by their reader.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import nibabel as nib
import numpy as np
import tifffile

from semi_nnunet.raw.readers import ONE_PER_CHANNEL, BrokenFileError, format_numbers
from semi_nnunet.util.errors import Problem, shorten_reason

CHUNK = 1 << 20  # bytes read at a time; a multiple of every voxel size
GIPL_ITEM_SIZES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
NIFTI_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


@dataclass(frozen=True)
class RawScan:
    """Facts of the bytes that nnU-Net's reader hides.

    Args:
        spacing: in the header.
        nans: number of NaN voxels.
        infs: number of infinite voxels.
        oriented: False for a NIfTI file whose qform and sform codes are both 0.
    """

    spacing: tuple[float, ...] = ()
    nans: int = 0
    infs: int = 0
    oriented: bool = True


def check_presence(path: str) -> None:
    """Raise BrokenFileError if the file is missing, empty, unreadable or no regular file.

    Opening a pipe would block, and some devices never end.
    """
    if not os.path.exists(path):
        if os.path.islink(path):
            target = os.readlink(path)
            raise BrokenFileError(f"is a link to {target!r}, which does not exist", "fix the link")
        raise BrokenFileError("the file is absent", "add the file or remove its case")
    if not os.path.isfile(path):
        file_type = "a folder" if os.path.isdir(path) else "a pipe, socket or device"
        raise BrokenFileError(f"must be a file, got {file_type}", "put the image itself there")
    if os.path.getsize(path) == 0:
        raise BrokenFileError("the file is empty (0 bytes)")
    try:
        open(path, "rb").close()
    except OSError as error:
        raise BrokenFileError(
            f"cannot be opened: {error.strerror}", "fix the permissions"
        ) from error


def scan_raw(path: str) -> RawScan:
    """Read the file's bytes to the end, in chunks; raise BrokenFileError if it is incomplete."""
    name = path.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            return _scan_nifti(path)
        if name.endswith(".mha"):
            return _scan_mha(path)
        if name.endswith(".nrrd"):
            _scan_nrrd(path)
        elif name.endswith(".gipl"):
            _scan_gipl(path)
        elif name.endswith((".tif", ".tiff")):
            _scan_tif(path)
    except EOFError as error:
        raise BrokenFileError("is truncated: the compressed stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BrokenFileError(f"is damaged: {shorten_reason(error)}") from error
    except (BrokenFileError, MemoryError, OSError):
        raise
    except Exception as error:  # a damaged header can make the parser raise anything
        raise BrokenFileError(f"is damaged: {shorten_reason(error)}") from error
    return RawScan()


def require_complete_image(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if an image that was just written is incomplete.

    SimpleITK and nibabel do not notice a full disk when they write NIfTI; the writers of other
    formats do.
    """
    path = os.fspath(path)
    if path.lower().endswith((".nii", ".nii.gz")):
        try:
            scan_raw(path)
        except BrokenFileError as error:
            raise OSError(errno.ENOSPC, "the disk did not take all of it", path) from error


def find_incomplete_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Problem]:
    """Yield a problem for each image or label that is absent or incomplete.

    Readers do not notice the loss of some files' ends, and return zeros.
    """
    for path in paths:
        name = os.fspath(path)
        try:
            check_presence(name)
            scan_raw(name)
        except BrokenFileError as error:
            yield Problem(name, str(error), error.fix)


def _scan_nifti(path: str) -> RawScan:
    with _open_maybe_gzip(path) as stream:
        start = stream.read(540)
        sizes = [int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")]
        size = next((size for size in sizes if size in NIFTI_HEADERS), None)
        if size is None:
            raise BrokenFileError(f"is not a NIfTI file: it begins with {start[:16]!r}")
        if len(start) < size:
            raise BrokenFileError(f"is truncated: {len(start)} bytes do not hold a NIfTI header")
        header = NIFTI_HEADERS[size](start[:size], check=False)
        stream.seek(0)
        return _scan_nifti_voxels(stream, header)


def _scan_nifti_voxels(stream: IO[bytes], header: Any) -> RawScan:
    """Compare the number of bytes with the header, and count the stored NaN and Inf."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.fields or dtype.kind == "c":
        file_type = "RGB" if dtype.fields else "complex numbers"
        raise BrokenFileError(
            f"must hold one real number per voxel, got {file_type}", ONE_PER_CHANNEL
        )
    if not shape or any(size < 1 for size in shape):
        raise BrokenFileError(f"dimensions must be at least 1, got {format_numbers(shape)}")
    position = len(stream.read(int(header.get_data_offset())))
    promised = position + math.prod(int(size) for size in shape) * dtype.itemsize
    nans = infs = 0
    while chunk := stream.read(CHUNK):
        if dtype.kind == "f":
            count = max(0, min(len(chunk), promised - position)) // dtype.itemsize
            values = np.frombuffer(chunk, dtype, count)
            nans, infs = nans + int(np.isnan(values).sum()), infs + int(np.isinf(values).sum())
        position += len(chunk)
    if position < promised:
        raise BrokenFileError(f"is truncated: holds {position} bytes, its header says {promised}")
    pixdim = header["pixdim"][1 : 1 + min(3, len(shape))]
    oriented = int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    return RawScan(tuple(float(size) for size in pixdim), nans, infs, oriented)


@contextlib.contextmanager
def _open_maybe_gzip(path: str) -> Iterator[Any]:
    """Detect gzip by content, as the NIfTI library does; reading to the end checks the CRC."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if zipped:
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped
        else:
            yield file


def _scan_mha(path: str) -> RawScan:
    header: dict[str, str] = {}
    with open(path, "rb") as file:
        while "ElementDataFile" not in header and (line := file.readline(4096)):
            key, _, value = line.decode("latin-1").partition("=")
            header[key.strip()] = value.strip()
        if header.get("CompressedData") == "True" and header.get("ElementDataFile") == "LOCAL":
            unpack = zlib.decompressobj(wbits=47)  # zlib or gzip
            while chunk := file.read(1 << 16):  # may expand a thousandfold
                unpack.decompress(chunk)
            if not unpack.eof:
                raise EOFError
    numbers = re.findall(r"\S+", header.get("ElementSpacing", ""))
    return RawScan(tuple(float(number) for number in numbers))


def _scan_nrrd(path: str) -> None:
    with open(path, "rb") as file:
        header = b"".join(iter(lambda: file.readline(65536).strip(b"\r\n") + b"\n", b"\n"))
        attached = not re.search(rb"^data ?file:", header, re.MULTILINE)
        if attached and re.search(rb"^encoding: *gz(ip)?$", header, re.MULTILINE):
            with gzip.GzipFile(fileobj=file) as stream:
                while stream.read(CHUNK):
                    pass


def _scan_gipl(path: str) -> None:
    """Check a GIPL file: a header of 256 bytes begins with four sizes and the type, as >u2."""
    with open(path, "rb") as file:
        start = file.read(10)
    *sizes, file_type = (int.from_bytes(start[k : k + 2], "big") for k in range(0, 10, 2))
    promised = 256 + math.prod(max(size, 1) for size in sizes) * GIPL_ITEM_SIZES.get(file_type, 0)
    size = os.path.getsize(path)
    if start[:2] != b"\x1f\x8b" and size < promised:
        raise BrokenFileError(f"is truncated: holds {size} bytes, its header says {promised}")


def _scan_tif(path: str) -> None:
    """Follow the chain of pages to its end; pages of a truncated file lie beyond it."""
    size, seen = os.path.getsize(path), set()
    with open(path, "rb") as file:
        start = file.read(16)
        order: Any = {b"II": "little", b"MM": "big"}.get(start[:2])
        if order is None:
            return  # not a TIFF file; its reader reports that
        big = int.from_bytes(start[2:4], order) == 43
        pointer, counter, entry = (8, 8, 20) if big else (4, 2, 12)
        offset = int.from_bytes(start[pointer : 2 * pointer], order)
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            entries = int.from_bytes(file.read(counter), order)
            file.seek(offset + counter + entries * entry)
            following = file.read(pointer)
            if len(following) < pointer:
                defect = f"page {len(seen)} lies at byte {offset} of {size}"
                raise BrokenFileError(f"is truncated: {defect}")
            offset = int.from_bytes(following, order)
    _check_tif_pages(path, size)


def _check_tif_pages(path: str, size: int) -> None:
    """Check the end of each page, which tifffile may fill with zeros, and that all are read."""
    with tifffile.TiffFile(path) as tif:
        for number, page in enumerate(tif.pages, start=1):
            ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
            if (end := max(ends, default=0)) > size:
                defect = f"page {number} ends at byte {end} of {size}"
                raise BrokenFileError(f"is truncated: {defect}")
        first, *others = tif.series
        if count := sum(series.shape == first.shape for series in others):
            raise BrokenFileError(
                f"holds {count + 1} separate images of the same size, but nnU-Net reads only the "
                f"first one",
                fix="save them as one stack with tifffile.imwrite, or each in its own file",
            )
