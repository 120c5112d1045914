"""VoxelMorph's spatial layers on hetmorph's batched kernels: any spatial size, also sizes unknown until run time.

They need nothing of VoxelMorph, and become subclasses of its layers once these are imported (`voxelmorph/original.py`):
they call `keras.layers.Layer` by name, so that nothing of theirs depends on when that is.
"""

import math
import warnings
from fractions import Fraction

import keras
import tensorflow as tf

from hetmorph.configured import Configured
from hetmorph.ops import affine, fields
from hetmorph.ops.grid import crop_to, pad_to_multiple, spatial_shape
from hetmorph.ops.warp import METHODS, warp


def _check_method(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"interp_method must be one of {METHODS}, got {method!r}")
    return method


def _check_indexing(indexing: str) -> str:
    if indexing not in ("ij", "xy"):
        raise ValueError(f"indexing must be 'ij' or 'xy', got {indexing!r}")
    return indexing


def _config(layer: keras.layers.Layer, *names: str) -> dict:
    return {**keras.layers.Layer.get_config(layer), **{name: getattr(layer, name) for name in names}}


def _array_order(field: tf.Tensor, indexing: str) -> tf.Tensor:
    """Bring a field to array order: "xy" (cartesian) fields have their first two components swapped."""
    if indexing == "ij":
        return field
    order = [1, 0, *range(2, field.shape[-1])]
    return tf.gather(field, order, axis=-1)


@keras.saving.register_keras_serializable("hetmorph")
class SpatialTransformer(keras.layers.Layer):
    """Warp an image by a dense displacement or an affine matrix.

    Inputs `[image, transform]`: image `[B, *S, C]`; transform `[B, *T, N]` in voxels on the output grid
    (moved(x) = image(x + u(x))) or `[B, N, N+1]`. Returns `[B, *T, C]`.

    Args:
        interp_method: "linear" or "nearest".
        indexing: "ij" (array order) or "xy" (first two components of the transform swapped).
        single_transform: use the first transform of the batch for every image.
        fill_value: value outside the image; None repeats the edge.
        shift_center: whether an affine acts about the image centre.
        fade: go over to `fill_value` within the voxel beyond the edge, see `ops.warp`.

    Example:
        >>> moved = SpatialTransformer()([image, displacement])

    Reference:
        Balakrishnan et al., IEEE TMI 2019, doi:10.1109/TMI.2019.2897538.
    """

    def __init__(
        self,
        interp_method="linear",
        indexing="ij",
        single_transform=False,
        fill_value=None,
        shift_center=True,
        fade=False,
        **kwargs,
    ):
        keras.layers.Layer.__init__(self, **kwargs)
        self.interp_method, self.indexing = _check_method(interp_method), _check_indexing(indexing)
        self.single_transform, self.fill_value, self.shift_center = single_transform, fill_value, shift_center
        self.fade = fade

    def build(self, input_shape):
        image, transform = input_shape
        self.is_affine, ndims = affine.is_affine_shape(transform[1:]), len(image) - 2
        if self.is_affine and tuple(transform[1:]) != (ndims, ndims + 1):
            raise ValueError(f"expected affine matrices {(ndims, ndims + 1)}, got {tuple(transform[1:])}")
        if not self.is_affine and tuple(image[1:-1]) != tuple(transform[1:-1]):
            warnings.warn(f"the transform's grid {transform[1:-1]} is not the image's {image[1:-1]}", stacklevel=2)
        self.built = True

    def call(self, inputs):
        image, transform = inputs
        if self.single_transform:
            transform = tf.repeat(transform[:1], tf.shape(image)[0], axis=0)
        if self.is_affine:
            displacement = affine.to_displacement(transform, spatial_shape(image), self.shift_center)
        else:
            displacement = transform
        displacement = _array_order(displacement, self.indexing)
        return warp(image, displacement, self.interp_method, self.fill_value, self.fade)

    def compute_output_shape(self, input_shape):
        image, transform = input_shape
        grid = image[1:-1] if affine.is_affine_shape(transform[1:]) else transform[1:-1]
        return (image[0], *grid, image[-1])

    def get_config(self):
        return _config(self, "interp_method", "indexing", "single_transform", "fill_value", "shift_center", "fade")


@keras.saving.register_keras_serializable("hetmorph")
class VecInt(keras.layers.Layer):
    """Integrate a stationary velocity field `[B, *S, N]` (voxels) to a displacement of the same shape.

    Args:
        method: "ss" or "scaling_and_squaring" (`int_steps` squarings), or "quadrature" (`int_steps` Euler steps).
            "ode" relied on `tf.contrib` and is refused.
        int_steps: number of steps.
        indexing: as in `SpatialTransformer`.

    Reference:
        Dalca et al., Medical Image Analysis 2019, doi:10.1016/j.media.2019.07.006.
    """

    def __init__(self, indexing="ij", method="ss", int_steps=7, **kwargs):
        known = ("ss", "scaling_and_squaring", "quadrature")
        if method not in known:
            raise ValueError(f"method must be one of {known}, got {method!r}")
        for of_ode in ("out_time_pt", "ode_args", "odeint_fn"):
            kwargs.pop(of_ode, None)  # part of the configurations that voxelmorph wrote
        keras.layers.Layer.__init__(self, **kwargs)
        self.indexing, self.method, self.int_steps = _check_indexing(indexing), method, int_steps

    def build(self, input_shape):
        shape = input_shape[0] if isinstance(input_shape[0], (list, tuple)) else input_shape
        if shape[-1] != len(shape) - 2:
            raise ValueError(f"expected a velocity [B, *S, N] with N the number of axes in S, got shape {tuple(shape)}")
        self.built = True

    def call(self, inputs):
        velocity = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        velocity = _array_order(velocity, self.indexing)
        if self.method != "quadrature":
            return fields.integrate(velocity, self.int_steps)
        step = velocity / self.int_steps
        displacement = step
        for _ in range(self.int_steps - 1):
            displacement += warp(step, displacement)
        return displacement

    def compute_output_shape(self, input_shape):
        return input_shape[0] if isinstance(input_shape[0], (list, tuple)) else input_shape

    def get_config(self):
        return _config(self, "indexing", "method", "int_steps")


