"""A server app for tests: asks one node for its status and writes down what came back."""

import json
import time
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import ServerApp

from common.protocol.protocol import StatusRequest
from server.flower.grid_message import CONFIG, pack

app = ServerApp()


@app.main()
def main(grid, context):
    """Ask the first node that comes online; keys of the run configuration: `out`."""
    deadline = time.monotonic() + 60
    while not (nodes := list(grid.get_node_ids())) and time.monotonic() < deadline:
        time.sleep(0.2)
    message = Message(pack("status", *StatusRequest().encode()), nodes[0], "query", ttl=60.0)
    sent = list(grid.push_messages([message]))
    while not (replies := list(grid.pull_messages(sent))) and time.monotonic() < deadline:
        time.sleep(0.2)
    reply = replies[0]
    content = {} if reply.has_error() else reply.content[CONFIG]
    told = {name: value for name, value in content.items() if not isinstance(value, bytes)}
    told |= {"error": reply.error.reason} if reply.has_error() else {}
    Path(str(context.run_config["out"])).write_text(json.dumps(told))
