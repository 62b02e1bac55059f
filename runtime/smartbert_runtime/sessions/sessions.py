"""One onnxruntime session for each part, created at its first use on the named providers; forks start anew."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError, ProviderError
from smartbert_runtime.package.manifest import Component, Variant
from smartbert_runtime.package.open import Package
from smartbert_runtime.sessions.fixed_shape import run_fixed
from smartbert_runtime.sessions.providers import CPU, node_counts, providers_by_role
from smartbert_runtime.sessions.threads import POOL, session_options, threads_to_use


class Sessions:
    """The parts of one variant; a part's file is read, hashed and loaded at its first use.

    providers: onnxruntime's names, in order of preference; `role=NAME` is for parts of that role only, such as
    "layer=OpenVINOExecutionProvider".
    arena: keep each part's working memory between runs, which is faster; otherwise every run allocates and frees it.
    session_config: entries of onnxruntime's session options that replace or add to ours, for experiments.
    """

    def __init__(
        self,
        package: Package,
        variant: Variant,
        *,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        arena: bool = True,
        session_config: Mapping[str, str] | None = None,
    ) -> None:
        self._arena, self._session_config = arena, session_config
        self.package, self.variant = package, variant
        self.role_providers = providers_by_role(providers)
        self.providers = self.role_providers[""]
        self.threads = threads_to_use(threads)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._components = {component.name: component for component in package.manifest.components}
        self._names = {name: [spec.name for spec in component.outputs] for name, component in self._components.items()}
        self._lock = threading.Lock()
        _LIVE.add(self)

    def close(self) -> None:
        """Release every graph; a part that runs later is loaded again. Not while another thread classifies."""
        with self._lock:
            self._sessions.clear()

    def _after_fork(self) -> None:
        """In a forked child: start anew, and never destroy the parent's sessions.

        A session's threads are not in the child: running it can wait for them forever, and so can destroying it, even
        at exit. So each session keeps one reference more than it has owners.
        """
        for kept in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        self._sessions, self._lock = {}, threading.Lock()

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs in the manifest's order; ProviderError when the provider fails."""
        session = self._sessions.get(part) or self.open(part)
        if (shape := self.package.manifest.model.fixed_shape) is None:
            return self._run(part, session, feeds)
        component = self._components[part]
        return run_fixed(
            lambda padded: self._run(part, session, padded),
            feeds,
            inputs=component.inputs,
            outputs=component.outputs,
            shape=shape,
        )

    def _run(
        self, part: str, session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[np.generic]]
    ) -> list[NDArray[np.float32]]:
        try:
            outputs: list[NDArray[np.float32]] = session.run(self._names[part], feeds)
        except Exception as err:  # onnxruntime's own errors share no public base class
            raise ProviderError(
                f"{part} failed on {', '.join(self._providers_of(self._components[part]))}: {err}",
                hint=f"try --provider {CPU}",
            ) from err
        return outputs

    def _providers_of(self, component: Component) -> tuple[str, ...]:
        return self.role_providers.get(component.role, self.providers)

    def load(self, part: str) -> bool:
        """Load the part unless it is loaded; whether it had to be."""
        if part in self._sessions:
            return False
        self.open(part)
        return True

    def open(self, part: str) -> onnxruntime.InferenceSession:
        """The part's session, created at its first use; safe to call from several threads."""
        with self._lock:
            if part not in self._sessions:
                self._sessions[part] = self._create(part)
            return self._sessions[part]

    def open_all(self) -> None:
        """Load every part now, for steady latency from the first text on."""
        for component in self.package.manifest.in_variant(self.variant.name):
            self.open(component.name)

    def placements(self) -> dict[str, dict[str, int]]:
        """For each part loaded so far: how many of its nodes each provider took."""
        return {part: node_counts(session) for part, session in sorted(self._sessions.items())}

    def _create(self, part: str) -> onnxruntime.InferenceSession:
        if POOL.lost:
            raise ConfigError(
                "the threads of the shared pool are not in this forked child",
                hint="start the process with spawn, or do not call share_thread_pool",
            )
        component = self.package.manifest.component(part)
        entry = component.files.get(self.variant.name)
        if entry is None:
            raise ManifestError(f"{part} has no file for the variant {self.variant.name}", hint="export again")
        content = self.package.read(entry)
        providers = self._providers_of(component)
        options = session_options(self.threads, arena=self._arena, config=self._session_config)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            # Without enable_fallback=0, onnxruntime silently uses the CPU when a provider fails.
            session = onnxruntime.InferenceSession(
                content, sess_options=options, providers=list(providers), enable_fallback=0
            )
            # The session keeps the file's bytes, to be recreated on other providers. That is not wanted, and would hold
            # the weights in memory twice.
            session._model_bytes = None
        except Exception as err:  # onnxruntime's own errors share no public base class
            if providers == (CPU,):
                raise IntegrityError(f"onnxruntime cannot load {entry.file}: {err}", hint="export again") from err
            raise ProviderError(
                f"{part} cannot be loaded on {', '.join(providers)}: {err}", hint=f"try --provider {CPU}"
            ) from err
        for specs, values in ((component.inputs, session.get_inputs()), (component.outputs, session.get_outputs())):
            if [spec.name for spec in specs] != [value.name for value in values]:
                raise IntegrityError(
                    f"{entry.file} has other inputs or outputs than the manifest says", hint="export again"
                )
        missing = [name for name in providers if name not in session.get_providers()]
        if missing:
            raise ProviderError(
                f"{', '.join(missing)} could not be used for {part}; onnxruntime offered "
                + ", ".join(session.get_providers()),
                hint="install what the provider needs, or name another with --provider",
            )
        return session


def _renew_after_fork() -> None:
    POOL.lost, POOL.forked = POOL.threads is not None, True
    for sessions in list(_LIVE):
        sessions._after_fork()


_LIVE: weakref.WeakSet[Sessions] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
