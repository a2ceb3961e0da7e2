"""Explain every error code, and what to do about it, for pages that know only the code.

Across the line between a hospital and the coordinator goes the code, never the sentences of the
error. This table is the same as that of the handbook (`deploy/handbook/errors.md`).
"""

from dataclasses import dataclass

from common.errors import ErrorCode


@dataclass(frozen=True)
class Guide:
    """One code in words.

    Attributes:
        happened: What is wrong; commands are in backticks.
        cure: What the reader can do.
    """

    happened: str
    cure: str


GUIDES: dict[ErrorCode, Guide] = {
    ErrorCode.CONFIG: Guide(
        "A study, policy or scenario file is missing, is not YAML, or holds a key that is "
        "unknown or wrong.",
        "Correct the keys named. `tumorboard study schema` prints what is allowed.",
    ),
    ErrorCode.PLUGIN: Guide(
        "A model, extractor or aggregation rule of another distribution is not installed, is of "
        "another version, or has a name that is taken.",
        "Install the distribution and version that the study names, the same at every hospital.",
    ),
    ErrorCode.MANIFEST: Guide(
        "The manifest has problems; all are listed with row, column, value and fix.",
        "Correct the rows and run the same command again.",
    ),
    ErrorCode.FEATURE: Guide(
        "A feature file is missing, damaged, or of another width than the study says.",
        "Extract it again; a damaged file is replaced.",
    ),
    ErrorCode.FEATURE_FINGERPRINT: Guide(
        "A feature file was made by another extractor, or another version of its weights or "
        "parameters.",
        "Extract again with the study's extractor. Features of different encoders are never mixed.",
    ),
    ErrorCode.FEATURE_NOT_FINITE: Guide(
        "A feature is NaN or infinite.",
        "Look at the raw file named; extract it again.",
    ),
    ErrorCode.EXTRACTION: Guide(
        "One raw file could not be turned into features. The others were processed.",
        "See the reason beside the item; repair or replace the file, then run the command again.",
    ),
    ErrorCode.SLIDE_WITHOUT_RESOLUTION: Guide(
        "A slide does not say its resolution. It is set aside, never guessed.",
        "Export it again with micrometres per pixel in its header.",
    ),
    ErrorCode.IMAGE_MASK_MISMATCH: Guide(
        "Image and mask do not lie on the same grid.",
        "Export the mask on the image's grid, or as RTSTRUCT or SEG, which carry their own.",
    ),
    ErrorCode.DATA: Guide(
        "A dataset cannot be used: too few patients, no outcome, or arrays of different lengths.",
        "`tumorboard site check` prints the funnel and why each patient was excluded.",
    ),
    ErrorCode.PRIVACY: Guide(
        "A privacy plan breaks the guarantee, or asks for something that does not exist.",
        "Change the plan as the message says.",
    ),
    ErrorCode.LAYER_NOT_PRIVATE: Guide(
        "A layer of the model mixes patients, so per-patient clipping means nothing.",
        "Replace the layer named with the one suggested.",
    ),
    ErrorCode.WEIGHTS_ORIGIN: Guide(
        "A private study uses weights of unknown, random or non-private origin, or a card of "
        "weights was altered or is signed by nobody the study knows.",
        "Name weights with a card (`tumorboard weights --help`), or say in the study why these "
        "are used: `weights.accept_origin`.",
    ),
    ErrorCode.BUDGET: Guide(
        "The ledger refuses: the remaining budget does not cover the release.",
        "Ask for less, or raise the ceiling at the hospital; a spent budget is never restored.",
    ),
    ErrorCode.ALREADY_SPENT: Guide(
        "The round was already spent with another model.",
        "Resume the run from its checkpoint instead of starting it again.",
    ),
    ErrorCode.LEDGER_DAMAGED: Guide(
        "The ledger is damaged: its chain does not close.",
        "Restore it from backup. Nothing is spent until it verifies.",
    ),
    ErrorCode.LEDGER_ROLLBACK: Guide(
        "The ledger is older than one seen before.",
        "Put the newer ledger back, or reconcile it (`tumorboard site ledger --help`).",
    ),
    ErrorCode.AUDIT_LOG: Guide(
        "An audit log is damaged, was cut off, or is signed by another key.",
        "Keep the file; compare its head with the one noted elsewhere, and restore the newest "
        "copy.",
    ),
    ErrorCode.PROTOCOL: Guide(
        "A message is not what the protocol allows.",
        "Install the same version on both sides.",
    ),
    ErrorCode.STUDY_DIGEST: Guide(
        "The study is not the one its digest names, or not the one of this run.",
        "Compare `tumorboard study freeze` on both sides.",
    ),
    ErrorCode.CODE_DIGEST: Guide(
        "Server and site run different code.",
        "Install the same version on both sides.",
    ),
    ErrorCode.NOT_APPROVED: Guide(
        "The hospital has not approved this study.",
        "`tumorboard site approve`, after reading the study.",
    ),
    ErrorCode.POLICY: Guide(
        "The hospital's policy forbids it.",
        "Only the hospital can change `site.yaml`.",
    ),
    ErrorCode.PAYLOAD: Guide(
        "A payload is oversized, truncated, or has the wrong names, shapes or types.",
        "Same version on both sides; look for a proxy that cuts messages.",
    ),
    ErrorCode.NOT_FINITE: Guide(
        "An update holds NaN or infinity, or is larger than the bound.",
        "Check scaling and learning rate at that site.",
    ),
    ErrorCode.BUNDLE: Guide(
        "The site gate refused the bundle: it holds code, names another app, or its digest is "
        "not allowed here.",
        "Ask the coordinator for the bundle of this version; the hospital allows a digest by "
        "installing a kit.",
    ),
    ErrorCode.UNPROVEN: Guide(
        "A node that authenticates claims to be a site, but the site's registered identity has "
        "not signed the server's challenge; or another live node already speaks for the site.",
        "Compare the public key in the study's roster with `tumorboard site keygen` at that "
        "hospital; look for a second installation with its node key.",
    ),
    ErrorCode.AGENT_AWAY: Guide(
        "The node is online, but its site agent is not.",
        "`tumorboard site status` at that hospital; the agent's log shows why it ended.",
    ),
    ErrorCode.SECURE_SUM: Guide(
        "The secure sum was refused: keys, survivor lists or shares do not agree.",
        "Read the site's log; the round is void and is tried again.",
    ),
    ErrorCode.FALSE_SHARES: Guide(
        "A hospital's part of a secure sum contradicts itself: shares that nobody can open, masks "
        "other than those it committed to, or sums longer than clipping and noise allow. The study "
        "goes on without it.",
        "Ask the hospital whether its machine was tampered with; compare code and roster.",
    ),
    ErrorCode.JOIN_REQUEST: Guide(
        "A request to join was refused: altered, not signed by its own keys, or its name or "
        "keys are taken.",
        "The hospital makes a new request with `tumorboard site request`; compare its "
        "fingerprint by telephone.",
    ),
    ErrorCode.ROSTER: Guide(
        "A signed roster or site kit was refused: altered, older than the one known, or of "
        "another consortium; or a study names a hospital that is not admitted, is revoked, or "
        "has another key on the roster.",
        "Compare version and fingerprint of `tumorboard site roster` and `tumorboard server "
        "roster` by telephone. If they agree, the study is wrong: copy `sites:` from the roster.",
    ),
    ErrorCode.CERTIFICATE: Guide(
        "A certificate cannot be used: expired, of another authority, or without the address "
        "that is called.",
        "`tumorboard server provision FOLDER --rotate` makes a new one; `tumorboard server "
        "doctor` says what is wrong.",
    ),
    ErrorCode.REVOKED: Guide(
        "The coordinator revoked the hospital while the study ran; the others go on without it.",
        "Nothing for this study. `tumorboard server roster` says why; with new keys the hospital "
        "may join again, for another study.",
    ),
    ErrorCode.NODE_KEY: Guide(
        "The SuperLink refused a caller: its node key is not admitted or was revoked, or its "
        "signed time stamp is wrong or older than 305 s.",
        "The audit log names address, key and, if the key was ever admitted, the hospital. "
        "An unknown key: an intruder. A hospital of yours: compare keys with `tumorboard "
        "server roster`, and its clock.",
    ),
    ErrorCode.REPLAYED: Guide(
        "A signed request of a hospital came a second time, or was signed before this server "
        "started.",
        "Once after a restart: nothing, the SuperNode signs again. Otherwise somebody is "
        "reading the line between proxy and SuperLink: rotate certificate and key of the server.",
    ),
    ErrorCode.INTERFACE: Guide(
        "Somebody called an interface that is the coordinator's own (`/v1/control`, "
        "`/v1/runtime`, or a path that does not exist).",
        "Only the proxy may face hospitals; find out who reaches the SuperLink's port.",
    ),
    ErrorCode.RUN: Guide(
        "The run cannot go on.",
        "See the reason; what was committed stays, the same command continues.",
    ),
    ErrorCode.QUORUM: Guide(
        "Too few sites answered.",
        "Bring sites back, then run the same command again.",
    ),
    ErrorCode.STOPPED: Guide(
        "The coordinator stopped the run after a committed round.",
        "`tumorboard server resume` goes on.",
    ),
    ErrorCode.TRANSPORT: Guide(
        "Flower ended the run, for instance because the SuperLink was away too long.",
        "`tumorboard server run` restarts it automatically; otherwise `tumorboard server resume`.",
    ),
    ErrorCode.INTERNAL: Guide(
        "An unexpected error.",
        "The full text is in the log of the side that failed; please report it.",
    ),
    ErrorCode.DISK_FULL: Guide(
        "A disk is full, a quota is used up, or a file may not grow. Nothing was half written and "
        "no answer left.",
        "`tumorboard site doctor` at that hospital names the path; free space there. The request "
        "is repeated automatically.",
    ),
}


def guide_of(code: str) -> Guide:
    """Return what a code means; a code of another version gets the internal error's fix.

    Example:
        >>> guide_of("TB601").happened
        'Too few sites answered.'
    """
    guides = {str(key): guide for key, guide in GUIDES.items()}
    unknown = Guide(f"Code {code} is unknown to this version.", "Install the same version.")
    return guides.get(code, unknown)
