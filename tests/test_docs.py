"""README, CONTRIBUTING and docs/ against the repository: the links, files, commands and options that they name."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS: dict[str, str] = PYPROJECT["project"]["scripts"]
SOURCE_ROOTS = (ROOT, ROOT / "runtime", ROOT / "export", ROOT / "bench")
COMMAND = re.compile(r"\b(smartbert-[a-z]+|python -m [\w.]*\w)(?![\w/])")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
COMMON_OPTIONS = {"--version", "--quiet", "--help", "--install-completion"}  # of every command


def page(file: Path) -> str:
    """How a page is named in the tests' names."""
    return file.name


def snippets(file: Path) -> Iterator[str]:
    """The lines of code blocks, continuation lines joined and comments left out, and the code within sentences."""
    text = file.read_text(encoding="utf-8")
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.split(r"\s+#", line)[0]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


def named_commands(file: Path) -> Iterator[tuple[str, set[str]]]:
    """Each command that a page names, with the options behind it."""
    for snippet in snippets(file):
        _, *found = COMMAND.split(snippet)  # a command, what follows it, the next command, ...
        for command, rest in zip(found[::2], found[1::2], strict=True):
            yield command, set(OPTION.findall(rest))


@cache
def command_options(command: str) -> frozenset[str]:
    """The long options of a console script or of `python -m MODULE`, those of its subcommands together."""
    name = SCRIPTS[command].partition(":")[0] if command in SCRIPTS else command.removeprefix("python -m ")
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    options = set(COMMON_OPTIONS)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("run_command", "run_commands"):
            for function in node.args:
                app = typer.Typer()
                app.command()(getattr(module, ast.unparse(function)))
                for parameter in typer.main.get_command(app).params:
                    options |= {*parameter.opts, *parameter.secondary_opts}
    assert options != COMMON_OPTIONS, f"no command was found in {name}"
    return frozenset(options)


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as they are made when it is shown."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", [*PAGES, ROOT / "CHANGELOG.md"], ids=page)
def test_relative_links_exist(file: Path) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        linked = file.parent / target if target else file
        if re.match(r"https?://", link):
            continue
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("file", PAGES, ids=page)
def test_source_files_exist(file: Path) -> None:
    named = {path for snippet in snippets(file) for path in re.findall(r"[\w./-]+/[\w-]+\.py\b", snippet)}
    assert [path for path in sorted(named) if not any((root / path).is_file() for root in SOURCE_ROOTS)] == []


@pytest.mark.parametrize("file", PAGES, ids=page)
def test_commands_exist(file: Path) -> None:
    missing = []
    for command, _ in named_commands(file):
        module = command.removeprefix("python -m ")
        if command not in SCRIPTS and (module == command or importlib.util.find_spec(module) is None):
            missing.append(command)
    assert missing == []


@pytest.mark.parametrize("file", PAGES, ids=page)
def test_options_belong_to_commands(file: Path) -> None:
    wrong = [
        (command, option)
        for command, options in named_commands(file)
        for option in sorted(options - command_options(command))
    ]
    known = frozenset[str]().union(*map(command_options, SCRIPTS), command_options("python -m studies.training"))
    alone = {option for code in snippets(file) if not COMMAND.search(code) for option in OPTION.findall(code)}
    assert (wrong, sorted(alone - known)) == ([], [])


@pytest.mark.parametrize("file", PAGES, ids=page)
def test_make_targets_exist(file: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {name for code in snippets(file) for name in re.findall(r"^make ([a-z0-9-]+)", code)} <= targets


def test_every_script_is_documented() -> None:
    for file in (ROOT / "README.md", ROOT / "docs" / "cli.md"):
        assert {command for command, _ in named_commands(file)} >= set(SCRIPTS)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_readme_shows_the_demo_messages() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    messages = (ROOT / "examples" / "demo" / "messages.txt").read_text(encoding="utf-8").splitlines()
    assert [message for message in messages if f"ms  {message}\n" not in readme] == []


def test_version_is_the_same_everywhere() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
