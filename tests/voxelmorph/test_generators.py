"""Generators: the original's volumes, in what Keras 3's `fit` takes."""

import itertools

import keras
import numpy as np
import pytest

from hetmorph import generators, py
from hetmorph.voxelmorph.original import vxm

SIZE = (8, 8)


@pytest.fixture
def volumes(rng):
    return [rng.uniform(size=SIZE).astype("float32") for _ in range(3)]


@pytest.fixture
def files(volumes, tmp_path):
    """Three `.npz` files with a volume and its segmentation."""
    paths = [tmp_path / f"{i}.npz" for i in range(3)]
    for path, vol in zip(paths, volumes, strict=True):
        np.savez(path, vol=vol, seg=(vol > 0.5).astype(int) + (vol > 0.8))
    return [str(path) for path in paths]


def atlas(volumes):
    return volumes[0][None, ..., None]


SCANS = {
    "scan_to_scan": lambda g, v, f: g.scan_to_scan(v, batch_size=2),
    "scan_to_scan bidir same": lambda g, v, f: g.scan_to_scan(f, bidir=True, prob_same=0.5),
    "scan_to_scan no_warp": lambda g, v, f: g.scan_to_scan(v, no_warp=True),
    "scan_to_atlas": lambda g, v, f: g.scan_to_atlas(v, atlas(v), batch_size=2),
    "scan_to_atlas segs": lambda g, v, f: g.scan_to_atlas(f, atlas(v), bidir=True, segs=True),
    "template_creation": lambda g, v, f: g.template_creation(v, bidir=True),
    "conditional_template_creation": lambda g, v, f: g.conditional_template_creation(
        f, atlas(v), {name: np.array([i, 1.0]) for i, name in enumerate(f)}, batch_size=2
    ),
    "volgen": lambda g, v, f: g.volgen(f, batch_size=2, segs=True, pad_shape=(10, 10)),
    "volgen resize": lambda g, v, f: g.volgen(v, resize_factor=0.5),
}


def flat(batch):
    return list(itertools.chain.from_iterable(x if isinstance(x, (list, tuple)) else [x] for x in batch))


@pytest.mark.parametrize("name", SCANS)
def test_yields_what_the_original_yields_as_tuples(name, volumes, files):
    batches = []
    for module in (generators, vxm.generators):
        np.random.seed(0)
        batches.append(list(itertools.islice(SCANS[name](module, volumes, files), 3)))
    for ours, original in zip(*batches, strict=True):
        assert isinstance(ours, tuple) and all(isinstance(part, (tuple, np.ndarray)) for part in ours)
        for a, b in zip(flat(ours), flat(original), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_synthmorph_yields_integer_maps(rng):
    maps = [rng.integers(0, 3, SIZE) for _ in range(2)]
    (source, target), (void, _) = next(generators.synthmorph(maps, batch_size=2))
    assert source.shape == target.shape == (2, *SIZE, 1)
    assert np.issubdtype(source.dtype, np.integer)
    assert void.shape == (2, *SIZE, 2)


@pytest.mark.parametrize("size", [(8,), (8, 6), (4, 6, 8)])
def test_semisupervised_in_any_dimension(size, rng, tmp_path):
    vols = [rng.uniform(size=size) for _ in range(2)]
    segs = [rng.integers(0, 4, size) for _ in range(2)]
    np.savez(tmp_path / "atlas.npz", vol=vols[0], seg=segs[0])
    inputs, outputs = next(generators.semisupervised(vols, segs, labels=[1, 3], atlas_file=tmp_path / "atlas.npz"))
    half = tuple(slice(None, None, 2) for _ in size)
    assert inputs[0].shape == (1, *size, 1)
    assert outputs[1].shape == (1, *size, len(size))
    np.testing.assert_array_equal(outputs[2][0, ..., 1], (segs[0] == 3)[half])
    assert outputs[2].shape[-1] == 2


def test_semisupervised_equals_the_original_in_3d(rng):
    vols = [rng.uniform(size=(4, 4, 4)) for _ in range(2)]
    segs = [rng.integers(0, 3, (4, 4, 4)) for _ in range(2)]
    np.random.seed(0)
    ours = next(generators.semisupervised(vols, segs, labels=[1, 2]))
    np.random.seed(0)
    for a, b in zip(flat(ours), flat(next(vxm.generators.semisupervised(vols, segs, labels=[1, 2]))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("surf_bidir", [True, False])
def test_surface_points_lie_on_the_surface(surf_bidir, tmp_path):
    seg = np.zeros((16, 16))
    seg[4:12, 5:11] = 2
    np.savez(tmp_path / "case.npz", vol=seg, seg=seg)
    generator = generators.surf_semisupervised(
        [str(tmp_path / "case.npz")], seg, seg, nb_surface_pts=20, surf_bidir=surf_bidir
    )
    inputs, outputs = next(generator)
    assert len(inputs) == (6 if surf_bidir else 4)
    assert len(outputs) == (5 if surf_bidir else 4)
    points = inputs[-1][0, :, :2]
    distance = py.utils.signed_dist_trf(seg > 0)
    rounded = np.round(points).astype(int)
    assert np.abs(distance[tuple(rounded.T)]).max() <= 2


def test_fit_takes_a_generator(volumes):
    """The symptom: Keras 3 stacks the lists that the original yields into one tensor and fails."""
    source, target = keras.Input((*SIZE, 1)), keras.Input((*SIZE, 1))
    both = keras.layers.Concatenate()([source, target])
    conv = keras.layers.Conv2D
    model = keras.Model([source, target], [conv(1, 1)(both), conv(2, 1)(both)])
    model.compile("sgd", loss=["mse", "mse"])
    history = model.fit(generators.scan_to_scan(volumes, batch_size=2), steps_per_epoch=3, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_paths_may_be_path_objects(files):
    from pathlib import Path

    (volume,) = next(generators.volgen([Path(f) for f in files]))
    assert volume.shape == (1, *SIZE, 1)
