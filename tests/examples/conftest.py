"""Shared by the tests of the examples: call a command inside this process."""

from tests.cli.conftest import call  # noqa: F401 - a fixture
