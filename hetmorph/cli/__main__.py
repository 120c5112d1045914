"""`python -m hetmorph.cli`, the same as `hetmorph`."""

from hetmorph.cli.main import cli

cli()
