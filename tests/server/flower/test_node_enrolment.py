"""The SuperLink is made to know the keys of the roster, seen in Flower's own database."""

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.server.superlink.linkstate.linkstate_factory import LinkStateFactory
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from joined_consortium import make_consortium, make_hospital

from client.site.enrol_request import write_request
from common.errors import ErrorCode, ProtocolError, RunError
from server.consortium.provision_roster import admit, revoke
from server.flower import node_enrolment
from server.flower.node_enrolment import NodeEnrolment, registered_nodes


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A consortium of two hospitals, and the commands to Flower carried out on its state."""
    consortium = make_consortium(tmp_path)
    for name in ("a", "b"):
        path = tmp_path / f"{name}.json"
        write_request(make_hospital(tmp_path, name), "", path)
        admit(consortium, path)
    state = LinkStateFactory(
        str(consortium.database), NoOpFederationManager(), ObjectStoreFactory()
    ).state()

    def register(folder, site_id, node_key):
        key = load_ssh_public_key(node_key.encode())
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return str(state.create_node("owner", "lab", pem, 30.0))

    monkeypatch.setattr(node_enrolment, "register_node", register)
    monkeypatch.setattr(
        node_enrolment, "unregister_node", lambda _, node: state.delete_node("owner", int(node))
    )
    return consortium


def keys(consortium):
    return {member.node_key for member in consortium.roster().admitted}


def test_admitted_keys_are_known_and_a_revoked_one_no_longer(lab):
    NodeEnrolment(lab).update()
    assert set(registered_nodes(lab)) == keys(lab)
    revoke(lab, "a", "left")
    NodeEnrolment(lab).update()
    assert set(registered_nodes(lab)) == keys(lab)
    assert len(keys(lab)) == 1


def test_a_kill_between_registration_and_the_next_start_is_no_dead_end(lab, monkeypatch):
    register = node_enrolment.register_node

    def killed(folder, site_id, node_key):
        if site_id == "b":
            raise KeyboardInterrupt
        return register(folder, site_id, node_key)

    monkeypatch.setattr(node_enrolment, "register_node", killed)
    with pytest.raises(KeyboardInterrupt):
        NodeEnrolment(lab).update()
    monkeypatch.setattr(node_enrolment, "register_node", register)
    NodeEnrolment(lab).update()
    assert set(registered_nodes(lab)) == keys(lab)


def test_a_key_that_nobody_admitted_is_put_out(lab, tmp_path):
    stranger = make_hospital(tmp_path, "stranger").identity_key.with_name("node.key.pub")
    node_enrolment.register_node(lab, "stranger", stranger.read_text())
    NodeEnrolment(lab).update()
    assert set(registered_nodes(lab)) == keys(lab)


def test_a_roster_from_before_a_revocation_registers_nobody(lab):
    before = lab.roster_file.read_bytes()
    revoke(lab, "a", "left")
    lab.roster_file.write_bytes(before)
    with pytest.raises(ProtocolError, match="older") as caught:
        NodeEnrolment(lab).update()
    assert caught.value.code == ErrorCode.ROSTER
    assert registered_nodes(lab) == {}


def test_a_damaged_database_is_named(tmp_path):
    consortium = make_consortium(tmp_path)
    consortium.database.write_bytes(b"no database" * 1000)
    with pytest.raises(RunError, match="database") as caught:
        registered_nodes(consortium)
    assert caught.value.cure
