"""The dock widget: two layers of the viewer, a model, a button."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, PushButton, SpinBox, TextEdit
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info, show_warning

from hetmorph.cli.messages import line_of
from hetmorph.cli.models import SHIPPED
from hetmorph.cli.options import AFFINE
from hetmorph.napari.files import write_displacement
from hetmorph.napari.layers import KEY, layers_of
from hetmorph.napari.process import steps
from hetmorph.napari.work import Found, Refusal
from hetmorph.napari.world import affine_by, image_of, in_length
from hetmorph.presets import models

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

NO_MODEL, OF_A_FILE = "undeformed", "a file or folder"
_ENDINGS = "Displacement, NIfTI (*.nii.gz);;Transform of ITK, 3D Slicer (*.tfm *.h5)"


class RegisterWidget(Container):
    """Registers two layers, and adds what is found to the viewer.

    Args:
        napari_viewer: the viewer.
    """

    def __init__(self, napari_viewer: napari.Viewer):
        self._viewer, self._worker = napari_viewer, None
        self._moving, self._fixed = (
            ComboBox(label=role, choices=self._images, nullable=True, tooltip=what)
            for role, what in (("moving", "Image to be moved."), ("fixed", "Image it is moved onto."))
        )
        names = sorted({path.name for path in models()}, key=lambda name: (name != SHIPPED, name))
        self._model = ComboBox(
            label="model",
            choices=[*names, NO_MODEL, OF_A_FILE],
            tooltip=f"A shipped model; {NO_MODEL}: none, for an affine stage or an optimisation alone.",
        )
        self._path = FileEdit(label="file", mode="r", visible=False, tooltip="A .keras file or a SavedModel folder.")
        self._affine = ComboBox(label="affine stage", choices=AFFINE, tooltip="Before the model; needs SimpleITK.")
        self._iterations = SpinBox(
            label="optimise, iterations", max=1000, tooltip="On this pair alone, after the model; 0 for none."
        )
        self._uncertain = CheckBox(
            text="uncertainty", tooltip="σ of the displacement; with the model's calibration, a bound of its error."
        )
        self._draws = SpinBox(
            label="draws", min=2, max=500, value=20, tooltip="Of the uncertainty; a calibration has its own number."
        )
        self._register, self._save = PushButton(text="Register"), PushButton(text="Save displacement …")
        self._status = TextEdit(value="")  # which scrolls where a verdict has many reasons
        self._status.read_only = True
        super().__init__(
            widgets=[
                *(self._moving, self._fixed, self._model, self._path, self._affine, self._iterations),
                *(self._uncertain, self._draws, self._register, self._save, self._status),
            ]
        )
        self._model.changed.connect(lambda name: setattr(self._path, "visible", name == OF_A_FILE))
        self._register.changed.connect(self.register)
        self._save.changed.connect(self._ask_where)

    @property
    def options(self) -> dict:
        """What is chosen, as options of `cli.register_job.Settings`."""
        chosen = self._model.value
        return {
            "model": str(self._path.value) if chosen == OF_A_FILE else chosen,
            "affine": self._affine.value,
            "instance_optimise": self._iterations.value or None,
            "draws": self._draws.value,
        }

    def register(self) -> None:
        """Start the registration; a thread waits for its process."""
        layers = self._moving.value, self._fixed.value
        if None in layers:
            show_error("expected a moving and a fixed layer, of images")
            return
        try:
            images = [_image(layer) for layer in layers]
        except ValueError as error:
            show_error(line_of(error))
            return
        units = "mm" if in_length(layers[1].units) else None
        names = tuple(layer.name for layer in layers)
        self._register.enabled = False
        progress = {"total": 0, "desc": "registering"}
        self._worker = create_worker(
            steps, *images, self.options, self._uncertain.value, _start_thread=False, _progress=progress
        )
        self._worker.yielded.connect(self._say)
        self._worker.returned.connect(lambda found: self._show(found, names, units))
        self._worker.finished.connect(self._end)
        self._worker.start()

    def save(self, path: str | Path) -> None:
        """Write the displacement of the selected layer, or of the latest registration.

        Args:
            path: file to write; its ending says the format.
        """
        selected = self._viewer.layers.selection.active
        layers = [*self._viewer.layers, *([] if selected is None else [selected])]
        holding = [layer.metadata for layer in layers if KEY in layer.metadata]
        try:
            if not holding:
                raise ValueError("no layer of this viewer holds a displacement: register two first")
            show_info(f"wrote {write_displacement(path, holding[-1])}")
        except (ValueError, OSError, ImportError) as error:
            show_error(line_of(error))

    def _images(self, _) -> list[Image]:
        """The layers to choose from; the dock asks again when there are others."""
        return [layer for layer in self._viewer.layers if layer._type_string == "image"]

    def _ask_where(self) -> None:
        from qtpy.QtWidgets import QFileDialog

        path, _ = QFileDialog.getSaveFileName(self.native, "Save the displacement", "displacement.nii.gz", _ENDINGS)
        if path:
            self.save(path)

    def _show(self, found: Found | Refusal, names: tuple[str, str], units: str | None) -> None:
        if isinstance(found, Refusal):
            self._say("")
            show_error(found.line)
            return
        from napari.layers import Layer

        for layer in layers_of(found, names, units):
            self._viewer.add_layer(Layer.create(*layer))
        said = f"{found.flag}: {found.reason}"
        self._say("\n".join([*found.notes, f"verdict: {said}"]))
        if found.flag in ("review", "reject"):
            show_warning(said)

    def _say(self, text: str) -> None:
        self._status.value = text

    def _end(self) -> None:
        self._register.enabled = True


def _image(layer: Image):
    """A layer as an image, its voxels and its place."""
    if layer.multiscale or layer.rgb:
        kind = "of several resolutions" if layer.multiscale else "of colours"
        raise ValueError(f"{layer.name}: expected grey voxels of one resolution, received an image {kind}")
    return image_of(layer.data, affine_by(layer.data_to_world, layer.ndim), layer.name, layer.units)
