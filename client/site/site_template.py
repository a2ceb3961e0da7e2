"""Write the templates that a new hospital starts from."""

from pathlib import Path

from client.site.site_folder import writable_folder
from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.site_policy import SitePolicy

SITE_YAML = """\
# The rules of this hospital. Nothing a server sends can loosen them.
# Relative paths are below the folder of this file. A running agent takes changed rules and
# consents before its next answer; changed paths and device when it is started again.
site_id: "{site_id}"
manifest: manifest.csv          # one row per patient; see the header line for the columns
feature_store: features         # extracted features, one HDF5 file per patient and feature set
ledger: private/ledger.jsonl    # what was spent; append-only, never edit
split_key_file: private/split.key
state: private/state
identity_key: private/identity.key # signs this hospital's keys of the secure sum
device: auto                    # auto | cpu | cuda
# modalities: [pathology, clinical]  # what you have at all; without this line: all a study asks for
minimum_cohort: 20              # fewer usable patients: no approval, and no training in mode none
lifetime_epsilon: 10.0          # training, over all studies
lifetime_evaluation_epsilon: 20.0
delta: 1.0e-5
allowed_modes: [distributed, local]
allow_internal_evaluation: false  # true: exact tables and counts may leave (not private)
"""

MANIFEST_HEADER = (
    "patient_id,slides,volume_t1,mask_t1,volume_t2,mask_t2,rna,"
    "clinical_age,clinical_sex,clinical_stage,response,time_months,event\n"
)


def write_site_template(folder: Path, site_id: str) -> list[Path]:
    """Write `site.yaml` and an empty `manifest.csv`; return their paths.

    Raises:
        ConfigError: The name cannot be one of a site, the folder cannot be written, or one of
            the files exists already; nothing is overwritten.
    """
    SitePolicy.from_mapping({"site_id": site_id}, where="--site-id")
    files = {
        folder / "site.yaml": SITE_YAML.format(site_id=site_id),
        folder / "manifest.csv": MANIFEST_HEADER,
    }
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise ConfigError(
            "the folder already belongs to a hospital",
            where=", ".join(existing),
            why="nothing is overwritten",
            cure="choose a new folder, or edit the files by hand",
        )
    writable_folder(folder, key="folder")
    for path, text in files.items():
        write_text(path, text)
    return list(files)
