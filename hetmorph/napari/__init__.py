"""The plug-in for the viewer napari (`pip install "hetmorph[napari]"`): two layers registered as by the command."""
