"""The command `predictd`. A subcommand is imported when it is called, so that each starts quickly."""

from __future__ import annotations

import importlib
import sys

import click

# Command -> its line in the help. The command is the object of this name in the module of this name.
COMMANDS = {
    "serve": "Serve models over gRPC until SIGTERM.",
    "plan": "Show what would run on which CPUs, and why.",
    "demo": "Serve a small pretrained model and show how to ask it.",
    "predict": "Send one request to a running daemon.",
    "health": "Ask a running daemon whether it serves.",
    "models": "List the models of a running daemon.",
    "top": "Watch a running daemon: models, latencies, processes.",
    "check": "Say all that is wrong with models, without loading them.",
    "build": "Build a TensorRT plan of an ONNX model.",
    "bench": "Measure how fast a server answers, or an engine by itself.",
    "compare": "Hold a model against another: size, speed, outputs.",
    "tune": "Measure which settings suit a model on this machine.",
    "optimize": "Make a model smaller and faster, and show what it cost.",
    "label": "Give a version of a model a name, or take the name back.",
    "split": "Divide a model's requests among versions by percentages.",
    "load": "Load a model of a running daemon, again if it failed.",
    "unload": "Unload a model of a running daemon.",
    "token": "Make a token that a daemon lets in.",
    "identify": "Ask the demo's model what kind of file this is.",
}


# typing.override needs Python 3.12.
class LazyGroup(click.Group):
    """A group that knows its commands by name and imports them on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # type: ignore[explicit-override]  # noqa: ARG002
        return list(COMMANDS)

    def get_command(  # type: ignore[explicit-override]
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"predictd.server.cli.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"predictd.server.cli.{cmd_name} exports no command {cmd_name}. This is a bug.")
        return command

    def format_commands(  # type: ignore[explicit-override]
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="predictd", prog_name="predictd")
@click.pass_context
def predictd(ctx: click.Context) -> None:
    """Serve ONNX models over gRPC: several processes, dynamic batching, one command."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line. Exit with the command's code, 2 after wrong usage or configuration."""
    try:
        code = predictd.main(prog_name="predictd", standalone_mode=False)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        # One line, unlike click's own three: it ends up in logs as often as on a terminal.
        ctx = error.ctx if isinstance(error, click.UsageError) else None
        click.echo(f"{ctx.command_path if ctx else 'predictd'}: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
