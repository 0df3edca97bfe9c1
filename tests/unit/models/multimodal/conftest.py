"""Fixtures of these tests."""

from tests.support.lion_fixtures import base  # noqa: F401
