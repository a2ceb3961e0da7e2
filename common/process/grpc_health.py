"""Ask a process over gRPC whether it is serving (`grpc.health.v1`)."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def is_serving(target: str, service: str = "", *, timeout_s: float = 2.0) -> bool:
    """Return whether a health service says that it serves; see `health_of`."""
    return health_of(target, service, timeout_s=timeout_s) is True


def health_of(target: str, service: str = "", *, timeout_s: float = 2.0) -> bool | None:
    """Return what a health service says; None if it does not answer or knows no such service.

    Args:
        target: Address as gRPC writes it: `127.0.0.1:9092` or `unix:/path`.
        service: Name of the service; empty for the whole process.
        timeout_s: Seconds to wait at most.
    """
    with grpc.insecure_channel(target) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
            )
        except grpc.RpcError:
            return None
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
