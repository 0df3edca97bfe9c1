"""Fixtures of this room."""

from tests.support.lion_fixtures import base  # noqa: F401
