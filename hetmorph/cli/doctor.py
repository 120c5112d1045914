"""`hetmorph doctor`: what is installed, and whether it works."""

import importlib.metadata
import importlib.util
import platform
import sys
import time

import click

from hetmorph.cli.messages import import_tensorflow
from hetmorph.cli.models import SHIPPED, find_model
from hetmorph.cli.options import dry_run
from hetmorph.presets import model_folders
from hetmorph.version import __version__

_PACKAGES = ("tensorflow", "keras", "voxelmorph", "neurite", "numpy", "scipy", "nibabel", "h5py", "click")
# extra: (what for, modules)
_EXTRAS = {
    "formats": ("MetaImage, NRRD, DICOM, ITK transforms", ("SimpleITK",)),
    "classical": ("demons, bspline, ants-syn", ("SimpleITK", "ants")),
    "serving": ("client of TensorFlow Serving, hetmorph export --warmup", ("grpc", "requests", "tensorflow_serving")),
    "onnx": ("hetmorph export --format onnx", ("tf2onnx", "onnxruntime")),
}
_PROTOS = "tensorflow_serving"  # no part of the extra: its releases ask for another TensorFlow than may be there


class _Absent(Exception):
    """Nothing to check; the message says why that is no fault."""


@click.command(epilog="\b\nExample:\n  hetmorph doctor")
@dry_run
def doctor(dry_run: bool) -> int:
    """Versions, devices, extras, models, and a small registration with a known answer.

    The test moves a blob by 2 voxels along the first axis, direction moved(x) = moving(x + u(x)), in a frame of unit
    voxels; it demands u within 0.3 voxels (units of the grid). Nothing is written. Exit status 1 if something does not
    work; extras may be missing.
    """
    click.echo(f"hetmorph {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in _PACKAGES:
        click.echo(f"  {name} {_version(name)}")
    for extra, (purpose, modules) in _EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        state = f"missing {', '.join(missing)}: {_remedy(extra, missing)}" if missing else "there"
        click.echo(f"  extra {extra} ({purpose}): {state}")
    if dry_run:
        click.echo("would import TensorFlow and register two small images")
        return 0
    results = [_try(what, check) for what, check in _CHECKS.items()]
    return 0 if all(results) else 1


def _remedy(extra: str, missing: list[str]) -> str:
    """What to type for the modules of an extra that are missing."""
    commands = [f'pip install "hetmorph[{extra}]"'] if set(missing) - {_PROTOS} else []
    if _PROTOS in missing:
        minor = _version("tensorflow").rpartition(".")[0]
        commands.append(f'pip install --no-deps "tensorflow-serving-api=={minor}.*"')
    return " && ".join(commands)


def _try(what: str, check) -> bool:
    start = time.perf_counter()
    try:
        said = check()
    except _Absent as absent:
        click.echo(f"-  {what}: {absent}")
        return True
    except Exception as error:  # whatever it is, it is what the user wants to know
        click.echo(f"FAILED {what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return False
    click.echo(f"ok {what}: {said} ({time.perf_counter() - start:.1f} s)")
    return True


def _version(name: str) -> str:
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "missing: pip install --force-reinstall hetmorph"


def _devices() -> str:
    import_tensorflow()
    import tensorflow as tf
    from tensorflow.python.util import _pywrap_util_port

    devices = ", ".join(device.device_type for device in tf.config.list_physical_devices())
    on = _pywrap_util_port.IsMklEnabled()
    return f"{devices}; oneDNN {'on' if on else 'off: convolutions are slow, unset TF_ENABLE_ONEDNN_OPTS'}"


def _voxelmorph() -> str:
    from hetmorph.voxelmorph.original import ne, vxm

    return f"voxelmorph {vxm.__version__}, neurite {ne.__version__} import under Python {sys.version.split()[0]}"


def _blobs():
    """A blob, and the same 2 voxels further back along the first axis: u = (2, 0) brings the first onto it."""
    import numpy as np

    x, y = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    return [np.exp(-((x - centre) ** 2 + (y - 16) ** 2) / 40).astype(np.float32) for centre in (17, 15)]


def _known_answer() -> str:
    import numpy as np

    from hetmorph.instance import Refined
    from hetmorph.losses import MSE

    def rest(moving, fixed):
        return np.zeros((*moving.shape, 2), np.float32)

    found = (
        Refined(rest, iterations=60, loss=MSE().loss, smoothness=1e-4)(*_blobs())
        .displacement[13:18, 14:19]
        .mean((0, 1))
    )
    if np.abs(found - [2, 0]).max() > 0.3:
        raise ValueError(f"expected a displacement of (2, 0) voxels, found ({found[0]:.2f}, {found[1]:.2f})")
    return f"displacement ({found[0]:.2f}, {found[1]:.2f}) voxels, (2, 0) expected"


def _shipped() -> str:
    import numpy as np

    from hetmorph.evaluation import load

    try:
        path = find_model(SHIPPED)
    except ValueError:
        folders = ", ".join(map(str, model_folders()))
        raise _Absent(f"none in {folders}; set HETMORPH_MODELS or give a path: hetmorph register --model") from None
    if not np.isfinite(load(path)(*_blobs()).displacement).all():
        raise ValueError(f"{path} answers with NaN")
    return f"{path} runs"


_CHECKS = {
    "TensorFlow": _devices,
    "voxelmorph": _voxelmorph,
    "a registration with a known answer": _known_answer,
    "shipped model": _shipped,
}
