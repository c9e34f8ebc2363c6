"""What gpu-serve adds to cpu-serve: the conventions that gpu-train adds to cpu-train."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host

from tests.support.matrix import ROOT


def test_the_same_is_added_as_in_gpu_train(config: dict[str, Any], host: Host) -> None:
    def added(image: str) -> str:
        text = (ROOT / "images" / image / "Dockerfile").read_text()
        return text[text.index("FROM") : text.index("LABEL")]

    assert added("gpu-serve") == added("gpu-train")
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert host.file("/opt/optml/deps/pynvml.py").is_file
