"""Features of images by two processes: each encodes its batches, and all get all features, cached ones too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
import torch
from priorkit.core.process import distributed, runtime
from priorkit.inference.images import encode as module
from priorkit.inference.images.feature_cache import FeatureCache

started = runtime.start(0, "cpu", "fp32")
distributed.start(started)
module.MAPPED_FROM, module._PART_BYTES = 100, 60

def prepared(model, item):
    from priorkit.inference.images.batches import PreparedImage
    return PreparedImage(torch.tensor(float(item)))

def features(model, batch):
    return torch.stack(batch)[:, None, None].expand(-1, 3, 4).half()

# The processes share no disk: only the first has a cache.
cache = FeatureCache(Path(sys.argv[1]) / str(runtime.rank()), {"of": "numbers"})
for cached in (False, True):
    found = module.encode(range(11), lambda: None, features, cache, load=prepared, batch_size=2, threads=0,
                          device=started.device)
    expected = torch.arange(11.0)[:, None, None].expand(-1, 3, 4).half()
    assert found.cached == cached, (runtime.rank(), found.cached)
    assert found.features.dtype == torch.float16
    assert torch.equal(found.features, expected), (runtime.rank(), cached)
distributed.barrier()
distributed.stop()
"""


def test_all_processes_get_all_features_in_their_dtype(tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
            "--master-port", str(port), str(tmp_path / "features.py"), str(tmp_path),
        ],
        capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "0").iterdir())) == 1
    assert not any(path.is_dir() for path in (tmp_path / "1").glob("*"))
