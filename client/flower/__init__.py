"""Flower on the hospital's side: client app, relay and SuperNode."""
