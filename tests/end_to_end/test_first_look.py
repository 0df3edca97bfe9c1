"""The notebook of the documentation runs, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_runs_and_remediation_lowers_rank_e() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    check = (
        "means = pd.DataFrame({'before': by_prior(before), 'after': by_prior(after)})\n"
        "assert means.loc['none', 'before'] > means.loc['strong', 'before']\n"
        "assert (means['after'] < means['before']).all()"
    )
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
