"""One call from two images to a registration, whatever the model is stored as."""

import contextlib
import functools
import itertools
import logging
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from hetmorph.layers import DropPath, SampleNormalLogVar
from hetmorph.networks import MultiPass
from hetmorph.networks.preset import is_preset, read_preset
from hetmorph.ops.fields import jacobian_determinant
from hetmorph.stored import is_savedmodel, savedmodel_folder
from hetmorph.transforms import Displacement, Transform

NAMES = ("displacement", "moved", "log_variance", "weight")
VOXELS_TOGETHER = 8 * 128 * 128
FEW = 4  # calls; a graph takes the time of some seven before the first answer
DROPOUT = (DropPath, keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout)


def pairs_together(shape, voxels: int = VOXELS_TOGETHER) -> int:
    """How many pairs go through a model at once: as many as have the voxels of eight slices of 128 × 128.

    Args:
        shape: voxels of an image along each axis.
        voxels: number of voxels of all images that go at once, in place of those of eight slices.
    """
    return max(1, voxels // math.prod(shape))


class RegistrationFailed(RuntimeError):
    """A program found no registration of one pair; the message is its reason."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about one pair.

    Attributes:
        displacement: `[*S, N]` voxels, on the fixed grid; moved(x) = moving(x + u(x)).
        moved: `[*S]` the moving image pulled through it.
        log_variance: `[*S]` log σ_I² of the noise of the fixed image, or None for a model without variance.
        weight: `[*S]` relative weight of the voxels in the likelihood, or None.
        refinement: `instance.Refinement` of an answer that was optimised on this pair, or None.
        across: axis across the slices that were registered one by one, or None.
    """

    displacement: np.ndarray
    moved: np.ndarray
    log_variance: np.ndarray | None = None
    weight: np.ndarray | None = None
    refinement: object | None = None
    across: int | None = None

    @functools.cached_property
    def determinant(self) -> np.ndarray:
        """The Jacobian determinant of x + u(x) at each voxel, `[*S]` float32."""
        return jacobian_determinant(np.asarray(self.displacement)[None])[0].numpy()


class Predictor:
    """Registers pairs of arrays. Subclasses say how a batch runs through their model.

    Attributes:
        ndims: number of spatial axes the model works on; None takes 2-D and 3-D alike.
        channels: numbers of channels of the moving and the fixed image; images of more than one have them as last axis.
        compiles: whether the first call on images of another shape takes longer than those after it.
        random: what in the model can be drawn anew: "dropout", "posterior" (a predicted distribution of velocities),
            "callable" (a function that may do what it likes). Empty for a model that always answers the same.
        across: axis across the slices of a volume that it registers one by one, or None.
        guided: whether `predict_batch` takes `guides`, an `evaluation.Guide` for each pair, as an optimisation does.
        resizes_to: voxels to which a model of one size wants each image resized from its own field of view; None takes
            both images on one grid of the world.
        modalities: by which of these an image has to be scaled; empty where each is stretched to [0, 1].

    Args:
        ndims: number of spatial axes the model works on; None takes 2-D and 3-D alike.
        channels: numbers of channels of the moving and the fixed image (default: 1 each).
    """

    compiles = True
    random: frozenset[str] = frozenset()
    guided = False
    across: int | None = None
    resizes_to: tuple[int, ...] | None = None
    modalities: tuple[str, ...] = ()

    def __init__(self, ndims: int | None, channels: tuple[int, int] = (1, 1)):
        self.ndims, self.channels = ndims, channels

    def __call__(self, moving, fixed) -> Prediction:
        """Register one pair.

        Args:
            moving: `[*S]`, intensities in [0, 1]; `[*S, C]` for a model of several channels.
            fixed: the same of the fixed image.

        Raises:
            ValueError: number of axes or shapes do not fit the model, or an image holds NaN or infinity.
        """
        return self.predict_batch([moving], [fixed])[0]

    def predict_batch(self, moving, fixed) -> list[Prediction]:
        """Register several pairs of one shape in one run of the model; `[B, *S]` each."""
        images = self._tensors(moving, fixed)
        results = {name: np.asarray(x, np.float32) for name, x in self._run(*images).items()}
        for name in set(results) - {"displacement"}:
            if results[name].shape[-1] == 1:
                results[name] = results[name][..., 0]
        return [
            Prediction(**{name: x[i] for name, x in results.items()}, across=self.across) for i in range(len(moving))
        ]

    def displacements(self, moving, fixed, seed: int | None = None) -> np.ndarray:
        """The displacements alone of several pairs of one shape, `[B, *S, N]` voxels, without what else a model says.

        Args:
            moving, fixed: `[B, *S]`.
            seed: draw dropout or the velocities anew, each pair of the batch by itself; the same seed and batch give
                the same. None takes the model's one answer. A function of the user's own is only called again.

        Raises:
            ValueError: as for one pair, or a seed for a model in which nothing is `random`.
        """
        if seed is not None and not self.random:
            raise ValueError("this model always answers the same: it has no dropout and predicts no distribution")
        images = self._tensors(moving, fixed)
        return np.asarray(self._fields(*images) if seed is None else self._drawn(*images, seed), np.float32)

    def backward(self, moving, fixed) -> np.ndarray | None:
        """The other direction of one pair: the displacement on the grid of the moving image, `[*S, N]` voxels.

        None for a model that registers in one direction.
        """
        return None

    def transforms(self, moving, fixed) -> tuple[Transform, Transform]:
        """Both directions of one pair as functions of points, on voxel indices; exchanged images where a model has one.

        Args:
            moving, fixed: `[*S]`, as for one pair.
        """
        there, back = self(moving, fixed).displacement, self.backward(moving, fixed)
        if back is None:
            back = self(fixed, moving).displacement
        return Displacement(there[None].astype(float)), Displacement(back[None].astype(float))

    def inverse_error(self, moving, fixed) -> np.ndarray:
        """φ_AB(φ_BA(x)) − x at every voxel x of the moving image, `[*S, N]` voxels: how far both are from inverses.

        Args:
            moving, fixed: `[*S]`, as for one pair.
        """
        forward, backward = self.transforms(moving, fixed)
        return np.asarray((forward @ backward).displacement(np.shape(moving)[: forward.ndims]), np.float64)[0]

    def checked(self, moving, fixed) -> tuple[np.ndarray, np.ndarray]:
        """Two images in float32 as the model takes them, `[*S]` or `[*S, C]`; errors as for one pair."""
        pair = (image.numpy()[0] for image in self._tensors([moving], [fixed]))
        return tuple(image[..., 0] if count == 1 else image for image, count in zip(pair, self.channels, strict=True))

    def _tensors(self, moving, fixed) -> tuple[tf.Tensor, tf.Tensor]:
        pairs = zip((moving, fixed), ("moving", "fixed"), self.channels, strict=True)
        moving, fixed = (self._checked(*one) for one in pairs)
        if moving.shape[:-1] != fixed.shape[:-1]:
            raise ValueError(
                f"moving and fixed must have the same shape, got {moving.shape[:-1]} and {fixed.shape[:-1]}"
            )
        return tf.constant(moving), tf.constant(fixed)

    def _checked(self, images, name: str, channels: int) -> np.ndarray:
        """The images as `[B, *S, C]`."""
        images = np.asarray(images, dtype=np.float32)
        allowed = (2, 3) if self.ndims is None else (self.ndims,)
        axes = images.ndim - 1 - (channels > 1)
        if axes not in allowed or (channels > 1 and images.shape[-1] != channels):
            what = "without channel axis" if channels == 1 else f"whose last axis is their {channels} channels"
            raise ValueError(
                f"this model registers {' or '.join(f'{n}-D' for n in allowed)} images {what}, "
                f"got {name} of shape {images.shape[1:]}"
            )
        if not np.isfinite(images).all():
            raise ValueError(f"{name} image holds NaN or infinity")
        return images[..., None] if channels == 1 else images

    def _run(self, moving: np.ndarray, fixed: np.ndarray) -> dict:
        """Results by name for images `[B, *S, C]`."""
        raise NotImplementedError

    def _fields(self, moving, fixed):
        """Displacements alone."""
        return self._run(moving, fixed)["displacement"]

    def _drawn(self, moving, fixed, seed: int):
        """Displacements with what is random in the model drawn anew."""
        raise NotImplementedError


class ModelPredictor(Predictor):
    """Predictor of a live `hetmorph.networks` model, with variance and weight if the model has them.

    It follows the weights of the model, except for images of another shape than the model was built for: these
    go through a copy for any size (`with_shape`), made at the first of them. The first shape that is seen has a graph
    of its own; all others share one, so that memory does not grow with an archive of many shapes.

    Args:
        model: the model.
        few: whether few pairs are expected: no graph is made before the fifth call that would use it.
    """

    def __init__(self, model, few: bool = False):
        missing = [name for name in ("references", "inshape") if not hasattr(model, name)]
        if missing or len(model.inputs) != 2:
            raise ValueError(
                "expected a registration model of a moving and a fixed image, as hetmorph.networks.VxmDense (for "
                "another model, pass a function of the two that returns the displacement), got "
                + (f"{type(model).__name__} without {missing[0]}" if missing else f"{len(model.inputs)} inputs")
            )
        super().__init__(len(model.inshape), tuple(image.shape[-1] for image in model.inputs))
        self.model, self._without_graph = model, FEW if few else 0
        self.resizes_to, self.modalities = getattr(model, "resizes_to", None), getattr(model, "modalities", ())
        self.random = frozenset(_random_layers(model))
        self._any_size, self._first, self._graphs = None, None, {}

    def _run(self, moving, fixed):
        return self._graph(moving, "all")(moving, fixed)

    def _fields(self, moving, fixed):
        return self._graph(moving, "displacement")(moving, fixed)

    def backward(self, moving, fixed) -> np.ndarray | None:
        if getattr(self.model.references, "y_target", None) is None:
            return None
        images = self._tensors([moving], [fixed])
        return self._graph(images[0], "backward")(*images).numpy()[0]

    def transforms(self, moving, fixed) -> tuple[Transform, Transform]:
        """A model of steps answers with its own transforms, of which a displacement has samples only."""
        if not hasattr(self.model, "step"):
            return super().transforms(moving, fixed)
        direction = self.model.config.params["direction"] or "exchange"
        return self.model.step.directions(*self._tensors([moving], [fixed]), direction, training=False)

    def _drawn(self, moving, fixed, seed):
        graph = self._graph(moving, "drawn")
        with _seeded(self._model_for(moving), seed):
            return graph(moving, fixed)

    def _graph(self, images, which: str):
        model, shape = self._model_for(images), tuple(images.shape[1:-1])
        self._first = self._first or shape
        sizes = shape if shape == self._first else tuple(model.inshape)
        if (which, sizes) not in self._graphs:
            self._graphs[which, sizes] = _graph_of(model, which, sizes, self._without_graph)
        return self._graphs[which, sizes]

    def _model_for(self, images):
        shape = tuple(images.shape[1:-1])
        if all(n in (None, size) for n, size in zip(self.model.inshape, shape, strict=True)):
            return self.model
        if not hasattr(self.model, "with_shape"):
            raise ValueError(f"the model was built for images of {tuple(self.model.inshape)}, got {shape}")
        if self._any_size is None:
            self._any_size = self.model.with_shape((None,) * len(shape))
        return self._any_size


def _graph_of(model, which: str, shape, without: int = 0):
    """A model as a graph function of moving and fixed; `predict` costs ten times the network on one pair.

    Args:
        which: "all" of `NAMES` that it says, the "displacement" alone or "backward", or that "drawn" with its random
            layers.
        shape: spatial sizes, None for any; the batch is left open, so that each size of it is not traced anew.
        without: calls before the graph is made.
    """
    answer = whole_answer(model)
    wanted = {name: x for name, x in answer.items() if name in NAMES} if which == "all" else answer[_FIELDS[which]]
    part = keras.Model(model.inputs, wanted)
    signature = [tf.TensorSpec([None, *shape, image.shape[-1]], tf.float32) for image in model.inputs]

    def run(*images):
        return part([*images], training=which == "drawn")

    graph, calls = tf.function(run, input_signature=signature, autograph=False), itertools.count()
    return (lambda *images: (run if next(calls) < without else graph)(*images)) if without else graph


_FIELDS = {"displacement": "displacement", "drawn": "displacement", "backward": "backward"}


def whole_answer(model) -> dict[str, keras.KerasTensor]:
    """All that a registration model says of its inputs: what a `Prediction` holds, and "backward", if it registers in
    both directions, the displacement on the grid of the moving image."""
    references = model.references
    answer = {"displacement": references.pos_flow, "moved": references.y_source}
    if hasattr(references, "full_model"):
        answer = dict(references.full_model(model.inputs))
    if getattr(references, "y_target", None) is not None:
        answer["backward"] = references.neg_flow
    return answer


def _random_layers(model) -> dict[str, list]:
    """Layers that draw numbers while training: by dropout, or from a predicted distribution."""
    found = {}
    for layer in model._flatten_layers():
        if isinstance(layer, DROPOUT) and layer.rate > 0:
            found.setdefault("dropout", []).append(layer)
        elif isinstance(layer, SampleNormalLogVar):
            found.setdefault("posterior", []).append(layer)
    return found


@contextlib.contextmanager
def _seeded(model, seed: int):
    """Every random layer draws from a state of its own that follows from the seed; afterwards as before."""
    layers = [layer for group in _random_layers(model).values() for layer in group]
    states = [layer.seed_generator.state for layer in layers]
    before = [keras.ops.convert_to_numpy(state) for state in states]
    try:
        for number, state in enumerate(states):
            state.assign(np.random.SeedSequence([seed, number]).generate_state(2))
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)


