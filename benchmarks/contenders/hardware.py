"""The device that a contender's framework runs on: whether there is one, waiting for it, and its memory."""


class Missing(Exception):
    """The framework sees no such device."""


def of(name: str, framework: str | None):
    """Device of a case.

    Args:
        name: "cpu" or "gpu".
        framework: "tensorflow" or "torch"; None for who knows only the processor.

    Raises:
        Missing: the framework sees no such device.
    """
    if name == "cpu":
        return Host()
    if framework is None:
        raise Missing("expected a contender that can use a GPU, received one that cannot")
    return {"tensorflow": TensorFlowGpu, "torch": TorchGpu}[framework]()


class Host:
    """The processor, on which a function has done its work when it returns."""

    waits = False

    def wait(self) -> None:
        """Nothing is left to wait for."""

    def peak_mib(self) -> None:
        """It has no memory beside the process'."""


class TensorFlowGpu:
    """The first GPU that TensorFlow sees."""

    waits = True

    def __init__(self):
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            raise Missing(f"expected a GPU, received none: TensorFlow {tf.__version__} sees only the processor")
        self.tf = tf

    def wait(self) -> None:
        """Return when all that was asked of the device is done."""
        self.tf.test.experimental.sync_devices()

    def peak_mib(self) -> float:
        """The most that tensors and working memory took at once."""
        return self.tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


class TorchGpu:
    """The first GPU that PyTorch sees."""

    waits = True

    def __init__(self):
        import torch

        if not torch.cuda.is_available():
            raise Missing(f"expected a GPU, received none: PyTorch {torch.__version__} sees only the processor")
        self.torch = torch

    def wait(self) -> None:
        """Return when all that was asked of the device is done."""
        self.torch.cuda.synchronize()

    def peak_mib(self) -> float:
        """The most that tensors and working memory took at once."""
        return self.torch.cuda.max_memory_allocated() / 2**20
