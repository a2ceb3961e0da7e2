"""What each privacy mode promises, in words, for report and page."""

from __future__ import annotations

from common.privacy.plan import Mode

UNIT = "one patient, with all slides, scans and follow-ups (add or remove one)"

PROMISES: dict[Mode, str] = {
    "none": "No formal guarantee: updates leave the hospitals as they are. For simulation and "
    "explicit opt-in only.",
    "local": "Each hospital adds the whole noise itself: the guarantee holds against the server, "
    "all other hospitals together, and everybody who sees the model.",
    "distributed": "Only the noised sum over hospitals is opened: the guarantee holds against the "
    "server and up to t colluding hospitals, and more weakly if all others collude.",
}