class SavedModelPredictor(Predictor):
    """Predictor of a SavedModel through its signatures `register` and, if there is one, `variance`.

    Args:
        model: folder of the SavedModel, or what `tf.saved_model.load` returned.
    """

    def __init__(self, model):
        # kept, because a signature does not keep its variables alive by itself
        self._loaded = _load_savedmodel(model) if isinstance(model, Path) else model
        signatures = self._loaded.signatures
        if "register" not in signatures:
            raise ValueError(
                f"{model}: expected a SavedModel with signature 'register' "
                f"(moving, fixed -> displacement, moved), found {sorted(signatures) or 'no signatures'}"
            )
        self.signatures = signatures
        images = signatures["register"].structured_input_signature[1]
        channels = tuple(images[name].shape[-1] or 1 for name in ("moving", "fixed"))
        super().__init__(images["moving"].shape.rank - 2, channels)

    # One graph for both signatures: TensorFlow then runs the registration inside them once, not twice.
    @tf.function(reduce_retracing=True, autograph=False)
    def _run(self, moving, fixed):
        results = dict(self.signatures["register"](moving=moving, fixed=fixed))  # what is not asked for is not run
        if "variance" in self.signatures:
            results |= self.signatures["variance"](moving=moving, fixed=fixed)
        return {name: results[name] for name in NAMES if name in results}

    @tf.function(reduce_retracing=True, autograph=False)
    def _fields(self, moving, fixed):
        return self.signatures["register"](moving=moving, fixed=fixed)["displacement"]

    def backward(self, moving, fixed) -> np.ndarray | None:
        if "backward" not in self.signatures["register"].structured_outputs:
            return None
        return self._backward(*self._tensors([moving], [fixed])).numpy()[0]

    @tf.function(reduce_retracing=True, autograph=False)
    def _backward(self, moving, fixed):
        return self.signatures["register"](moving=moving, fixed=fixed)["backward"]


