import threading
import time
import warnings
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from hetmorph.callbacks import (
    Checkpoint,
    Deadline,
    Heartbeat,
    JointValidationDice,
    SanityCheck,
    SanityWarning,
    ValidationDice,
    latest_checkpoint,
)
from hetmorph.losses import MSE, Grad
from hetmorph.networks import HetVxmDense, VxmDense
from hetmorph.training.fitting import for_both


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


def test_training_starts_with_the_undeformed_score(capsys):
    callback = ValidationDice([labelled(2)], name="myo")
    assert 0.5 < callback.undeformed < 0.9
    callback.on_train_begin()
    assert f"validation Dice of myo, undeformed: {callback.undeformed:.4f} (mean of 1 pairs)" in capsys.readouterr().out
    callback.set_model(Fake([0.0, 0.0]))
    assert callback.score() == callback.undeformed


def test_the_best_model_is_one_whose_networks_are_all_trained(tmp_path):
    """One of the warm start gives way to any of later, and does not come back."""
    saved = []

    class Model(Fake):
        def save(self, path):
            saved.append(self.warming_up)
            path.touch()

    callback = ValidationDice([labelled(2)], best_path=tmp_path / "best.keras")
    for epoch, (warming_up, shift) in enumerate([(True, 0.0), (True, -2.0), (False, -1.0), (False, -0.5), (False, -2)]):
        model = Model([shift, 0.0])
        model.warming_up = warming_up
        callback.set_model(model)
        callback.on_epoch_end(epoch, {})
    assert saved == [True, True, False, False] and callback.best == 1.0


def test_several_sets_count_alike_in_the_mean(tmp_path):
    saved = []

    class Model(Fake):
        def save(self, path):
            saved.append(path.name)
            path.touch()

    own = {"one": ValidationDice([labelled(2)]), "many": ValidationDice([labelled(0)] * 3)}
    callback = JointValidationDice(own, tmp_path / "best.keras")
    logs = []
    for epoch, shift in enumerate([0.0, -2.0, -1.0]):
        callback.set_model(Model([shift, 0.0]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SanityWarning)
            callback.on_epoch_end(epoch, some := {})
        logs.append(some)
    assert logs[0]["val_dice_one"] == own["one"].undeformed and logs[0]["val_dice_many"] == 1
    for some in logs:
        assert some["val_dice"] == (some["val_dice_one"] + some["val_dice_many"]) / 2
    best = np.maximum.accumulate([some["val_dice"] for some in logs])
    assert callback.best == best[-1] and len(saved) == len(set(best))
    with pytest.raises(ValueError, match="a data set to validate on"):
        JointValidationDice({})


def test_a_model_that_is_worse_than_none_is_warned_of_each_time_it_falls():
    callback, told = ValidationDice([labelled(2)]), []
    for epoch, shift in enumerate([0.0, 2.0, 3.0, -2.0, 2.0]):
        callback.set_model(Fake([shift, 0.0]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            callback.on_epoch_end(epoch, {})
        told += [
            epoch for w in caught if w.category is SanityWarning and "below that of the undeformed" in str(w.message)
        ]
    assert told == [1, 4]


def test_validation_reads_pairs_in_turn_and_keeps_none():
    made = []

    class Pairs:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            if index >= 6:
                raise IndexError
            pair = labelled(2)
            pair.moving, pair.fixed = (np.zeros((16, 16), "float32") for _ in range(2))
            made.append(weakref.ref(pair.moving))
            return pair

    callback = ValidationDice(Pairs())
    callback.set_model(Fake([-2.0, 0.0]))
    assert callback.score() == 1.0 and len(callback.used) == 6 < len(made)
    assert not any(reference() is not None for reference in made)


def beating(model, steps, epochs=1, **options):
    """What a heartbeat says of a training of `steps` in each epoch, whose graph is `model.train_function`."""
    beat = Heartbeat(**options)
    beat.set_model(model)
    beat.set_params({"epochs": epochs, "steps": steps})
    for epoch in range(epochs):
        beat.on_epoch_begin(epoch)
        for batch in range(steps):
            beat.on_train_batch_begin(batch)
            yield beat
            beat.on_train_batch_end(batch, {"loss": 0.5 + batch})


def test_heartbeat_tells_of_compiling_and_of_each_new_graph(capsys):
    model = SimpleNamespace(train_function=object())
    for step, _ in enumerate(beating(model, 3, 2)):
        if step == 2:
            model.train_function = object()  # a phase begins
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2 step 1/3"] * 2 + ["epoch 2/2 step 1/3"] * 2
    assert "traced and compiled" in lines[0] and "loss 0.5; compiled and done after" in lines[1]


def test_heartbeat_says_where_it_is():
    states = [beat.status() for beat in beating(SimpleNamespace(train_function=object()), 2)]
    assert states[0].startswith("epoch 1/1 step 1/2: still compiling, ") and states[1] == "epoch 1/1 step 2/2: loss 0.5"


@pytest.mark.parametrize("steps", [True, False])
def test_heartbeat_beats_while_a_step_is_silent_and_ends_with_the_training(steps, monkeypatch):
    said, enough = [], threading.Event()
    monkeypatch.setattr(Heartbeat, "_say", lambda self, line: said.append(line) or (len(said) > 3 and enough.set()))
    model = SimpleNamespace(train_function=object())
    with pytest.raises(KeyboardInterrupt), Heartbeat(interval=0.001, steps=steps) as beat:
        beat.set_model(model)
        beat.set_params({})
        beat.on_epoch_begin(0)
        beat.on_train_batch_begin(0)
        assert enough.wait(60)  # it goes on saying so while the step compiles
        raise KeyboardInterrupt
    assert not beat._thread.is_alive() and all("compil" in line for line in said)


def test_best_model_is_kept(tmp_path):
    model = VxmDense((16, 16), nb_unet_features=[[2], [2]], int_steps=1)
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


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 0.5), ("poly", 0.5**0.9), ("none", 1.0)])
def test_a_deadline_ends_the_training_and_its_rate(monkeypatch, decay, middle):
    """Epochs of 3 minutes of 12, of which a training that goes on has done 2; and both optimisers follow."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    model = HetVxmDense((8, 8), [[2], [2]], variance_features=[[2], [2]], warm_start=0)
    losses = [MSE().loss, Grad("l2").loss]
    model.compile(keras.optimizers.Adam(9.0), losses, variance_optimizer=keras.optimizers.Adam(9.0))
    deadline = Deadline(12, 0.1, decay, before=2.0)
    both = for_both([deadline], model)
    for callback in both:
        callback.set_model(model)
        callback.on_train_begin()
    rates, minutes = [], []
    while not model.stop_training:
        for callback in both:
            callback.on_epoch_begin(len(rates))
        rates.append([float(one.learning_rate) for one in (model.optimizer, model.variance_optimizer)])
        now[0] += 180
        logs = {}
        for callback in both:
            callback.on_epoch_end(len(rates) - 1, logs)
        minutes.append(logs["minutes"])
    assert minutes == [5, 8, 11] and [a for a, b in rates] == [b for a, b in rates]
    np.testing.assert_allclose(rates[0][0], 0.01 * deadline.decay(2 / 12), rtol=1e-5)
    deadline.before = 3.0
    now[0] = deadline._began + 180
    np.testing.assert_allclose(deadline._rate(5), 0.1 * middle, rtol=1e-6)
