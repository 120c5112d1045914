"""The `hetmorph` command (`hetmorph.cli.main`): verbs, TensorFlow imported once one that needs it runs."""
