from __future__ import annotations

import subprocess
import sys

import priorkit as pk
from priorkit.core.errors import PriorkitError


def test_importing_costs_no_torch() -> None:
    code = (
        "import sys, priorkit as pk; pk.Error; pk.steps.mix; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pandas', 'typer')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_name_is_there() -> None:
    for name in pk.__all__:
        assert getattr(pk, name) is not None
        assert name in dir(pk)
    assert pk.Error is PriorkitError
    assert all(
        issubclass(getattr(pk, name), pk.Error)
        for name in ("UsageError", "InputError", "ResourceError", "GuardError", "Interrupted")
    )
