"""Write a commented study file to start from; it is valid as written."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.study import Study

_TEMPLATE = """\
# What the consortium agrees on before any patient is touched. Every hospital approves the
# digest that `tumorboard study freeze` prints. All constants here are public: take them from
# published cohorts or physical units, never from the patients of this study.
# `tumorboard study schema` prints every key with its meaning.
study_id: {study_id}
version: 1
title: ""

endpoints:
  response: {{positive: "pathological complete response", prevalence: 0.3}}
  survival:
    edges_months: [0, 12, 24, 36, 60]       # public interval edges, never quantiles of patients
    horizons_months: [12, 36, 60]

# A site need not have them all; each feature set is one bag of tokens per patient.
features:
  tiles:
    modality: pathology
    dim: 1280
    max_tokens: 1024
    extractor: {{kind: tiles, params: {{encoder: efficientnet_lite0, um_per_px: 0.5}}}}
  clinical:
    modality: clinical
    dim: 7
    extractor:
      kind: clinical_table
      params:
        variables:
          - {{kind: numeric, name: age, center: 60, scale: 12, low: 0, high: 120}}
          - {{kind: categorical, name: sex, categories: [female, male]}}
          - {{kind: ordinal, name: stage, levels: [I, II, III, IV]}}

model: {{name: linear}}       # small heads on frozen features: what privacy leaves room for

training:
  rounds: 100
  nominal_patients: 300      # divides gradient sums in place of the true, private count
  test_fraction: 0.25

privacy:
  mode: {mode}               # distributed, local, or none (simulation only)
  epsilon: 3.0
  delta: 1.0e-5
  clip: 0.3

quorum: {{min_sites: {min_sites}}}

sites:
{sites}
"""


def write_study_template(
    path: Path, *, study_id: str, sites: Sequence[str], mode: str, overwrite: bool = False
) -> None:
    """Write a commented study.

    Raises:
        ConfigError: The file exists, or the roster and mode do not make a valid study.
    """
    if path.exists() and not overwrite:
        raise ConfigError(
            "the file exists already",
            where=str(path),
            why="a study that hospitals approved must not change under them",
            cure="choose another name, or add --force",
        )
    text = _TEMPLATE.format(
        study_id=study_id,
        mode=mode,
        min_sites=min(3, len(sites)) if mode == "distributed" else min(2, len(sites)),
        sites="\n".join(f"  - {{site_id: {site}}}" for site in sites),
    )
    Study.from_mapping(yaml.safe_load(text), where="template")
    write_text(path, text)
