"""The SuperLink is made to know the keys of the roster, whatever happened before.

That it really does is shown on a running one in `test_flower_internals`.
"""

import itertools

import pytest
from joined_consortium import make_consortium, make_hospital

from client.site.enrol_request import write_request
from common.errors import ErrorCode, ProtocolError
from server.consortium.provision_roster import admit, revoke
from server.flower import node_enrolment
from server.flower.node_enrolment import NodeEnrolment

_NUMBERS = itertools.count(1)


class SuperLink:
    """What it knows: node key -> node id."""

    def __init__(self):
        self.nodes = {}

    def register_node(self, _folder, _site_id, node_key):
        self.nodes[node_key] = str(next(_NUMBERS))
        return self.nodes[node_key]

    def unregister_node(self, _folder, node_id):
        self.nodes = {key: node for key, node in self.nodes.items() if node != node_id}

    def registered_nodes(self, _folder):
        return dict(self.nodes)


@pytest.fixture
def link(monkeypatch):
    link = SuperLink()
    for name in ("register_node", "unregister_node", "registered_nodes"):
        monkeypatch.setattr(node_enrolment, name, getattr(link, name))
    return link


@pytest.fixture
def lab(tmp_path, link):
    """A consortium of two hospitals."""
    consortium = make_consortium(tmp_path)
    for name in ("a", "b"):
        path = tmp_path / f"{name}.json"
        write_request(make_hospital(tmp_path, name), "", path)
        admit(consortium, path)
    return consortium


def keys(consortium):
    return {member.node_key for member in consortium.roster().admitted}


def test_admitted_keys_are_known_and_a_revoked_one_no_longer(lab, link):
    NodeEnrolment(lab).update()
    assert set(link.nodes) == keys(lab)
    revoke(lab, "a", "left")
    NodeEnrolment(lab).update()
    assert set(link.nodes) == keys(lab)
    assert len(keys(lab)) == 1


def test_a_kill_between_registration_and_the_next_start_is_no_dead_end(lab, link, monkeypatch):
    def killed(folder, site_id, node_key):
        if site_id == "b":
            raise KeyboardInterrupt
        return link.register_node(folder, site_id, node_key)

    monkeypatch.setattr(node_enrolment, "register_node", killed)
    with pytest.raises(KeyboardInterrupt):
        NodeEnrolment(lab).update()
    monkeypatch.setattr(node_enrolment, "register_node", link.register_node)
    NodeEnrolment(lab).update()
    assert set(link.nodes) == keys(lab)


def test_a_key_that_nobody_admitted_is_put_out(lab, link, tmp_path):
    stranger = make_hospital(tmp_path, "stranger").identity_key.with_name("node.key.pub")
    link.register_node(lab, "stranger", stranger.read_text())
    NodeEnrolment(lab).update()
    assert set(link.nodes) == keys(lab)


def test_a_roster_from_before_a_revocation_registers_nobody(lab, link):
    before = lab.roster_file.read_bytes()
    revoke(lab, "a", "left")
    lab.roster_file.write_bytes(before)
    with pytest.raises(ProtocolError, match="older") as caught:
        NodeEnrolment(lab).update()
    assert caught.value.code == ErrorCode.ROSTER
    assert link.nodes == {}
