"""A consortium of small hospitals on disk, whose agents in memory go by their site kits."""

import shutil

from joined_consortium import join, make_consortium, make_hospital
from tiny_consortium import tiny_policy, tiny_study

from client.agent.log_files import site_audit_log
from client.agent.site_agent import SiteAgent
from client.site.enrol_connection import SiteConnection
from client.site.hospital_roster import HospitalRoster
from server.consortium.consortium_folder import ConsortiumFolder


class Unread:
    """A provider that must not be asked."""

    def __call__(self, study):
        raise AssertionError("patients were read")


def make_lab(folder, sites):
    """Provision a consortium below `folder` and have the sites join it."""
    consortium = make_consortium(folder)
    for site in sites:
        join(consortium, make_hospital(folder, site), folder)


def copy_lab(made, folder, sites):
    """Return a copy of a consortium, to be spoiled; every hospital knows the present roster."""
    shutil.copytree(made, folder, dirs_exist_ok=True, symlinks=True)
    lab = ConsortiumFolder.open(folder / "lab")
    for site in sites:
        shutil.copy(lab.roster_file, connection_of(lab, site).root)
    return lab


def study_of(lab, **changes):
    """The smallest study, with the hospitals of the roster and their keys."""
    members = lab.roster().members
    entries = [{"site_id": m.site_id, "public_key": m.identity} for m in members]
    return tiny_study(**{"sites": entries, **changes})


def connection_of(lab, site):
    """The installed kit of a hospital."""
    return SiteConnection.of_site(lab.root.parent / site)


def agent_of(lab, study, site, provider=None):
    """The agent of a hospital that consented; without a provider no patient may be read."""
    policy = tiny_policy(study, site, lab.root.parent)
    roster = HospitalRoster(connection_of(lab, site), site_audit_log(policy))
    return SiteAgent(policy, provider or Unread(), roster=roster)
