"""Fixtures of this room."""

from tests.support.report_fixtures import make, part  # noqa: F401
