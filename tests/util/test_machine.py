"""A machine is called by its processor."""

from __future__ import annotations

import platform

from semi_nnunet.util.machine import processor_name


def test_the_processor_is_named_without_double_spaces(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n", encoding="utf-8")
    assert processor_name(file) == "Some CPU @ 2 GHz"


def test_where_the_system_does_not_tell_the_architecture_is_the_name(tmp_path):
    file = tmp_path / "cpuinfo"
    name = processor_name(file)
    assert name and name in (platform.processor(), platform.machine(), "unknown processor")
    file.write_text("model name :\nHardware : x\n", encoding="utf-8")
    assert processor_name(file) == name
