"""One training step for all models: each player lessens its loss by moving its own variables."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from hetmorph.ops.xla import compiled_kernels
from hetmorph.training.distribution import OnReplicas, balanced, clipped_together, replicas


@dataclass
class Play:
    """What one batch was, and what the model made of it.

    Attributes:
        x, y, sample_weight: the batch, as `keras.Model.fit` hands it on.
        y_pred: the model's outputs.
        training: whether somebody is to move.
        registered: what else the losses of a model look at, as its `play` knows it.
    """

    x: Any
    y: Any
    sample_weight: Any
    y_pred: Any
    training: bool
    registered: Any = None


@dataclass(frozen=True)
class Player:
    """Somebody who moves variables of its own to lessen a loss of its own.

    A registration network alone is one player with the compiled losses. Two networks that must not reach each other's
    variables, such as those of displacement and noise variance, are two.

    Attributes:
        loss: `play → scalar`, already divided by the number of replicas, see `global_mean`.
        variables: what it moves.
        optimizer: what moves them.
        active: whether it moves in the phase that the training is in.
        anew: whether the images are registered once more before its turn, by networks that have just been moved.
    """

    loss: Callable[[Play], tf.Tensor]
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    active: bool = True
    anew: bool = False


class Trained(OnReplicas):
    """Mixin before `keras.Model`: its training step, for any number of players.

    A subclass with more than one player, or losses of more than its outputs, overrides `play` and `players`.
    """

    def play(self, x, y, sample_weight, training: bool) -> Play:
        """Run the model on a batch."""
        return Play(x, y, sample_weight, self(x, training=training), training)

    def players(self) -> list[Player]:
        """Who is trained; by default all variables by the compiled loss."""
        return [Player(self._compiled_loss, self.trainable_variables, self.optimizer)]

    def _compiled_loss(self, play: Play) -> tf.Tensor:
        loss = self._compute_loss(play.x, play.y, play.y_pred, play.sample_weight, play.training) + self.further_loss(
            play
        )
        self.note_loss(loss, play)
        return loss

    def further_loss(self, play: Play) -> tf.Tensor:
        """What is added to the compiled losses of the outputs, already divided by the number of replicas."""
        return tf.zeros([])

    def note_loss(self, loss: tf.Tensor, play: Play) -> None:
        """Take a loss, divided by the number of replicas, into the running mean that `fit` shows as "loss"."""
        self._loss_tracker.update_state(loss * replicas(), sample_weight=tf.shape(tf.nest.flatten(play.x)[0])[0])

    def make_train_function(self, force=False):
        """As Keras has it, with all variables made before: those that a trace makes have it traced once more."""
        strategy = self.distribute_strategy
        if strategy is None or strategy.num_replicas_in_sync == 1:  # replicas have a build of their own
            self._make_variables()
        super().make_train_function(force)

    def _make_variables(self) -> None:
        for player in self.players():
            if not player.optimizer.built:
                player.optimizer.build(player.variables)
        if self._compile_loss is not None and not self._compile_loss.built and hasattr(self, "outputs"):
            self._compile_loss.build(list(self.outputs), list(self.outputs))

    @compiled_kernels()
    def train_step(self, data):
        """Let every player move once; kernels are compiled here, and nowhere that is exported."""
        data, share = balanced(data)
        batch = keras.utils.unpack_x_y_sample_weight(data)
        first, *others = self.players()
        active = [player for player in (first, *others) if player.active]
        together = [player for player in active if not player.anew]
        with contextlib.ExitStack() as stack:
            tapes = [stack.enter_context(tf.GradientTape()) for _ in together]
            play = self.play(*batch, training=True)
            losses = [player.optimizer.scale_loss(share * player.loss(play)) for player in together]
        if not first.active:
            first.loss(play)  # it is what `fit` shows as "loss"
        # The last first: what its network, which ran last, left for the gradient is free before others need memory.
        for player, tape, loss in reversed(list(zip(together, tapes, losses, strict=True))):
            _move(player, tape, loss)
        for player in (player for player in active if player.anew):
            again = self.play(*batch, training=True)
            with tf.GradientTape() as tape:
                loss = player.optimizer.scale_loss(share * player.loss(again))
            _move(player, tape, loss)
        return self.compute_metrics(play.x, play.y, play.y_pred, play.sample_weight)

    def test_step(self, data):
        """The losses of every player, and the metrics."""
        data, _ = balanced(data)
        play = self.play(*keras.utils.unpack_x_y_sample_weight(data), training=False)
        for player in self.players():
            player.loss(play)
        return self.compute_metrics(play.x, play.y, play.y_pred, play.sample_weight)


def _move(player: Player, tape: tf.GradientTape, loss: tf.Tensor) -> None:
    gradients = clipped_together(tape.gradient(loss, player.variables), player.optimizer)
    player.optimizer.apply(gradients, player.variables)


def global_mean(values: tf.Tensor, sample_weight=None) -> tf.Tensor:
    """Mean over the global batch of one number per sample, as this replica's share of it.

    Gradients of the replicas are added up, so that each divides by how many there are. A weight of 0 leaves a sample
    out of the sum; the number of samples stays, as in Keras.

    Args:
        values: `[B]`.
        sample_weight: `[B]`, or None.
    """
    if sample_weight is not None:
        values = values * tf.reshape(tf.cast(sample_weight, values.dtype), [-1])
    return tf.reduce_mean(values) / replicas()
