"""All that the four packages offer."""

from client import *
from common import *
from server import *
from simulations import *
