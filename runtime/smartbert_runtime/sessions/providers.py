"""onnxruntime's execution providers: which ones run which parts, and how many nodes each took."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import onnxruntime

from smartbert_runtime.errors import ProviderError
from smartbert_runtime.package.part_names import ROLES

CPU = "CPUExecutionProvider"


def providers_by_role(providers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Role -> its providers; "" for all other roles. `layer=NAME` names one for a role, the CPU behind it."""
    named: dict[str, list[str]] = {"": []}
    for provider in providers:
        role, _, name = provider.rpartition("=")
        if role and role not in ROLES:
            raise ProviderError(f"no part has the role {role!r}", hint="roles: " + ", ".join(ROLES))
        named.setdefault(role, []).append(name)
    if not named[""] and len(named) > 1:
        named[""].append(CPU)
    return {role: check_providers(names) for role, names in named.items()}


def check_providers(providers: Sequence[str]) -> tuple[str, ...]:
    """The same providers, or ProviderError listing those that this onnxruntime has."""
    available = onnxruntime.get_available_providers()
    for name in providers:
        if name not in available:
            raise ProviderError(f"onnxruntime has no provider {name!r} here", hint="available: " + ", ".join(available))
    if not providers:
        raise ProviderError("no execution provider named", hint="available: " + ", ".join(available))
    return tuple(providers)


def node_counts(session: onnxruntime.InferenceSession) -> dict[str, int]:
    """Nodes that each provider took, after onnxruntime's own graph optimization.

    Empty where onnxruntime is too old to report it (1.23 and before).
    """
    counts: Counter[str] = Counter()
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for subgraph in session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)
