"""The `hetmorph` command (`hetmorph.cli.main`): a file for each verb, TensorFlow imported once a verb runs."""
