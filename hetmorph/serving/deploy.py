"""What a stock TensorFlow Serving needs beside the version folders of a model: configuration, Dockerfile, compose file.

Reference: https://www.tensorflow.org/tfx/serving/serving_config
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from hetmorph.io.atomic import write_text
from hetmorph.stored import version_folders

IMAGE = "tensorflow/serving:2.20.0"
POLL_SECONDS = 10

_MODELS = """\
# The server reads this file again every $poll s. It moves a label only to a version that it has loaded already.
model_config_list {
  config {
    name: "$name"
    base_path: "$base"
    model_platform: "tensorflow"
    model_version_policy { specific { $versions } }
$labels
  }
}
"""

_BATCHING = """\
# Read with --enable_batching=true. Requests that wait together are joined, so they must be of one size; a request that
# the model refuses, because of a NaN for instance, fails those joined with it.
max_batch_size { value: 8 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
"""

_MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

_DOCKERFILE = """\
# An image that holds the versions: docker build -t $name . && docker run -p 8500:8500 -p 8501:8501 $name
FROM $image
COPY . $base
CMD [$flags]
"""

_COMPOSE = """\
# The official image on this folder: docker compose up -d. gRPC on 8500, REST and metrics on 8501.
services:
  $name:
    image: $image
    command:
$flags
    volumes:
      - .:$base:ro
    ports:
      - "8500:8500"
      - "8501:8501"
    healthcheck:
      test: ["CMD", "bash", "-c", '$healthcheck']
      interval: 10s
      start_period: 60s
    restart: unless-stopped
"""

# The image has no curl.
_HEALTHCHECK = (
    r'exec 3<>/dev/tcp/localhost/8501; printf "GET /v1/models/$name HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3; '
    "grep -q AVAILABLE <&3"
)


@dataclass(frozen=True)
class Deployment:
    """What `deploy` has written.

    Attributes:
        directory: folder of the model.
        name: under which clients ask for it.
        labels: {label: version}; these versions are loaded.
        unserved: versions in the folder that are not loaded.
        files: paths written.
    """

    directory: Path
    name: str
    labels: dict[str, int]
    unserved: list[int]
    files: list[Path]


def deploy(
    directory: str | os.PathLike,
    name: str | None = None,
    stable: int | None = None,
    canary: int | None = None,
    batching: bool = False,
    image: str = IMAGE,
    base_path: str | None = None,
) -> Deployment:
    """Write `models.config`, `batching.config`, `monitoring.config`, `Dockerfile` and `compose.yaml` into a folder.

    A running server takes up a new `models.config` without losing a request. A new version goes live in two steps:
    `deploy(d, canary=2)`, and, once it is loaded, `deploy(d, stable=2)`. Requests that name neither version nor label
    go to the largest version loaded, so beside a canary clients should name the label `stable`.

    Args:
        directory: folder of the model, with integer version folders as `export_savedmodel` writes them.
        name: what clients call the model; None takes the name of the folder.
        stable: version with this label; None leaves it where it is, at first at the largest version.
        canary: version with this label; None for none.
        batching: let the server join requests that come at the same time. Only for requests that are all of one
            size: others that meet are refused.
        image: to run; one with `-gpu` at the end of its tag for a GPU.
        base_path: `directory` as the server sees it; None takes `/models/<name>`, where the container has it.

    Returns:
        A `Deployment`. Every file is replaced at once, so that a server never reads half of one.

    Raises:
        FileNotFoundError: no version in the folder, or not the one asked for.
        ValueError: a name that does not fit in a URL, or a label that would move to a version that is not loaded: the
            server would go on with the old configuration, for good.

    Example:
        >>> deploy("saved_models/heart").labels
        {'stable': 1}
    """
    directory = Path(directory)
    name = directory.resolve().name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"expected a model name of letters, digits, '_', '.' and '-', received {name!r}")
    present = list(version_folders(directory))
    if not present:
        raise FileNotFoundError(f"no version in {directory}: expected folders 1, 2, … holding saved_model.pb")
    labels = _labels(directory / "models.config", present, stable, canary)
    base = f"/models/{name}" if base_path is None else str(base_path)
    arguments = flags(base, batching)
    values = {
        "name": name,
        "base": base,
        "image": image,
        "poll": POLL_SECONDS,
        "versions": " ".join(f"versions: {v}" for v in sorted(set(labels.values()))),
        "labels": "\n".join(f'    version_labels {{ key: "{k}" value: {v} }}' for k, v in labels.items()),
    }
    quoted = ", ".join(f'"{flag}"' for flag in arguments)
    listed = "\n".join(f"      - {flag}" for flag in arguments)
    healthcheck = Template(_HEALTHCHECK).substitute(name=name)
    contents = {
        "batching.config": _BATCHING,
        "monitoring.config": _MONITORING,
        "Dockerfile": Template(_DOCKERFILE).substitute(values, flags=quoted),
        "compose.yaml": Template(_COMPOSE).substitute(values, flags=listed, healthcheck=healthcheck),
        # last: a running server acts on it
        "models.config": Template(_MODELS).substitute(values),
    }
    files = [write_text(directory / file, text) for file, text in contents.items()]
    return Deployment(directory, name, labels, sorted(set(present) - set(labels.values())), files)


def flags(base_path: str, batching: bool = False) -> list[str]:
    """Options of `tensorflow_model_server` for a folder that `deploy` has filled, ports aside."""
    batched = ["--enable_batching=true", f"--batching_parameters_file={base_path}/batching.config"]
    return [
        f"--model_config_file={base_path}/models.config",
        f"--model_config_file_poll_wait_seconds={POLL_SECONDS}",
        "--allow_version_labels_for_unavailable_models=true",  # else it would not start with labels
        f"--monitoring_config_file={base_path}/monitoring.config",
        "--rest_api_timeout_in_ms=300000",
        *(batched if batching else []),
    ]


def _labels(config: Path, present: list[int], stable: int | None, canary: int | None) -> dict[str, int]:
    before = labels_in(config)
    if stable is None:
        stable = before.get("stable", max(present))
    labels = {"stable": stable} if canary is None else {"stable": stable, "canary": canary}
    for label, version in labels.items():
        if version not in present:
            raise FileNotFoundError(
                f"no version {version} in {config.parent} for {label}: there are {present}. A server that runs on "
                f"{config} must keep what that names; where none runs, it can be deleted"
            )
        if before.get(label, version) != version and version not in before.values():
            other = f"canary={version}" if label == "stable" else "no canary"
            raise ValueError(
                f"{label} cannot move from version {before[label]} to {version} at once, because a running server "
                f"moves a label only to a version that it has loaded. First deploy with {other} and wait until the "
                f"server has taken it up ({POLL_SECONDS} s and the time to load), then ask for this again. If no "
                f"server runs on {config}, delete it instead"
            )
    return labels


def labels_in(config: Path) -> dict[str, int]:
    """Labels of a `models.config` that `deploy` wrote; none where there is no file."""
    text = config.read_text() if config.exists() else ""
    return {k: int(v) for k, v in re.findall(r'version_labels \{ key: "(\w+)" value: (\d+) \}', text)}
