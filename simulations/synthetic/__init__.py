"""A synthetic consortium: hospitals on disk in real formats, with a planted, known signal.

No patient exists. Results prove code, not medicine.

**Signal.** Every patient has four latent factors, independent and standard normal up to the case
mix of the hospital: z_pathology, z_radiology, z_genomics, z_clinical. They alone drive the
outcomes (`spec.Signal`)::

    logit P(response) = -0.3 + 1.3 z_path - 1.0 z_rad  + 1.2 z_gen - 0.9 z_clin
    log hazard ratio  =       -0.6 z_path + 0.75 z_rad - 0.6 z_gen + 0.85 z_clin

with a Weibull baseline (rate 0.022 per month, shape 1.15), uniform end of study and random loss to
follow-up. A model that knew all four factors would reach an AUC of about 0.88 and a C-index of
about 0.80; the best single factor about 0.70 and 0.67. `oracle.oracle_metrics` gives the figures
of the patients at hand, also for a model that knows only the factors of present modalities.

**Visible where.** z_path: density of small dark nuclei, size of tumour nuclei, share of stroma
(`tissue_image`). z_rad: tumour size, core, texture, enhancement (`phantom`). z_gen: six of 24
pathways (`expression`). z_clin: age, stage, performance status, two blood values
(`clinical_record`). Each trait has noise of its own.

**Hospitals differ** in staining, scanner, sequencing batch, file formats, units, case mix and in
what they lack (`site_shift`, `spec.demo_spec`). None of that changes the outcome of a patient.

**Files.** `<folder>/sites/<site_id>/{site.yaml, manifest.csv, slides/, volumes/, rna.csv}`;
`<folder>/public/` gene sets and reference values; `<folder>/truth/` what only a simulation
knows. Bytes depend on the specification alone, never on time, order or number of workers.
"""
