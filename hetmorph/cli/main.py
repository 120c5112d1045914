"""The group of all verbs, and what a user's mistake looks like: one line on stderr, exit status 2."""

import os
import sys

import click

from hetmorph.cli.apply import apply, jacobian
from hetmorph.cli.bids import bids
from hetmorph.cli.convert_weights import convert_weights
from hetmorph.cli.doctor import doctor
from hetmorph.cli.export import export, serve_check
from hetmorph.cli.list_models import list_models
from hetmorph.cli.messages import line_of
from hetmorph.cli.parsers import VERBS
from hetmorph.cli.register import register, report, uncertainty
from hetmorph.cli.shards import merge
from hetmorph.version import __version__


class Commands(click.Group):
    """A group whose errors are one line; `--debug` shows where they come from."""

    def main(self, args=None, prog_name=None, standalone_mode=True, **extra):
        args = list(sys.argv[1:] if args is None else args)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: hide its notes on the CPU
        try:
            status = super().main(args, "hetmorph", standalone_mode=False, obj=["hetmorph", *args], **extra)
        except click.ClickException as error:
            path = error.ctx.command_path if getattr(error, "ctx", None) else "hetmorph"
            advice = f" See: {path} --help" if isinstance(error, click.UsageError) else ""
            click.echo(f"{path}: error: {error.format_message()}{advice}", err=True)
            status = 2
        except click.Abort:
            click.echo("stopped", err=True)
            status = 130
        except Exception as error:
            verb = next((word for word in args if word in self.commands), "")
            line = line_of(error, verb)
            if line is None or "--debug" in args:
                raise
            click.echo(f"hetmorph {verb}: error: {line}", err=True)
            status = 2
        if not standalone_mode:
            return status
        sys.exit(status if isinstance(status, int) else 0)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="hetmorph %(version)s")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def cli(debug: bool) -> None:
    """Deformable registration of medical images that says how sure it is.

    The moving image is registered to the fixed one: moved(x) = moving(x + u(x)), x in the fixed image. Results lie on
    the grid of the fixed image, distances are in millimetres, and files are what their endings say (docs/files.md).

    Exit status: 0 done; 1 some cases failed, or something is not as it should be; 2 a mistake in the call or its files;
    3 done, but a registration is rejected (register, report: --fail-on).
    """


for verb in (
    *(register, merge, apply, jacobian, uncertainty, bids, *VERBS, report),
    *(export, serve_check, convert_weights, list_models, doctor),
):
    cli.add_command(verb)
