"""Messages of the protocol, each as `AgentApi` declares it."""

from typing import get_type_hints

import pytest

from client.agent.site_agent import SiteAgent
from common.protocol.protocol import METHODS, AgentApi
from common.wire import WireMessage

every_method = pytest.mark.parametrize("method", METHODS)


def test_the_methods_are_those_of_the_interface():
    assert set(METHODS) == {name for name in dir(AgentApi) if not name.startswith("_")}


@every_method
def test_a_hospital_answers_it_with_the_declared_types(method):
    types = get_type_hints(getattr(SiteAgent, method))
    assert (types["request"], types["return"]) == METHODS[method]


@every_method
def test_its_fields_travel_in_a_header_that_refuses_any_other(method):
    for message in METHODS[method]:
        assert issubclass(message, WireMessage)
        assert message.model_config["extra"] == "forbid"
        assert message.model_config["frozen"]
        assert len(message.__doc__) > 20
