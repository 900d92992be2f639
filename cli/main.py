"""The `trce` command."""

import sys

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.text import Text

from cli.commands import (
    audit,
    bench,
    carrying,
    compare,
    demo,
    deriving,
    doctor,
    erase,
    evaluate,
    generate,
    jobs,
    keys,
    models,
    policies,
    setup,
    signing,
    up,
    verify,
)
from cli.examples import put_in
from cli.explaining import explain
from core.errors import AppError

NOT_EVERYWHERE = {"torch", "diffusers", "transformers", "safetensors", "diffusion", "trainer"}
"""What the image of the service lacks: it only asks the workers to draw and to erase."""

app = typer.Typer(
    name="trce",
    help="Text-to-image with safe model hosting: erase concepts, prove it, serve only what was "
    "erased.\n\nStart with [bold]trce up[/bold], or see everything at once with "
    "[bold]trce demo[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("generate")(generate.generate)
app.command("erase")(erase.erase)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("export")(carrying.export)
app.command("verify")(verify.verify)
app.command("audit")(audit.audit)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("setup")(setup.setup)
for name, command in (
    ("merge", deriving.merge),
    ("add", deriving.add),
    ("remove", deriving.remove),
    ("import", carrying.import_model),
    ("export", carrying.export),
    ("push", carrying.push),
):
    models.app.command(name)(command)
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(signing.app, name="signing")
app.add_typer(policies.app, name="policies")
put_in(app)


def run() -> None:
    """Errors with a name are for the user: a line or two, no trace."""
    try:
        app(prog_name="trce")
    except (AppError, OSError) as error:
        _complain(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NOT_EVERYWHERE:
            raise
        _complain(
            f"this needs {error.name}, which is not installed here, as in the image of the "
            "service: run it in that of the workers"
        )
    except (ValidationError, SettingsError) as error:
        _complain("; ".join(explain(error)))


def _complain(what: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble(("error: ", "red"), what))
    sys.exit(2)


if __name__ == "__main__":
    run()