def load(path, threads: int | None = None, passes: int = 1, compiled: bool = False, few: bool = False) -> Predictor:
    """The predictor of a model on disk, or of a classical program.

    Args:
        path: a `.keras` file; a SavedModel folder, or the folder above it that holds integer version folders, of which
            the largest is taken; a folder of `hetmorph.networks.preset` without these; or a name of
            `evaluation.PROGRAMS`, such as "demons" (a folder of that name is "./demons").
        threads: number of threads of a classical program; None takes one.
        passes: how often a `.keras` model is applied, see `hetmorph.networks.MultiPass` (default: once).
        compiled: load a `.keras` model with the losses that it was trained by, which predictions do not need.
        few: few pairs are to be registered: what answers soonest is taken, not what answers most in an hour. No graph
            is made of a model of Keras, and of a folder that holds it as a preset, too, that is read.

    Raises:
        FileNotFoundError: nothing at this path.
        ValueError: something else than a registration model, `threads` for one that TensorFlow runs, or `passes` for
            what is no `.keras` file.
        ImportError: the package of the classical program is missing.
    """
    from hetmorph.evaluation import classical

    if passes != 1 and Path(path).suffix != ".keras":
        raise ValueError(f"several passes need a .keras file, got {path}")
    if str(path) in classical.PROGRAMS:
        return classical.load(str(path), 1 if threads is None else threads)
    if threads is not None:
        raise ValueError("threads are for classical programs; TensorFlow reads TF_NUM_INTRAOP_THREADS")
    path = Path(path)
    if not path.exists():
        programs = ", ".join(classical.PROGRAMS)
        raise FileNotFoundError(f"no model at {path}: expected a .keras file, a SavedModel folder, or {programs}")
    if path.is_dir():
        if is_preset(path) and (few or not is_savedmodel(path)):
            return ModelPredictor(read_preset(path), few)
        return SavedModelPredictor(savedmodel_folder(path))
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a model: expected a .keras file or a SavedModel folder")
    model = _load_keras(path, compiled)
    return ModelPredictor(model if passes == 1 else MultiPass(model, passes), few)


def _load_keras(path: Path, compiled: bool):
    try:
        return keras.saving.load_model(path, compile=compiled)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{path} does not load as a Keras model: {str(error).splitlines()[0]}") from error


def _load_savedmodel(folder: Path):
    try:
        with unmentioned("unsaved custom gradients"):  # exports hold none on purpose
            return tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ValueError(f"{folder} does not load as a SavedModel: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def unmentioned(text: str) -> Iterator[None]:
    """Leave out TensorFlow's warnings that hold `text`; others are logged."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]

    def others(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    for logger in loggers:
        logger.addFilter(others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(others)
