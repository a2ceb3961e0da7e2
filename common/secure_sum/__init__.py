"""Secure summation: a server learns the sum over sites, and nothing about any one of them.

`site_rounds.SecureSumSite` and `server_rounds.SecureSumServer` hold the two sides;
`messages` says what they exchange. Follow a round: `keys` (once a run) -> `masks` -> `shares` ->
`list_lock` -> the opened sum.
"""
