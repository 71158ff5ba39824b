"""Many tasks behind Ray Serve: every replica has the whole pool, and forms its own batches.

    pip install 'trimtab[serve,ray]'
    RUNS=/srv/runs ENCODER=minilm serve run examples.ray_serve:from_environment
    python examples/ray_serve.py minilm /srv/runs        # the same, until Ctrl-C

All tasks together take as little as one model, so nothing is gained by @serve.multiplexed, which would send a task's texts to the
replicas that hold it; and @serve.batch would batch in front of the batches that replicas form, of whatever waits, by themselves.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ray import serve  # pyright: ignore[reportMissingImports]

CPUS = 2.0  # of a replica: Ray gives its process as many threads (OMP_NUM_THREADS)
REQUESTS = 512  # that a replica may have at once: far fewer would not fill a batch


def deployment(encoder: str, runs: str | Path, *, replicas: int = 1, cpus: float = CPUS) -> serve.Application:
    """The server of `trimtab serve ENCODER --runs RUNS` as an application of Ray Serve.

    The encoder and the folder of runs must be there on every node, and TRIMTAB_TOKEN in its environment, without which all may
    ask whom Ray's proxy lets (by default this machine alone). Each replica follows the folder. Requests beyond those that
    replicas take wait in Ray's proxy, up to as many again; others are refused with 503, which trimtab.Client asks again for.
    """
    folder = str(Path(runs).absolute())

    # FastAPI's apps do not pickle, so that Ray is given what builds one; that runs in the replica.
    def build() -> Any:
        import torch

        import trimtab
        from trimtab.serving.app import application
        from trimtab.serving.settings import ServerSettings
        from trimtab.serving.watched_runs import WatchedRuns

        torch.set_num_threads(max(1, int(cpus)))
        pool = trimtab.Pool(trimtab.load(encoder))
        watched = WatchedRuns(pool, {}, Path(folder))
        watched.scan()
        settings = ServerSettings(token=os.environ.get("TRIMTAB_TOKEN"), most_waiting=REQUESTS)
        return application(pool, settings, watched)

    @serve.deployment(
        num_replicas=replicas, max_ongoing_requests=REQUESTS, max_queued_requests=REQUESTS,
        ray_actor_options={"num_cpus": cpus, "runtime_env": {"env_vars": {"TOKENIZERS_PARALLELISM": "false"}}},
        # Long enough for requests that a replica has taken, when it is replaced.
        graceful_shutdown_timeout_s=40,
    )  # fmt: skip
    @serve.ingress(build)
    class Tasks:
        """Has no methods: all routes are the app's."""

    return Tasks.bind()  # pyright: ignore[reportAttributeAccessIssue]


def from_environment(arguments: dict[str, str]) -> serve.Application:
    """What `serve run` asks for: ENCODER and RUNS are in the environment, or key=value arguments of its."""
    given = {**os.environ, **{key.upper(): value for key, value in arguments.items()}}
    return deployment(given["ENCODER"], given["RUNS"], replicas=int(given.get("REPLICAS", "1")))


if __name__ == "__main__":
    serve.run(deployment(*sys.argv[1:3]), blocking=True)
