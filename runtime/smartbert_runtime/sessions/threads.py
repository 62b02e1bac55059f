"""Cores, threads and working memory: what sessions share that run one after another, and each session's options."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

import onnxruntime

from smartbert_runtime.errors import ConfigError

# A file, so that nothing can lie in it.
NO_FOLDER = os.devnull


def available_threads() -> int:
    """Cores this process may use: its affinity where the platform has one, which is what a container limits."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Pool:
    """The process's shared thread pool, if the program wants one; a forked child has lost its threads.

    late: a model was loaded, or a session created, with threads of its own: it is too late to share.
    forked: this process is a forked child; another thread of its parent may have held the shared arena's lock.
    """

    threads: int | None = None
    lost: bool = False
    late: bool = False
    forked: bool = False


POOL = Pool()


def share_thread_pool(threads: int | None = None) -> bool:
    """Share one thread pool between all of this process's sessions: a tenth faster than a pool for each.

    For programs, not for libraries: call it once, before the first session of any kind. From then on a plain
    `onnxruntime.InferenceSession` in this process fails unless its options say `use_per_session_threads = False`, and
    a forked child cannot classify.
    threads: cores to use; None takes those this process is allowed. False where onnxruntime cannot share a pool (1.22
    and before): sessions then have threads of their own. Raises ConfigError when it is too late, which is when a model
    has been loaded, or when the program itself has made onnxruntime's pool. onnxruntime does not report sessions that
    are not ours (1.31): those created before keep their own threads.
    """
    threads = _checked(threads)
    if POOL.threads not in (None, threads):
        raise ConfigError(
            f"the thread pool was made with {POOL.threads} threads", hint="its size is set once a process"
        )
    if POOL.threads is not None:
        return True
    if not hasattr(onnxruntime, "set_global_thread_pool_sizes"):
        return False
    if POOL.late:
        raise ConfigError(
            "the thread pool cannot be shared any more: a model was loaded with threads of its own",
            hint="share it before the first model is loaded",
        )
    try:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
    except Exception as err:  # onnxruntime's own errors share no public base class
        raise ConfigError(
            f"the thread pool cannot be shared any more: {err}",
            hint="leave set_global_thread_pool_sizes to share_thread_pool",
        ) from err
    POOL.threads = threads
    return True


def threads_to_use(threads: int | None) -> int:
    """`threads` checked; for None the shared pool's, or else the cores that this process may use."""
    threads = _checked(POOL.threads if threads is None else threads)
    POOL.late = POOL.threads is None
    if POOL.threads not in (None, threads):
        raise ConfigError(
            f"this process shares one pool of {POOL.threads} threads, not {threads}",
            hint="leave out threads, or give share_thread_pool the same number",
        )
    return threads


def _checked(threads: int | None) -> int:
    threads = available_threads() if threads is None else threads
    if threads < 1:
        raise ConfigError(f"threads must be 1 or more, not {threads}", hint="change --threads")
    return threads


@functools.cache
def _share_arena() -> bool:
    """Let sessions whose options say so share one arena of working memory; once a process."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # An error means that the program has registered an arena of its own, which serves as well.
    with contextlib.suppress(RuntimeError):
        onnxruntime.create_and_register_allocator(memory, None)
    return True


def session_options(
    threads: int, *, arena: bool = True, config: Mapping[str, str] | None = None
) -> onnxruntime.SessionOptions:
    """The options of every session, for many sessions that run one after another.

    arena: keep the working memory between runs, in one place for all sessions: the next part finds it in the cache.
    config: session config entries that replace or add to ours.
    """
    options = onnxruntime.SessionOptions()
    if POOL.threads is None:
        POOL.late = True
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A session's workers would go on spinning after its run, and fight for the cores with those of the next: ten
        # times slower over 24 sessions (microsoft/onnxruntime #17011). Spinning while it runs is worth a third of it.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        options.use_per_session_threads = False
    # Three times as slow as the three operators that it replaces (onnxruntime 1.31, x86).
    options.add_session_config_entry("optimization.disable_specified_optimizers", "SkipLayerNormFusion")
    options.enable_cpu_mem_arena = arena
    if arena and not POOL.forked and _share_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 3
    # A graph's weights are in its own file, which is hashed. External ones would be read from the working directory.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)
    for name, value in (config or {}).items():
        options.add_session_config_entry(name, value)
    return options
