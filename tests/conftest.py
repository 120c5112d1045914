"""Fixtures and settings every test shares."""

import contextlib
import ctypes
import functools
import os
import resource
from collections import Counter, defaultdict
from pathlib import Path
from unittest import mock

import pytest

# One thread a process, before TensorFlow is imported: pytest-xdist runs one process a core.
for _variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")  # its own gives nothing back: half a gigabyte of a process
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

pytest.register_assert_rewrite("tests.contract")

REPOSITORY = Path(__file__).resolve().parent.parent

ROOM = 1_500_000  # kilobytes: once a process has had so many, every file of tests leaves nothing behind
# glibc gives back what is freed only where nothing lies above it: a block of a megabyte or more stands by itself.
LIBC = ctypes.CDLL(None)
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
if hasattr(LIBC, "mallopt"):
    LIBC.mallopt(M_MMAP_THRESHOLD, 2**20)
    LIBC.mallopt(M_ARENA_MAX, 2)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m does not ask for
def pytest_collection_modifyitems(config, items):
    """Of a test marked `quick("a", "b")` only these cases belong to the quick suite; the others are slow. The training
    that a whole file looks at comes first: at the end two workers would share the file, and each train its own."""
    items.sort(key=lambda item: item.path.name != "test_train.py")
    whole_files = not any("::" in argument for argument in config.args)
    known = defaultdict(set)
    for item in items:
        if mark := item.get_closest_marker("quick"):
            known[item.function].add(item.callspec.id)
            if item.callspec.id not in mark.args:
                item.add_marker("slow")
    for function, cases in known.items():
        kept = {case for mark in function.pytestmark if mark.name == "quick" for case in mark.args}
        if whole_files and not kept <= cases:
            raise pytest.UsageError(f"{function.__name__} has no cases {sorted(kept - cases)}, only {sorted(cases)}")


@pytest.fixture
def rng():
    """A random generator with a fixed seed."""
    import numpy as np  # after the lines above: it reads OMP_NUM_THREADS when it loads

    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def _two_cpus():
    """Two logical CPU devices, so that replicas can be tried; TensorFlow must be told before it computes anything."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.fixture(scope="session", autouse=True)
def _seldom_collected(_two_cpus):
    """What is imported stays, and is looked through only seldom: a tenth of the time went into looking for cycles."""
    import gc

    import keras  # noqa: F401

    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _quick_calls(_two_cpus):
    """Things that take long and have nothing to do with what is tested. TensorFlow makes a kernel for each name of a
    variable, and keeps it; it notes the lines of Python that made each operation of a graph; whoever leaves a stream
    before its end waits, see `data.pipeline._untuned`. Python before 3.12 lists the members of a protocol again at each
    `isinstance`."""
    import typing

    import tensorflow as tf
    from tensorflow.python.ops import gen_resource_variable_ops as ops
    from tensorflow.python.util import tf_stack

    from hetmorph.data.pipeline import _untuned

    made, iterate, members = ops.var_handle_op, tf.data.Dataset.__iter__, typing._get_protocol_attrs
    here, untuned = tf_stack.extract_stack(), _untuned()

    def nameless(*args, debug_name="", **kwargs):
        return made(*args, **kwargs)

    with (
        mock.patch.object(ops, "var_handle_op", nameless),
        mock.patch.object(tf_stack, "extract_stack", lambda stacklevel=1: here),
        mock.patch.object(tf.data.Dataset, "__iter__", lambda data: iterate(data.with_options(untuned))),
        mock.patch.object(typing, "_get_protocol_attrs", functools.cache(members)),
    ):
        yield


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy of two replicas on this machine's processor."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


@pytest.fixture(autouse=True)
def _same_start(request):
    """Every test starts from the same seed and the float32 policy, and leaves no other policy behind."""
    import keras

    # Kernels that draw keep their state, so that TensorFlow makes all its kernels anew for a seed, which takes longer
    # than most tests. Of hetmorph only the room of VoxelMorph draws in such kernels.
    kept = contextlib.nullcontext() if "voxelmorph" in request.path.parts else _kernels_kept()
    with kept:
        keras.utils.set_random_seed(0)
    keras.mixed_precision.set_dtype_policy("float32")
    yield
    keras.mixed_precision.set_dtype_policy("float32")


def _kernels_kept():
    from tensorflow.python.eager import context

    return mock.patch.object(context.pywrap_tfe, "TFE_ContextClearCaches", lambda handle: None)


@pytest.fixture
def eager(request):
    """Models run without graphs, see `tests.graphs.eagerly`; by `pytestmark = pytest.mark.usefixtures("eager")` all of
    a file's, but for tests marked `graph`. That each kind of model trains in a graph too, and alike, is tested in
    `networks/test_training_step.py` and `networks/test_backbones.py`; the former also holds kernels that XLA compiles,
    of which each takes half a second and megabytes that are never given back: in neither case others have them."""
    from tests.graphs import eagerly

    plain = mock.patch.dict(os.environ, HETMORPH_XLA="0")
    with plain if request.node.get_closest_marker("graph") else eagerly():
        yield


@pytest.fixture(autouse=True, scope="module")
def _release():
    """Models hold each other in cycles, and compiled kernels are kept: a process would grow by gigabytes."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < ROOM:
        return
    import gc

    import keras
    from tensorflow.python.eager import context
    from tensorflow.python.framework.ops import gradient_registry

    from hetmorph.ops import xla

    keras.backend.clear_session(free_memory=False)
    xla.forget()
    context.context().clear_kernel_cache()
    # TensorFlow remembers the gradient of every custom function that was ever traced, and with it the whole graph.
    for name in [name for name in gradient_registry._registry if name.startswith("CustomGradient-")]:
        del gradient_registry._registry[name]
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):  # glibc keeps what was freed, gigabytes of it
        LIBC.malloc_trim(0)


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the public data sets: `HETMORPH_DATA`, else shared/data beside the repository."""
    return _folder_or_skip("HETMORPH_DATA", REPOSITORY.parent / "shared" / "data", "public data sets")


@pytest.fixture(scope="session")
def golden_dir():
    """Folder of outputs of the original voxelmorph under TF 2.15: `HETMORPH_GOLDEN`, else shared/golden."""
    return _folder_or_skip("HETMORPH_GOLDEN", REPOSITORY.parent / "shared" / "golden", "reference outputs")


@pytest.fixture(scope="session")
def acdc_dir(data_dir):
    """The ACDC folder (holding training/patient*): inside the data folder, or the data folder itself."""
    for candidate in (data_dir / "ACDC", data_dir):
        if any(candidate.glob("training/patient*")):
            return candidate
    pytest.skip(f"no ACDC in {data_dir}: expected ACDC/training/patient*")


def pytest_terminal_summary(terminalreporter):
    """How many code blocks of the documentation ran: tests/test_documentation.py notes it for each page."""
    counts = Counter()
    for report in terminalreporter.getreports("passed"):
        counts.update({name: count for name, count in report.user_properties if name.startswith("blocks ")})
    if counts:
        text = ", ".join(f"{count} {name.removeprefix('blocks ')}" for name, count in counts.most_common())
        terminalreporter.write_line(f"code blocks of the documentation: {text}")


def _folder_or_skip(variable, default, what):
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"no {what} in {folder}; set {variable} to point at them")
    return folder
