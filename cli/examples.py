"""One line for each command that shows its use; it ends the command's --help."""

import typer

EXAMPLES = {
    "trce up": "trce up --serve-base --port 8000",
    "trce demo": "trce demo --out build/demo",
    "trce generate": 'trce generate "a cat on a sofa" --model default --seed 7 --out pictures',
    "trce erase": "trce erase weapons drugs --base-model emoji --promote --default",
    "trce evaluate": "trce evaluate MODEL --suite explicit --suite ordinary --attack p4d:50:10",
    "trce compare": "trce compare MODEL OTHER report.json --out compare.html",
    "trce export": "trce export MODEL --format single-file --out erased.safetensors",
    "trce verify": "trce verify picture.png",
    "trce audit": "trce audit --limit 0 --json",
    "trce bench": "trce bench eval",
    "trce doctor": "trce doctor --data-dir data",
    "trce setup": "trce setup",
    "trce models list": "trce models list --json",
    "trce models show": "trce models show MODEL",
    "trce models promote": 'trce models promote MODEL --reason "passed its gate"',
    "trce models default": "trce models default MODEL",
    "trce models retire": 'trce models retire MODEL --reason "replaced"',
    "trce models merge": "trce models merge MODEL OTHER",
    "trce models add": "trce models add MODEL drugs",
    "trce models remove": "trce models remove MODEL axe sword",
    "trce models export": "trce models export MODEL --format diffusers --out exported",
    "trce models import": "trce models import stable-diffusion-v1-5 --id sd15",
    "trce models push": "trce models push",
    "trce jobs list": "trce jobs list",
    "trce jobs cancel": "trce jobs cancel 3945d94f",
    "trce jobs dead": "trce jobs dead",
    "trce jobs retry": "trce jobs retry 3945d94f",
    "trce keys create": "trce keys create --scope generate --tenant acme --expires 90d",
    "trce keys list": "trce keys list",
    "trce keys revoke": "trce keys revoke KEY",
    "trce keys rotate": "trce keys rotate KEY --overlap 24h",
    "trce signing list": "trce signing list",
    "trce signing rotate": "trce signing rotate",
    "trce signing revoke": "trce signing revoke KEY",
    "trce signing resign": "trce signing resign",
    "trce policies list": "trce policies list",
    "trce policies show": "trce policies show acme",
    "trce policies set": "trce policies set acme policy.yaml",
    "trce policies remove": "trce policies remove acme",
}


def put_in(app: typer.Typer, words: str = "trce") -> None:
    """Give every command below `app` its example, where there is one."""
    for command in app.registered_commands:
        name = f"{words} {command.name or getattr(command.callback, '__name__', '')}"
        if name in EXAMPLES:
            command.epilog = f"Example: [bold]{EXAMPLES[name]}[/bold]"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            put_in(group.typer_instance, f"{words} {group.name}")
