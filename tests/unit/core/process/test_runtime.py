from __future__ import annotations

import os
import subprocess
import sys

import pytest

from priorkit.core.process.runtime import KERNELS_KEPT

CONVOLUTIONS = """
import sys
from priorkit.core.process import runtime
runtime.start(0, device="cpu", precision="fp32")
import torch
weight = torch.zeros(64, 3, 3, 3)
for side in [*range(64, 64 + int(sys.argv[1])), 64]:
    torch.nn.functional.conv2d(torch.zeros(4, 3, side, side), weight)
"""


def kernels_made(shapes: int, **environment: str) -> int:
    """How many kernels oneDNN made for convolutions of this many shapes, the first of which comes again."""
    done = subprocess.run(
        [sys.executable, "-c", CONVOLUTIONS, str(shapes)],
        env={**os.environ, "ONEDNN_VERBOSE": "2", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    made = [
        line for line in done.stdout.splitlines() if "create:cache_miss" in line and "convolution" in line
    ]
    if not made:
        pytest.skip("torch computes convolutions without oneDNN here")
    return len(made)


def test_few_kernels_are_kept_unless_the_user_wants_more() -> None:
    many = KERNELS_KEPT + 1
    assert kernels_made(3) == 3
    assert kernels_made(many) == many + 1
    assert kernels_made(many, ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024") == many


HOLES = """
import sys
from priorkit.core.process import runtime

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

runtime.keep_freed_memory()
blocks = [b"x" * (1 << 20) for _ in range(200)]
kept = blocks[::40]
last = blocks[-1]
del blocks
full = resident()
runtime.return_freed_memory()
print(full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_until_it_is_returned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) > 150 << 20
