"""neurite's checkpoint callback under its VoxelMorph name."""

from types import SimpleNamespace

from hetmorph.voxelmorph.original import ne


class ModelCheckpointParallel(ne.callbacks.ModelCheckpointParallel):
    """Save the model every `period` epochs, or every `at_batch_end` batches; arguments as neurite's.

    The original saves the layer that `multi_gpu_model` had wrapped. Keras 3 has no such wrapper (use a
    `tf.distribute` strategy), so that the model itself is saved.
    """

    @property
    def model(self):
        # What the original takes for the wrapped model: the layer before the outputs.
        return SimpleNamespace(outputs=[], layers=[self._model])
