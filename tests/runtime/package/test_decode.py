"""package.decode: strict JSON to dataclasses and back; every error names its place."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from smartbert_runtime.errors import ManifestError
from smartbert_runtime.package.decode import decode, encode


@dataclass(frozen=True, kw_only=True)
class Leaf:
    name: str
    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Tree:
    share: float
    tall: bool
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf]
    best: Leaf | None = None
    extra: dict[str, object] = field(default_factory=dict)


def whole() -> dict[str, object]:
    return {
        "share": 0.5,
        "tall": True,
        "leaves": [{"name": "a"}, {"name": "b", "size": 2}],
        "by_name": {"c": {"name": "c", "size": 3}},
    }


def test_nested_objects_and_defaults() -> None:
    tree = decode(Tree, whole(), where="tree")
    assert tree.leaves == (Leaf(name="a", size=1), Leaf(name="b", size=2))
    assert tree.by_name == {"c": Leaf(name="c", size=3)}
    assert (tree.share, tree.tall, tree.best, tree.extra) == (0.5, True, None, {})


def test_optional_object_may_be_null() -> None:
    assert decode(Tree, {**whole(), "best": None}, where="tree").best is None
    assert decode(Tree, {**whole(), "best": {"name": "a"}}, where="tree").best == Leaf(name="a")


def test_whole_number_becomes_float() -> None:
    share = decode(Tree, {**whole(), "share": 1}, where="tree").share
    assert share == 1.0
    assert isinstance(share, float)


def test_extra_holds_anything() -> None:
    extra = {"mine": [1, {"deep": None}]}
    assert decode(Tree, {**whole(), "extra": extra}, where="tree").extra == extra


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tall": 1}, "tree.tall must be bool, not int"),
        ({"tall": None}, "tree.tall must be bool, not null"),
        ({"share": "0.5"}, "tree.share must be float, not str"),
        ({"share": True}, "tree.share must be float, not bool"),
        ({"leaves": {"name": "a"}}, "tree.leaves must be a list, not dict"),
        ({"leaves": [{"name": "a"}, "b"]}, "tree.leaves[1] must be a JSON object, not str"),
        ({"leaves": [{"name": "a", "size": True}]}, "tree.leaves[0].size must be int, not bool"),
        ({"leaves": [{"name": "a", "size": 1.0}]}, "tree.leaves[0].size must be int, not float"),
        ({"by_name": [1]}, "tree.by_name must be an object, not list"),
        ({"by_name": {"c": {"name": 3}}}, "tree.by_name.c.name must be str, not int"),
        ({"best": 3}, "tree.best must be a JSON object, not int"),
    ],
)
def test_wrong_type_names_place(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        decode(Tree, {**whole(), **changes}, where="tree")
    assert str(caught.value) == message


def test_non_object_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"^tree must be a JSON object, not null$"):
        decode(Tree, None, where="tree")


def test_missing_key_names_place() -> None:
    with pytest.raises(ManifestError, match=r"^tree\.leaves\[1\] lacks the key 'name'$") as caught:
        decode(Tree, {**whole(), "leaves": [{"name": "a"}, {"size": 2}]}, where="tree")
    assert "export again" in caught.value.hint


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"^tree has an unknown key 'color'$") as caught:
        decode(Tree, {**whole(), "color": "green"}, where="tree")
    assert "best, by_name, extra, leaves, share, tall" in caught.value.hint
    assert "'extra'" in caught.value.hint


def test_unknown_keys_are_collected() -> None:
    unknown: list[str] = []
    value = {**whole(), "color": "green", "best": {"name": "a", "age": 3}, "by_name": {"c": {"name": "c", "x": 0}}}
    tree = decode(Tree, value, where="tree", unknown=unknown)
    assert sorted(unknown) == ["tree.best.age", "tree.by_name.c.x", "tree.color"]
    assert tree.best == Leaf(name="a")


def test_missing_key_beside_collected_ones() -> None:
    with pytest.raises(ManifestError, match="lacks the key 'share'"):
        decode(Tree, {key: value for key, value in whole().items() if key != "share"}, where="tree", unknown=[])


def test_encode_format() -> None:
    assert encode(Leaf(name="blé", size=2)) == '{\n  "name": "blé",\n  "size": 2\n}\n'
