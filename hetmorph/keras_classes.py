"""Registers hetmorph's Keras classes as soon as Keras is imported, by whomever.

Keras finds the class of a saved model only after it was registered, so that `import hetmorph, keras;
keras.saving.load_model(…)` needs them all. What needs no Keras, such as reading a file or printing a help, must not
wait seconds for it. So `import hetmorph` imports nothing, but watches for the end of the import of Keras. The classes
of VoxelMorph's room import the originals, and are made when a file is met that holds one.
"""

import importlib
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec

from hetmorph.voxelmorph import REGISTERED

HOLDERS = ("hetmorph.layers", "hetmorph.losses", "hetmorph.steps", "hetmorph.networks")


def register_with_keras() -> None:
    """Register the classes now, if Keras is imported, else once it is. Nothing of Keras is changed."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Watch())


def _register() -> None:
    import keras

    try:
        for holder in HOLDERS:
            importlib.import_module(holder)
        known = keras.saving.get_custom_objects()
        for name in (f"{package}>{name}" for package, names in REGISTERED.items() for name in names.split()):
            known.setdefault(name, _Later(name))
    except ImportError as error:  # whoever imports Keras may not want hetmorph's models; who does is told again
        warnings.warn(f"hetmorph's classes are not registered with Keras: {error}", RuntimeWarning, stacklevel=2)


class _Later:
    """Stands for a class of VoxelMorph's room until a file holds one; the room then registers the class itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def from_config(self, config: dict):
        """The object that the class makes of its configuration."""
        import keras

        importlib.import_module("hetmorph.voxelmorph.networks")  # and with it the layers
        # Not `get_registered_object`: while it loads a file, Keras looks into a copy that still has this stand-in.
        return keras.saving.get_custom_objects()[self.name].from_config(config)


class _Watch(MetaPathFinder):
    """Acts when the outermost of the imports under way has ended.

    TensorFlow imports Keras, and so do parts of hetmorph, before they are complete themselves: to import the classes in
    the middle of that would go round in a circle.
    """

    def __init__(self) -> None:
        self.under_way = 0

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        """The spec that the other finders give, of a module that may import Keras; None of every other module."""
        if name not in ("keras", "tensorflow") and name.rpartition(".")[0] != "hetmorph":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader) -> None:
        """Notice when the module has been executed."""
        execute = loader.exec_module

        def exec_module(module) -> None:
            del loader.exec_module  # as it was: the class's own
            self.under_way += 1
            try:
                execute(module)
            finally:
                self.under_way -= 1
            if not self.under_way and "keras" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        loader.exec_module = exec_module
