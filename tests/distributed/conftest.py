"""Clusters, and the image whose jobs most of them run."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.jobs import EXAMPLES
from tests.support.cluster import Cluster
from tests.support.docker import docker
from tests.support.locks import exclusive
from tests.support.matrix import built_cell
from tests.support.wheels import fetched


@pytest.fixture
def cluster(tmp_path: Path, network: str) -> Iterator[Callable[..., Any]]:
    """Makes a cluster of this class with an image."""
    with ExitStack() as made:

        def make(image: str, kind: type[Cluster] = Cluster) -> Cluster:
            cluster = kind(image, tmp_path, network)
            made.callback(cluster.close)
            return cluster

        yield make


@pytest.fixture(scope="session")
def torch_image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of examples/distributed-torch with PyTorch for CPUs, in the variant of the example."""
    variant = "bookworm"
    if request.config.getoption("--variant") not in (None, variant):
        pytest.skip(f"the example is for {variant}")
    base = built_cell("cpu-train", variant)
    name = base.tag.rpartition(":")[2]
    # `+cpu` selects the build without CUDA, whatever the index.
    wheels = fetched("torch", base.python, "torch==2.13.0+cpu")
    context = tmp_path_factory.mktemp("distributed") / "torch"
    shutil.copytree(EXAMPLES / "distributed-torch", context)
    shutil.copytree(wheels, context / "wheels", copy_function=os.link)
    tag = f"optml-test-distributed-torch-{uuid.uuid4().hex[:12]}:{name}"
    options = ("--force-rm", "--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"TAG={name}", "--tag", tag)
    with exclusive("torch-image"):  # the first builds it, the others find its layers
        docker("build", *options, context, timeout=600)
    yield tag
    docker("rmi", "--force", tag)
