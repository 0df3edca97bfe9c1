from __future__ import annotations

import subprocess
import sys

from priorkit.core.process import distributed


def test_a_single_process_exchanges_with_itself() -> None:
    assert not distributed.joined()
    assert distributed.all_texts("ä") == ["ä"]
    distributed.barrier()
    assert list(distributed.share(5)) == [0, 1, 2, 3, 4]


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from priorkit.core.process import distributed; distributed.barrier(); "
        "distributed.all_texts('a'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
