"""Calls the agent of a guest.

    python3 -m pith --pod web check
    python3 -m pith --pod web call StatsContainer '{"container_id": "web-web"}'
    python3 -m pith --socket RUN/vsock.sock call ListInterfaces
    python3 -m pith methods

Exit status: 0 done, 1 the agent refused, 2 wrong usage or no guest there.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys

from . import (
    Agent,
    DeadlineExceeded,
    DecodeError,
    Endpoint,
    Hybrid,
    PithError,
    Pod,
    Refused,
    Unix,
    Vsock,
    messages as m,
)
from ._codec import Shape
from .services import METHODS


def _shown(value: object) -> str:
    """Bytes are shown as text where they are text, else in base64."""
    assert isinstance(value, bytes)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _methods() -> None:
    suffix = {Shape.ONE: "", Shape.OPTIONAL: "?", Shape.LIST: "[]"}
    for method in METHODS.values():
        fields = (
            f"{one.name} map<{one.key},{one.kind}>" if one.shape is Shape.MAP else f"{one.name} {one.kind}{suffix[one.shape]}"
            for one in method.request.FIELDS
        )
        print(f"{method.service} {method.name}({', '.join(fields)})")


def _parser() -> argparse.ArgumentParser:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python3 -m pith",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pod", metavar="NAME", help="a pod that the program `pith` runs on this host")
    where.add_argument("--socket", metavar="PATH", help="the Unix socket of the guest's hybrid vsock")
    where.add_argument("--cid", metavar="N", type=int, help="the guest's context id, where the host's kernel has vsock")
    where.add_argument("--unix", metavar="PATH", help="a Unix socket at which the agent answers without a handshake")
    parser.add_argument("--timeout", metavar="S", type=float, default=60, help="seconds that `call` may take, 0 for ever")
    orders = parser.add_subparsers(dest="order", required=True)
    orders.add_parser("check", help="ask for health and version")
    orders.add_parser("methods", help="list the methods and their requests")
    one = orders.add_parser("call", help="make one call and print its answer as JSON")
    one.add_argument("method")
    one.add_argument("request", nargs="?", default="{}", help="JSON; bytes in base64")
    return parser


def _endpoint(options: argparse.Namespace) -> Endpoint:
    if options.pod:
        with Pod.connect(options.pod) as pod:
            return pod.record.reached_at()
    if options.socket:
        return Hybrid(options.socket)
    return Unix(options.unix) if options.unix else Vsock(options.cid)


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if options.order == "methods":
        _methods()
        return 0
    if not (options.pod or options.socket or options.unix) and options.cid is None:
        parser.error("say where the guest is: --pod, --socket, --cid or --unix")
    try:
        endpoint = _endpoint(options)
        if options.order == "call":
            method = METHODS.get(options.method)
            if method is None:
                raise ValueError(f"no method {options.method!r}; `methods` lists them")
            request = method.request.from_dict(json.loads(options.request))
            with Agent(endpoint) as agent:
                answer = agent.invoke(method, method.answer, request, options.timeout or None)
            print(json.dumps(answer.to_dict(), indent=2, default=_shown))
            return 0
        with Agent(endpoint) as agent:
            health, version = agent.check(), agent.version()
        serving = health.status == m.ServingStatus.SERVING
        print(f"{'serving' if serving else 'not serving'}, agent {version.agent_version}")
        return 0 if serving else 1
    except (Refused, DeadlineExceeded) as error:
        print(f"pith: {error}", file=sys.stderr)
        return 1
    except (PithError, DecodeError, ValueError) as error:
        print(f"pith: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