VecIntegration = VecInt


@keras.saving.register_keras_serializable("hetmorph")
class RescaleTransform(keras.layers.Layer):
    """Resample a dense transform to `int(size * zoom_factor)` voxels and scale its vectors; affine: the translation.

    Args:
        zoom_factor: output size / input size.
        interp_method: "linear" or "nearest".
    """

    def __init__(self, zoom_factor, interp_method="linear", **kwargs):
        keras.layers.Layer.__init__(self, **kwargs)
        self.zoom_factor, self.interp_method = zoom_factor, _check_method(interp_method)

    def call(self, transform):
        if affine.is_affine_shape(transform.shape[1:]):
            linear, translation = transform[..., :-1], transform[..., -1:]
            return tf.concat([linear, translation * self.zoom_factor], axis=-1)
        return fields.rescale(transform, self.zoom_factor, self.interp_method)

    def compute_output_shape(self, input_shape):
        if affine.is_affine_shape(input_shape[1:]):
            return tuple(input_shape)
        grid = fields.resized_shape(list(input_shape[1:-1]), self.zoom_factor)
        return (input_shape[0], *grid, input_shape[-1])

    def get_config(self):
        return _config(self, "zoom_factor", "interp_method")


@keras.saving.register_keras_serializable("hetmorph")
class ComposeTransform(keras.layers.Layer):
    """Compose transforms into one: T = ComposeTransform()([A, B, C]) warps as A, then B, then C would.

    Dense `[B, *S, N]` and affine `[B, N, N+1]` transforms mix; the result is dense unless all are affine.

    Args:
        interp_method: "linear" or "nearest".
        shift_center: whether an affine acts about the image centre.
        indexing: only "ij", array order.
    """

    def __init__(self, interp_method="linear", shift_center=True, indexing="ij", **kwargs):
        if indexing != "ij":
            raise ValueError(f"transforms can only be composed with 'ij' indexing, got {indexing!r}")
        keras.layers.Layer.__init__(self, **kwargs)
        self.interp_method, self.shift_center, self.indexing = _check_method(interp_method), shift_center, indexing

    def build(self, input_shape):
        if not isinstance(input_shape, (list, tuple)) or len(input_shape) < 2:
            raise ValueError(f"ComposeTransform needs a list of at least 2 transforms, got shape {input_shape}")
        self.built = True

    def call(self, transforms):
        current = transforms[-1]
        for outer in reversed(transforms[:-1]):
            current = self._compose_pair(outer, current)
        return current

    def _compose_pair(self, outer: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
        dense = [t for t in (outer, inner) if not affine.is_affine_shape(t.shape[1:])]
        if not dense:
            return affine.compose(outer, inner)
        shape = spatial_shape(dense[0])
        outer, inner = (self._ensure_dense(t, shape) for t in (outer, inner))
        return fields.compose(outer, inner, self.interp_method)

    def _ensure_dense(self, transform: tf.Tensor, shape: list) -> tf.Tensor:
        if affine.is_affine_shape(transform.shape[1:]):
            return affine.to_displacement(transform, shape, self.shift_center)
        return transform

    def compute_output_shape(self, input_shape):
        return tuple(next((s for s in input_shape if not affine.is_affine_shape(s[1:])), input_shape[0]))

    def get_config(self):
        return _config(self, "interp_method", "shift_center", "indexing")


@keras.saving.register_keras_serializable("hetmorph")
class PadToMultiple(Configured, keras.layers.Layer):
    """Append zeros to each spatial axis of `[B, *S, C]` until its size is a multiple of `multiple`.

    Args:
        multiple: voxels.
    """

    def __init__(self, multiple: int, **kwargs):
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, image):
        return pad_to_multiple(image, self.multiple)

    def compute_output_shape(self, input_shape):
        grid = [None if d is None else d + (-d) % self.multiple for d in input_shape[1:-1]]
        return (input_shape[0], *grid, input_shape[-1])


@keras.saving.register_keras_serializable("hetmorph")
class CropToReference(Configured, keras.layers.Layer):
    """Undo `PadToMultiple`: crop `[tensor, reference]` to ceil(reference size / `resolution`) voxels per axis.

    Args:
        resolution: voxel size of the tensor's grid in voxels of the reference.
    """

    def __init__(self, resolution: float = 1, **kwargs):
        super().__init__(**kwargs)
        self.resolution = resolution

    def call(self, inputs):
        tensor, reference = inputs
        return crop_to(tensor, [self._size(d) for d in spatial_shape(reference)])

    def _size(self, reference):
        if reference is None or isinstance(reference, int):
            return reference and math.ceil(reference / self.resolution)
        ratio = Fraction(self.resolution).limit_denominator(10**4)
        # Of no negative number, see `ops.grid.missing`.
        return (reference * ratio.denominator + ratio.numerator - 1) // ratio.numerator

    def compute_output_shape(self, input_shape):
        tensor, reference = input_shape
        return (tensor[0], *[self._size(d) for d in reference[1:-1]], tensor[-1])


@keras.saving.register_keras_serializable("hetmorph")
class Negate(keras.layers.Layer):
    """−x: the velocity of the inverse transform."""

    def __init__(self, **kwargs):
        keras.layers.Layer.__init__(self, **kwargs)

    def call(self, x):
        return -x

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return _config(self)
