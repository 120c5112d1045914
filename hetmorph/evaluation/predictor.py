"""One call from two images to a registration, whatever the model is stored as."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from hetmorph.ops.warp import warp


@dataclass(frozen=True)
class Prediction:
    """What a model says about one pair.

    Attributes:
        displacement: `[*S, N]` voxels, on the fixed grid; moved(x) = moving(x + u(x)).
        moved: `[*S]` the moving image pulled through it.
        log_variance: `[*S]` log σ_I² of the noise of the fixed image, or None for a model without variance.
        weight: `[*S]` relative weight of the voxels in the likelihood, or None.
    """

    displacement: np.ndarray
    moved: np.ndarray
    log_variance: np.ndarray | None = None
    weight: np.ndarray | None = None


class Predictor:
    """Registers pairs of arrays. Subclasses say how a batch runs through their model.

    Attributes:
        ndims: number of spatial axes the model works on.
    """

    def __init__(self, ndims: int):
        self.ndims = ndims

    def __call__(self, moving, fixed) -> Prediction:
        """Register one pair.

        Args:
            moving: `[*S]`, intensities in [0, 1].
            fixed: `[*S]`, intensities in [0, 1].

        Raises:
            ValueError: number of axes or shapes do not fit the model, or an image holds NaN or infinity.
        """
        return self.predict_batch([moving], [fixed])[0]

    def predict_batch(self, moving, fixed) -> list[Prediction]:
        """Register several pairs of one shape in one run of the model; `[B, *S]` each."""
        moving, fixed = self._checked(moving, "moving"), self._checked(fixed, "fixed")
        if moving.shape != fixed.shape:
            raise ValueError(
                f"moving and fixed must have the same shape, got {moving.shape} and {fixed.shape}"
            )
        results = {name: np.asarray(x) for name, x in self._run(moving[..., None], fixed[..., None]).items()}
        for name in set(results) - {"displacement"}:
            results[name] = results[name][..., 0]
        return [Prediction(**{name: x[i] for name, x in results.items()}) for i in range(len(moving))]

    def _checked(self, images, name: str) -> np.ndarray:
        images = np.asarray(images, dtype=np.float32)
        if images.ndim != self.ndims + 1:
            raise ValueError(
                f"this model registers {self.ndims}-D images without channel axis, "
                f"got {name} of shape {images.shape[1:]}"
            )
        if not np.isfinite(images).all():
            raise ValueError(f"{name} image holds NaN or infinity")
        return images

    def _run(self, moving: np.ndarray, fixed: np.ndarray) -> dict:
        """Results by name for images `[B, *S, 1]`."""
        raise NotImplementedError


class ModelPredictor(Predictor):
    """Predictor of a live Keras model: anything with `.inshape` and `.register(moving, fixed)`.

    A model with `predict_all` also gives variance and weight. A model built for another spatial shape is
    rebuilt by its `with_shape`, once per shape.
    """

    def __init__(self, model):
        missing = [name for name in ("register", "inshape") if not hasattr(model, name)]
        if missing:
            raise ValueError(
                f"{type(model).__name__} is not a registration model: expected .register(moving, fixed) and "
                f".inshape as hetmorph.networks.VxmDense has, missing {', '.join(missing)}"
            )
        super().__init__(len(model.inshape))
        self.model = model
        self._by_shape = {}

    def _run(self, moving, fixed):
        model = self._model_for(moving.shape[1:-1])
        if hasattr(model, "predict_all"):
            return model.predict_all(moving, fixed)
        displacement = model.register(moving, fixed)
        return {"displacement": displacement, "moved": warp(moving, displacement)}

    def _model_for(self, shape):
        if shape not in self._by_shape:
            fits = all(n in (None, size) for n, size in zip(self.model.inshape, shape, strict=True))
            if not fits and not hasattr(self.model, "with_shape"):
                raise ValueError(
                    f"the model was built for images of {tuple(self.model.inshape)}, got {shape}"
                )
            self._by_shape[shape] = self.model if fits else self.model.with_shape(shape)
        return self._by_shape[shape]


class SavedModelPredictor(Predictor):
    """Predictor of a SavedModel through its signatures `register` and, if there is one, `variance`."""

    def __init__(self, folder: Path):
        self._loaded = tf.saved_model.load(
            str(folder)
        )  # a signature does not keep its variables alive by itself
        signatures = self._loaded.signatures
        if "register" not in signatures:
            raise ValueError(
                f"{folder}: expected a SavedModel with signature 'register' (moving, fixed -> displacement, moved), "
                f"found {sorted(signatures) or 'no signatures'}"
            )
        self._register = signatures["register"]
        has_variance = "variance" in signatures
        self._variance = signatures["variance"] if has_variance else None
        super().__init__(self._register.structured_input_signature[1]["moving"].shape.rank - 2)

    def _run(self, moving, fixed):
        images = {"moving": tf.constant(moving), "fixed": tf.constant(fixed)}
        results = dict(self._register(**images))
        if self._variance is not None:
            results |= self._variance(**images)
        names = ("displacement", "moved", "log_variance", "weight")
        return {name: results[name] for name in names if name in results}


def wrap(model) -> Predictor:
    """The predictor of a live model; a predictor is returned as it is."""
    return model if isinstance(model, Predictor) else ModelPredictor(model)


def load(path) -> Predictor:
    """The predictor of a model on disk.

    Args:
        path: a `.keras` file; or a SavedModel folder, or the folder above it that holds integer version
            folders, of which the largest is taken.

    Raises:
        FileNotFoundError: nothing at this path.
        ValueError: something else than a registration model.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no model at {path}: expected a .keras file or a SavedModel folder")
    if path.is_dir():
        return SavedModelPredictor(savedmodel_folder(path))
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a model: expected a .keras file or a SavedModel folder")
    return ModelPredictor(_load_keras(path))


def savedmodel_folder(path) -> Path:
    """The SavedModel at a folder: the folder itself, or the largest integer version inside it."""
    path = Path(path)
    if (path / "saved_model.pb").exists():
        return path
    versions = [v for v in path.iterdir() if v.name.isdecimal() and (v / "saved_model.pb").exists()]
    if not versions:
        found = sorted(entry.name for entry in path.iterdir())[:8]
        raise ValueError(
            f"{path} is not a SavedModel: expected saved_model.pb, or version folders 1, 2, … holding one; "
            f"found {', '.join(found) or 'nothing'}"
        )
    return max(versions, key=lambda v: int(v.name))


def _load_keras(path: Path):
    import hetmorph.networks  # noqa: F401  registers the classes that the file names

    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{path} does not load as a Keras model: {str(error).splitlines()[0]}") from error
