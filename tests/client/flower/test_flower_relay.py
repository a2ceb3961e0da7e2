"""The relay passes bytes, imports nothing heavy, and lets no text through."""

import subprocess
import sys

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.flower.flower_app import make_client_app, pack, unpack
from common.errors import DataError, ErrorCode


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0


def deliver(call, content):
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    message = Message(content, 1, "query")
    message.metadata.__dict__["_message_id"] = "m"
    return make_client_app(call)(message, context)


def test_bytes_pass_unchanged():
    payload = bytes(range(256)) * 3
    reply = deliver(lambda _c, m, h, p: (h + m, p[::-1]), pack("status", "{}", payload))
    assert unpack(reply.content) == ("status", "{}status", payload[::-1])


def test_empty_payload_passes():
    assert unpack(pack("status", "{}", b"")) == ("status", "{}", b"")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("patient Erika Mustermann"), "TB900"),
        (DataError("patient Erika Mustermann", code=ErrorCode.DATA), "TB320"),
        (type("Sly", (Exception,), {"code": "patient Erika Mustermann"})(), "TB900"),
        (KeyboardInterrupt, None),
    ],
)
def test_exception_becomes_its_code_and_nothing_else(error, code):
    def call(*_):
        raise error

    if code is None:
        with pytest.raises(KeyboardInterrupt):
            deliver(call, pack("status", "{}", b""))
        return
    reply = deliver(call, pack("status", "{}", b""))
    assert not reply.has_error()
    assert dict(reply.content.config_records["tumorboard"]) == {"code": code}
    assert "Mustermann" not in repr(reply)


def test_message_of_another_form_is_refused():
    reply = deliver(lambda *_: ("", b""), RecordDict({"x": ConfigRecord({"a": 1})}))
    assert dict(reply.content.config_records["tumorboard"]) == {"code": "TB900"}


def test_relay_imports_neither_torch_nor_our_data_code():
    script = (
        "import sys, client.flower.flower_app\n"
        "heavy = {'torch', 'pandas', 'pydantic', 'h5py', 'scipy'} & set(sys.modules)\n"
        "ours = {m for m in sys.modules if m.split('.')[0] in ('common', 'server')}\n"
        "ours -= {'common', 'common.lazy'}  # the package itself, and its lazy names\n"
        "sys.exit(str(heavy | ours) if heavy | ours else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
