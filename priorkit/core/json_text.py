"""JSON that users bring: every way in which it cannot be read is one error."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """As ``json.loads``, which raises other errors for deep nesting and for integers of thousands of digits.

    Raises:
        json.JSONDecodeError: it is not valid JSON, or exceeds what Python reads.
        UnicodeDecodeError: bytes that are not UTF-8 text.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError:
        raise json.JSONDecodeError("an integer has too many digits", "", 0) from None
