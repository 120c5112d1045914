import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from hetmorph.callbacks import Checkpoint, SanityCheck, SanityWarning, ValidationDice, latest_checkpoint
from hetmorph.networks import VxmDense


class Fake:
    """A model that registers everything by one displacement."""

    def __init__(self, displacement):
        self.displacement = np.asarray(displacement, "float32")

    def register(self, moving, fixed, batch_size=None):
        return np.broadcast_to(self.displacement, (*moving.shape[:-1], moving.ndim - 2))


def run(callback, model, steps=10):
    callback.set_model(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callback.on_train_begin()
        for batch in range(steps):
            callback.on_train_batch_end(batch)
    return [str(w.message) for w in caught if w.category is SanityWarning]


@pytest.fixture
def images(rng):
    return [rng.uniform(size=(2, 8, 8, 1)) for _ in range(2)]


def test_sanity_is_silent_when_all_is_well(images):
    assert run(SanityCheck(*images, patience=5), Fake([1.0, 0.0])) == []


def test_sanity_speaks_once_when_nothing_moves(images):
    (message,) = run(SanityCheck(*images, patience=5), Fake([0.0, 0.001]), steps=20)
    assert "after 5 steps" in message and "nothing is learned" in message


def test_sanity_speaks_of_folds(images):
    field = np.zeros((8, 8, 2))
    field[..., 0] = -3 * np.arange(8)[:, None]
    (message,) = run(SanityCheck(*images, patience=5), Fake(field))
    assert "100.0 % of the voxels fold" in message


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda x: 255 * x, r"span \[.*\] instead of \[0, 1\]"),
        (lambda x: x - 0.5, "instead of"),
        (lambda x: np.where(x > 0.9, np.nan, x), "NaN"),
        (lambda x: 0 * x, "constant"),
    ],
)
def test_sanity_looks_at_the_images(images, spoil, message):
    import re

    found = run(SanityCheck(spoil(images[0]), images[1], patience=5), Fake([1.0, 0.0]))
    assert len(found) == 1 and re.search(message, found[0]) and "moving" in found[0]


def labelled(shift):
    disc = (np.hypot(*np.mgrid[-8:8, -8:8]) < 5).astype(np.uint8) * 2
    image = np.zeros((16, 16), "float32")
    return SimpleNamespace(moving=image, fixed=image, moving_labels=disc, fixed_labels=np.roll(disc, shift, 0))


def test_validation_dice_warps_labels_the_right_way():
    callback = ValidationDice([labelled(2)])
    for displacement, expected in [([-2.0, 0.0], 1.0), ([0.0, 0.0], None), ([2.0, 0.0], None)]:
        callback.set_model(Fake(displacement))
        score = callback.score()
        assert score == 1.0 if expected else score < 0.85


def test_validation_leaves_out_pairs_without_the_label():
    empty = labelled(2)
    empty.fixed_labels = np.zeros_like(empty.fixed_labels)
    callback = ValidationDice([empty, labelled(2)])
    callback.set_model(Fake([-2.0, 0.0]))
    assert callback.score() == 1.0
    with pytest.raises(ValueError, match="none of the 1 validation pairs has label 2"):
        ValidationDice([empty])


def test_best_model_is_kept(tmp_path):
    model = VxmDense((16, 16), nb_unet_features=[[2], [2]])
    callback = ValidationDice([labelled(0)], best_path=tmp_path / "best.keras")
    callback.set_model(model)
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs["val_dice"] > 0.99 and (tmp_path / "best.keras").exists()
    written = (tmp_path / "best.keras").stat().st_mtime_ns
    callback.on_epoch_end(1, {})  # an equal score is no improvement
    assert (tmp_path / "best.keras").stat().st_mtime_ns == written


def test_checkpoint_keeps_the_newest_only(tmp_path):
    callback = Checkpoint(tmp_path)
    callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    assert latest_checkpoint(tmp_path) is None
    for epoch in range(3):
        callback.on_epoch_end(epoch)
    (tmp_path / ".partial-00009.keras").write_bytes(b"a killed run leaves this")
    assert latest_checkpoint(tmp_path) == (tmp_path / "00003.keras", 3)
    assert [p.name for p in tmp_path.glob("*.keras") if p.stem.isdigit()] == ["00003.keras"]
