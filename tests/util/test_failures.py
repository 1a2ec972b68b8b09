"""Failures of the machine are told from failures of the data."""

from __future__ import annotations

from semi_nnunet.util.failures import is_of_machine, is_of_memory


def test_errors_of_disk_and_device_are_told_from_errors_of_an_image():
    full, torn = OSError(28, "No space left"), RuntimeError("Given groups=1, weight of size [4]")
    lost = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    large = RuntimeError("HIP out of memory. Tried to allocate 2 GiB")
    assert [is_of_machine(error) for error in (full, torn, lost)] == [True, False, True]
    assert not is_of_machine(ValueError("CUDA is the name of the image"))
    assert [is_of_memory(error) for error in (large, MemoryError(), torn, full)] == [
        True, True, False, False,
    ]  # fmt: skip
