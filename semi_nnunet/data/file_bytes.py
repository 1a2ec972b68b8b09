"""Checks of a file's bytes, before any reader sees them: is it there, whole and undamaged?

nnU-Net's readers forgive too much: SimpleITK returns zeros for the missing half of a truncated
``.nii.gz``, turns NaN in NIfTI into 0, repairs a spacing of 0, and ignores the checksums inside
``.mha`` and ``.nrrd``; tifffile drops the missing pages of a ``.tif``. A ``.png`` or ``.bmp`` is
left to its reader.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import nibabel as nib
import numpy as np
import tifffile

CHUNK = 1 << 20  # bytes read at a time; a multiple of every voxel size
COPY_AGAIN = "copy or export the file again from its source"
ONE_PER_CHANNEL = "write one 2-D or 3-D image per channel: CASE_0000, CASE_0001, ..."
GIPL_ITEM_SIZES = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
NIFTI_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


class BrokenFileError(Exception):
    """The file cannot be used at all; the text says what is wrong with it.

    Args:
        what: the rule that is broken and the value found.
        fix: what to do about it.
    """

    def __init__(self, what: str, fix: str = COPY_AGAIN):
        super().__init__(what)
        self.fix = fix


@dataclass(frozen=True)
class RawScan:
    """What the bytes say and nnU-Net's reader hides: spacing in the header, NaN and Inf voxels.

    A NIfTI file whose qform and sform are both 0 is not ``oriented``.
    """

    spacing: tuple[float, ...] = ()
    nans: int = 0
    infs: int = 0
    oriented: bool = True


def short_reason(error: BaseException) -> str:
    """One line saying why: SimpleITK and others wrap theirs in several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line.split("ERROR:", 1)[1].strip() for line in lines if "ERROR:" in line]
    line = next((line for line in [*telling, *lines] if line), type(error).__name__)
    return line if len(line) <= 200 else line[:197] + "..."


def plain(values: Sequence[float]) -> str:
    """Numbers as a user writes them: ``(1, 0.5, 0.5)``."""
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def check_presence(path: str) -> None:
    """Raise BrokenFileError if there is no file, or nothing in it, or no permission to read it.

    A pipe would be waited for without end, and some devices are read without end.
    """
    if not os.path.exists(path):
        if os.path.islink(path):
            target = os.readlink(path)
            raise BrokenFileError(f"is a link to {target!r}, which does not exist", "mend the link")
        raise BrokenFileError("the file is absent", "add the file or remove its case")
    if not os.path.isfile(path):
        found = "a folder" if os.path.isdir(path) else "a pipe, socket or device"
        raise BrokenFileError(f"must be a file, got {found}", "put the image itself there")
    if os.path.getsize(path) == 0:
        raise BrokenFileError("the file is empty (0 bytes)")
    try:
        open(path, "rb").close()
    except OSError as error:
        raise BrokenFileError(
            f"cannot be opened: {error.strerror}", "mend the permissions"
        ) from error


def scan_raw(path: str) -> RawScan:
    """Read the file's bytes to its end, in chunks; raise BrokenFileError if they are not whole."""
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
        raise BrokenFileError(f"is damaged: {short_reason(error)}") from error
    except (BrokenFileError, MemoryError, OSError):
        raise
    except Exception as error:  # whatever a reader makes of a spoilt header
        raise BrokenFileError(f"is damaged: {short_reason(error)}") from error
    return RawScan()


def require_whole(path: str | os.PathLike[str]) -> None:
    """Check an image that was just written.

    SimpleITK and nibabel do not tell where the disk did not take all of a NIfTI file; the writers
    of other formats do.

    Raises:
        OSError: it is not whole.
    """
    path = os.fspath(path)
    if path.lower().endswith((".nii", ".nii.gz")):
        try:
            scan_raw(path)
        except BrokenFileError as error:
            raise OSError(errno.ENOSPC, "the disk did not take all of it", path) from error


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
    """Count the bytes against what the header promises, and NaN and Inf as they are stored."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.fields or dtype.kind == "c":
        kind = "RGB" if dtype.fields else "complex numbers"
        raise BrokenFileError(f"must hold one real number per voxel, got {kind}", ONE_PER_CHANNEL)
    if not shape or any(size < 1 for size in shape):
        raise BrokenFileError(f"dimensions must be at least 1, got {plain(shape)}")
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
    """By content, as the NIfTI library does; gzip checks length and CRC when read to the end."""
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
            while chunk := file.read(1 << 16):  # may grow a thousandfold
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
    """GIPL has a header of 256 bytes: four sizes, then the voxel type, as big-endian uint16."""
    with open(path, "rb") as file:
        start = file.read(10)
    *sizes, kind = (int.from_bytes(start[k : k + 2], "big") for k in range(0, 10, 2))
    promised = 256 + math.prod(max(size, 1) for size in sizes) * GIPL_ITEM_SIZES.get(kind, 0)
    found = os.path.getsize(path)
    if start[:2] != b"\x1f\x8b" and found < promised:
        raise BrokenFileError(f"is truncated: holds {found} bytes, its header says {promised}")


def _scan_tif(path: str) -> None:
    """Follow the chain of pages to its end; pages of a truncated file lie beyond it."""
    size, seen = os.path.getsize(path), set()
    with open(path, "rb") as file:
        start = file.read(16)
        order: Any = {b"II": "little", b"MM": "big"}.get(start[:2])
        if order is None:
            return  # no TIFF: the reader says so
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
                what = f"page {len(seen)} lies at byte {offset} of {size}"
                raise BrokenFileError(f"is truncated: {what}")
            offset = int.from_bytes(following, order)
    _check_tif_pages(path, size)


def _check_tif_pages(path: str, size: int) -> None:
    """tifffile fills what is missing of a page with zeros."""
    with tifffile.TiffFile(path) as tif:
        for number, page in enumerate(tif.pages, start=1):
            ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
            if (end := max(ends, default=0)) > size:
                what = f"page {number} ends at byte {end} of {size}"
                raise BrokenFileError(f"is truncated: {what}")
