"""Curves for TensorBoard that cost nothing between epochs."""

import keras


class EpochTensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback without its work after every batch.

    That makes a summary of each value, which is thrown away where epochs are written, and waits for a GPU to finish
    the step before the next may begin.

    Args:
        folder: where the curves are written.
    """

    def __init__(self, folder):
        super().__init__(folder, write_graph=False)

    def on_train_batch_begin(self, batch, logs=None):
        pass

    def on_train_batch_end(self, batch, logs=None):
        pass
