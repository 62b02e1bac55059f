"""One onnxruntime session a part, created when the part is first asked, on the providers the user named."""

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
from smartbert_runtime.sessions.io_binding import Lane
from smartbert_runtime.sessions.providers import CPU, node_counts, providers_by_role
from smartbert_runtime.sessions.threads import POOL, available_threads, session_options, threads_to_use


class Sessions:
    """The parts of one variant; a part's file is read, hashed and loaded at its first use.

    providers: onnxruntime's names, in order of preference; `role=NAME` is for parts of that role only, such as
    "layer=OpenVINOExecutionProvider".
    arena: keep each part's working memory between runs, which is faster; without, a run takes and gives back its own.
    """

    def __init__(
        self,
        package: Package,
        variant: Variant,
        *,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        arena: bool = True,
    ) -> None:
        self._arena = arena
        self.package, self.variant = package, variant
        self.role_providers = providers_by_role(providers)
        self.providers = self.role_providers[""]
        self.threads = threads_to_use(threads)
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._components = {component.name: component for component in package.manifest.components}
        self._names = {name: [spec.name for spec in component.outputs] for name, component in self._components.items()}
        self._lock = threading.Lock()
        self._lanes: list[Lane] = []  # those that no thread is using
        self._most_lanes = available_threads()
        self._on_cpu = set(self.role_providers.values()) == {(CPU,)} and package.manifest.model.fixed_shape is None
        _LIVE.add(self)

    def close(self) -> None:
        """Let go of every graph; a part that is asked later is loaded again. Not while another thread classifies."""
        with self._lock:
            self._lanes.clear()
            self._sessions.clear()

    def _after_fork(self) -> None:
        """In a forked child: start anew, and never end what the parent had opened.

        A session's threads are not in the child: asking it can wait for them, and so does ending it, even at exit.
        """
        for kept in (*self._sessions.values(), *self._lanes):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        self._sessions, self._lanes, self._lock = {}, [], threading.Lock()

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
                f"{part} failed on {', '.join(self._for(self._components[part]))}: {err}", hint=f"try --provider {CPU}"
            ) from err
        return outputs

    def take_lane(self, length: int) -> Lane | None:
        """The parts for one text of `length` tokens, faster, until it is given back.

        None on other providers than the CPU, with a fixed shape, and for a text longer than the model.
        """
        if not self._on_cpu or length > self.package.manifest.model.max_length:
            return None
        try:
            return self._lanes.pop()
        except IndexError:
            return Lane(self.package, weakref.proxy(self))

    def give_lane(self, lane: Lane) -> None:
        """For the next text; a lane that failed is better forgotten, as are those beyond what runs at once."""
        if len(self._lanes) < self._most_lanes and self._sessions:  # none after `close`
            self._lanes.append(lane)

    def _for(self, component: Component) -> tuple[str, ...]:
        return self.role_providers.get(component.role, self.providers)

    def open(self, part: str) -> onnxruntime.InferenceSession:
        """The part's session, created now if it was not yet; safe to call from several threads."""
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
                hint="start the process by spawn, or do without share_thread_pool",
            )
        component = self.package.manifest.component(part)
        entry = component.files.get(self.variant.name)
        if entry is None:
            raise ManifestError(f"{part} has no file for the variant {self.variant.name}", hint="export again")
        content = self.package.read(entry)
        providers = self._for(component)
        options = session_options(self.threads, arena=self._arena)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            # Without this, onnxruntime answers a provider's failure by silently going on with the CPU.
            session = onnxruntime.InferenceSession(
                content, sess_options=options, providers=list(providers), enable_fallback=0
            )
            # It keeps the file's bytes to open itself again on other providers, which is not wanted: the weights are
            # in memory twice as long as it does.
            session._model_bytes = None
        except Exception as err:  # onnxruntime's own errors share no public base class
            if providers == (CPU,):
                raise IntegrityError(f"onnxruntime cannot load {entry.file}: {err}", hint="export again") from err
            raise ProviderError(
                f"{part} cannot be loaded on {', '.join(providers)}: {err}", hint=f"try --provider {CPU}"
            ) from err
        for specs, found in ((component.inputs, session.get_inputs()), (component.outputs, session.get_outputs())):
            if [spec.name for spec in specs] != [value.name for value in found]:
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
