from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import ErrorCode, PrivacyError, ProtocolError
from common.secure_sum.keys import KeyAdvert, advertise
from common.secure_sum.messages import AdvertiseReply, AgreeKeysRequest
from common.secure_sum.site_rounds import SecureSumSite

IDS = ["s0", "s1", "s2", "s3"]
KEYS = {name: Ed25519PrivateKey.generate() for name in IDS}
ROSTER = {name: key.public_key().public_bytes_raw().hex() for name, key in KEYS.items()}


def site(name: str, **changes: object) -> SecureSumSite:
    fields = {"run_id": "run", "study_digest": "a" * 64} | changes
    return SecureSumSite(name, KEYS[name], ROSTER, 1, 3, **fields)


def adverts_of(sites: list[SecureSumSite]) -> list[KeyAdvert]:
    return [s.advertise() for s in sites]


def test_all_sites_derive_one_digest_and_pairs_share_secrets() -> None:
    sites = [site(name) for name in IDS]
    adverts = adverts_of(sites)
    digests = {s.receive_keys(list(reversed(adverts))) for s in sites}
    assert len(digests) == 1
    keys = [s._keys for s in sites]
    assert keys[0].masks["s2"] == keys[2].masks["s0"]
    assert keys[0].channels["s2"] == keys[2].channels["s0"] != keys[0].masks["s2"]
    assert keys[0].masks["s1"] != keys[0].masks["s2"]


def test_messages_survive_the_wire() -> None:
    advert = site("s0").advertise()
    reply = AdvertiseReply(site_id="s0", run_id="run", advert=advert)
    assert AdvertiseReply.decode(*reply.encode()).advert == advert
    request = AgreeKeysRequest(run_id="run", adverts=[advert])
    assert AgreeKeysRequest.decode(*request.encode()).adverts == [advert]


def swapped_key(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    """The server puts a key of its own in place of s1's."""
    own = site("s2").advertise()
    return [adverts[0], adverts[1].model_copy(update={"mask_key": own.mask_key}), *adverts[2:]]


def signed_by_stranger(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    s1 = site("s1")
    forged = advertise(Ed25519PrivateKey.generate(), "s1", s1.context, s1._state.run_secrets())
    return [adverts[0], forged, *adverts[2:]]


def unknown_site(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    return [*adverts, adverts[1].model_copy(update={"site_id": "s9"})]


def twice(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    return [*adverts, adverts[1]]


def other_run(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    return [*adverts[:3], site("s3", run_id="older-run").advertise()]


def other_study(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    return [*adverts[:3], site("s3", study_digest="b" * 64).advertise()]


def without_me(adverts: list[KeyAdvert]) -> list[KeyAdvert]:
    return adverts[1:]


@pytest.mark.parametrize(
    "attack",
    [swapped_key, signed_by_stranger, unknown_site, twice, other_run, other_study, without_me],
)
def test_a_server_that_meddles_with_keys_is_refused(
    attack: Callable[[list[KeyAdvert]], list[KeyAdvert]],
) -> None:
    sites = [site(name) for name in IDS]
    with pytest.raises(ProtocolError) as caught:
        sites[0].receive_keys(attack(adverts_of(sites)))
    assert caught.value.code == ErrorCode.SECURE_SUM
    assert not sites[0].keys_agreed


def test_other_keys_in_the_same_session_are_refused() -> None:
    sites = [site(name) for name in IDS]
    adverts = adverts_of(sites)
    sites[0].receive_keys(adverts)
    sites[0].receive_keys(adverts)
    with pytest.raises(ProtocolError, match="other keys"):
        sites[0].receive_keys([*adverts[:3], site("s3").advertise()])


def test_sites_that_were_shown_different_sets_share_no_secret() -> None:
    sites = [site(name) for name in IDS]
    adverts = adverts_of(sites)
    first = sites[0].receive_keys(adverts)
    second = sites[1].receive_keys(adverts[:3])
    assert first != second
    assert sites[0]._keys.masks["s1"] != sites[1]._keys.masks["s0"]


def test_too_few_sites_are_refused() -> None:
    sites = [site(name) for name in IDS[:2]]
    with pytest.raises(PrivacyError):
        sites[0].receive_keys(adverts_of(sites))
    with pytest.raises(ValueError, match="colluders"):
        SecureSumSite("s0", KEYS["s0"], ROSTER, 0, 3, run_id="run", study_digest="a" * 64)


def test_a_key_of_small_order_is_refused() -> None:
    sites = [site(name) for name in IDS]
    weak = sites[1].advertise().model_copy(update={"mask_key": "00" * 32})
    weak = weak.model_copy(update={"signature": KEYS["s1"].sign(weak.signed_bytes()).hex()})
    adverts = adverts_of(sites)
    with pytest.raises(ProtocolError, match="X25519"):
        sites[0].receive_keys([adverts[0], weak, *adverts[2:]])
