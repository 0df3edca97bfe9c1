"""The entry point of ``priorkit``: one exit code for each way to end."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from priorkit.cli import output
from priorkit.cli.output import print_error
from priorkit.cli.preload_client import run_preloaded
from priorkit.core.errors import PriorkitError, ResourceError, UsageError, is_out_of_memory
from priorkit.core.process.processors import prepare_threads

INTERRUPTED = 130

STOPPED = "interrupted; nothing was half-written"


def main() -> NoReturn:
    """Run the command line and exit with the contract's code."""
    code = run_preloaded(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output.open_standard_streams()
    prepare_threads()
    # Our progress and messages replace those of the libraries below.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    code = run(sys.argv[1:])
    output.flush_standard_streams()
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run the command line and return the exit code."""
    import typer

    from priorkit.cli.application import application

    output.configure()
    command = typer.main.get_command(application())
    try:
        # The command 'preload' runs other command lines by the same function.
        code = int(command.main(args=args, prog_name="priorkit", standalone_mode=False, obj=run) or 0)
        if code == INTERRUPTED:  # Typer's answer to a KeyboardInterrupt
            print_error([STOPPED])
        return code
    except PriorkitError as error:
        print_error(line for problem in error.problems for line in problem.lines())
        return error.exit_code
    except KeyboardInterrupt:
        print_error([STOPPED])
        return INTERRUPTED
    except Exception as error:
        if is_out_of_memory(error):
            print_error(["out of memory", "  -> use a smaller batch or model, or a larger machine"])
            return ResourceError.exit_code
        # Typer's own usage errors; their class lives in click or inside Typer, depending on its version.
        message = getattr(error, "format_message", None)
        if callable(message) and getattr(error, "exit_code", None) == UsageError.exit_code:
            print_error([str(message())])
            return UsageError.exit_code
        raise
