"""`predictd health`: whether a running daemon serves, as an exit status."""

from __future__ import annotations

import click

from predictd.server.cli.remote import Target, daemon_options, reading_certificates

# Front ends answer this by themselves; what takes longer is no answer for a load balancer either.
_ANSWER_SECONDS = 5.0
_NAME_OPTION = "grpc.ssl_target_name_override"


@click.command
@click.argument("name", default="")
@daemon_options
def health(name: str, target: Target) -> None:
    """Ask a daemon by gRPC's health protocol whether it serves, or whether its model NAME does.

    The exit status is 0 if it does, else 1 with the reason in one line.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    what = f"model {name!r} of the daemon" if name else "the daemon"
    name_expected, token = target.trust.server_name, target.trust.token
    options = () if name_expected is None else ((_NAME_OPTION, name_expected),)
    with reading_certificates():
        tls = target.tls
        credentials = None if tls is None else tls.credentials()
    with (
        grpc.insecure_channel(target.address)
        if credentials is None
        else grpc.secure_channel(target.address, credentials, options)
    ) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=name),
                timeout=_ANSWER_SECONDS,
                metadata=None if token is None else (("authorization", f"Bearer {token}"),),
            )
        except grpc.RpcError as error:
            raise click.ClickException(
                f"{what} at {target}: {error.code().name} {' '.join((error.details() or '').split())}"
            ) from error
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if status != "SERVING":
        raise click.ClickException(f"{what} at {target} is {status}")
    click.echo(status)
