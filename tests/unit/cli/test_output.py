from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from priorkit.cli import output
from priorkit.core.errors import ResourceError
from priorkit.core.process.progress import progress_bar, show_progress

logger = logging.getLogger("priorkit.toy")


@pytest.fixture(autouse=True)
def _configured() -> None:
    output.configure("priorkit toy")


def test_notes_are_bare_and_warnings_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("  100% of the rows")
    logger.warning("a source is empty")
    output.print_error(["no such file", "  -> make it"])
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines() == [
        "  100% of the rows",
        "priorkit toy: warning: a source is empty",
        "priorkit toy: no such file",
        "  -> make it",
    ]


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output.configure("priorkit toy", quiet=True)
    logger.info("a note")
    logger.warning("a warning")
    assert capsys.readouterr().err == "priorkit toy: warning: a warning\n"


def test_other_processes_print_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    logger.warning("a warning")
    output.print_result("a result")
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_line_every_so_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorkit.core.process.progress.LINE_EVERY_SECONDS", 0)
    with progress_bar("reading", 2, unit="rows") as progress:
        progress.note("loss 1.0")
        progress.advance()
    assert capsys.readouterr().err.startswith("reading: 1/2 rows  loss 1.0  (")
    show_progress(False)
    with progress_bar("reading", 2, unit="rows") as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


class Full:
    """A stream on a full device."""

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        raise OSError


@pytest.mark.parametrize("stream", [None, Full()])
def test_a_standard_error_that_cannot_be_written_stops_nothing(
    stream: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("priorkit.core.process.progress.LINE_EVERY_SECONDS", 0)
    logger.warning("a warning")
    output.print_error(["an error"])
    with progress_bar("reading", 2) as progress:
        progress.advance()
    output.print_result("out")
    output.flush_standard_streams()
    assert capsys.readouterr().out == "out\n"


@pytest.mark.parametrize(("stream", "reason"), [(None, "it is closed"), (Full(), "No space left on device")])
def test_a_result_that_cannot_be_printed(
    stream: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(ResourceError, match=f"standard output: the result cannot be printed: {reason}"):
        output.print_result("out")


def test_a_reader_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        output.print_result("out")
        assert os.path.samestat(os.fstat(stream.fileno()), Path(os.devnull).stat())


def test_a_library_user_gets_records_and_no_output(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger("priorkit")
    root.removeHandler(output.HANDLER)
    show_progress(False)
    with caplog.at_level(logging.INFO, logger="priorkit"):
        logger.info("a note")
    assert caplog.messages == ["a note"]
    assert capsys.readouterr() == ("", "")
    assert any(isinstance(handler, logging.NullHandler) for handler in root.handlers)


def test_standard_streams_keep_their_numbers(tmp_path: Path) -> None:
    output.open_standard_streams()
    with (tmp_path / "file").open("w") as stream:
        assert stream.fileno() > 2
